"""Learned quality models: equal to scikit-learn's, patients held out, shipped numbers fitted again."""

import json
import sys

import numpy as np
import pytest
import torch
from signals import noise
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from qlung import backbones, load_corpus, paths
from qlung.errors import WeightsError
from qlung.quality import indicators, learned

sys.path.insert(0, str(paths.ROOT / "tools"))
import fit_quality_models


@pytest.fixture
def labelled():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 30, 400)
    good = rng.random(400) < 0.8
    return 2.0 * good[:, None] * [1, 0, -1] + rng.normal(size=(400, 3)), good, patient


def test_a_model_is_sklearns_and_survives_json(labelled):
    x, good, _ = labelled
    model = fit_quality_models.fit(x, good, "bands", "a test")
    z = (x - x.mean(0)) / x.std(0)
    theirs = LogisticRegression(C=0.3, class_weight="balanced", max_iter=3000).fit(z, good).decision_function(z)
    assert model(x) == pytest.approx(theirs, abs=1e-6)
    text = fit_quality_models.to_json(model)
    again = learned.LinearQuality(**json.loads(text))
    assert again(x) == pytest.approx(theirs, abs=1e-3)
    assert fit_quality_models.to_json(again) == text


def test_a_missing_clip_stays_missing(labelled):
    x, good, _ = labelled
    x[5] = np.nan
    model = fit_quality_models.fit(x, good, "bands", "a test")
    assert np.isnan(model(x)).tolist() == [i == 5 for i in range(400)]


def test_the_levelled_embedding_does_not_depend_on_gain():
    try:
        backbones.mn04_weights()
    except WeightsError as error:
        pytest.skip(f"no mn04 weights: {error}")
    front_end = learned.LevelledEmbedding("mn04_levelled", 32000)
    x = noise(2.0, rate=32000)
    torch.testing.assert_close(front_end(0.01 * x + 0.3), front_end(x), atol=1e-3, rtol=0)
    assert front_end(torch.zeros(1, 64000)).isfinite().all()


def test_every_shipped_model_can_be_loaded():
    for name, kind in (("learned_cheap", "bands"), ("learned_embedding", "embedding"), ("clean_cheap", "bands")):
        model = learned.load(name)
        assert model.kind == kind
        assert len(model.mean) == len(model.scale) == len(model.weight) == {"bands": 20, "embedding": 384}[kind]


def test_shipped_models_are_the_fit(real_root):
    """The packaged numbers are those that fitting again gives, and beat chance on patients they have not seen."""
    sprsound = load_corpus("sprsound", real_root)
    shipped, again = learned.load("learned_cheap"), fit_quality_models.fit_on_labels(sprsound, "bands")
    assert again.seen == shipped.seen == "sprsound train"
    assert again.weight == pytest.approx(shipped.weight, abs=2e-3)
    whole = indicators.whole_recordings(sprsound.select("train"))
    good = whole.recordings["quality_label"] == "good"
    patient, folds = whole.recordings["patient_id"], StratifiedGroupKFold(5, shuffle=True, random_state=1)
    x, bands = learned.extract_features(whole, "bands"), learned.classifier("bands")
    out = cross_val_predict(bands, x, good, groups=patient, cv=folds, method="decision_function")
    assert roc_auc_score(good, out) > 0.85
