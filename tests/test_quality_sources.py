"""Sources of the quality margin's number: AQS, its other definitions, controls and learned alternatives."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from qlung import load_corpus, quality, training
from qlung.errors import ConfigError, QualityError, WeightsError
from qlung.quality import sources


@pytest.fixture(scope="module")
def train(synthetic_root):
    return load_corpus("icbhi", synthetic_root).select("train")


@pytest.mark.parametrize("source", sources.SOURCES)
def test_every_source_gives_one_value_per_clip(train, source):
    try:
        values, metadata = sources.training_quality(train, source)
    except WeightsError as error:
        pytest.skip(f"no mn04 weights: {error}")
    aqs = sources.training_quality(train)[0]
    assert values.shape == (len(train.events),)
    assert ((values >= 0) & (values <= 1)).all()
    if source in sources.DEFINITIONS:
        h, r = quality.measure(train, **sources.DEFINITIONS[source]).T
        assert values.tolist() == quality.QualityScorer().fit(h, r).score(h, r).tolist()
        assert np.ptp(values - aqs) > 0.01
        return
    assert values.mean() == pytest.approx(aqs.mean(), abs=0.05 if source.endswith("_device") else 1e-6)
    assert json.loads(json.dumps(metadata)) == metadata
    assert metadata["missing"] == 0
    assert metadata["sees_sprsound"] == source.startswith("learned")
    if "device" not in source and source not in ("constant", "oracle_snr"):
        assert np.sort(values) == pytest.approx(np.sort(aqs))


def test_the_listed_device_is_another_choice(train):
    """With a list that names the same devices nothing changes; with another one, its devices have equal means."""
    assert np.array_equal(*(sources.training_quality(train, name)[0] for name in ("aqs_device", "aqs_listed_device")))
    halves = np.where(np.arange(len(train.recordings)) % 2, "odd", "even")
    listed = dataclasses.replace(train, recordings=train.recordings.assign(listed_device=halves))
    means = sources.training_quality(listed, "listed_device_mean")[0]
    assert pd.Series(means).groupby(listed.of_events("listed_device").to_numpy()).nunique().tolist() == [1, 1]


def test_controls_are_what_they_are_named(train):
    aqs = sources.training_quality(train)[0]
    values = {name: sources.training_quality(train, name)[0] for name in ("shuffled", "constant", "inverted")}
    assert abs(scipy.stats.spearmanr(values["shuffled"], aqs).statistic) < 0.2
    assert not np.array_equal(values["shuffled"], sources.training_quality(train, "shuffled", seed=1)[0])
    assert np.ptp(values["constant"]) == 0
    assert scipy.stats.spearmanr(values["inverted"], aqs).statistic == pytest.approx(-1)
    oracle = sources.training_quality(train, "oracle_snr")[0]
    assert scipy.stats.spearmanr(oracle, sources.true_snr(train)).statistic == pytest.approx(1, abs=1e-3)
    device = train.events["recording_id"].map(train.recordings.set_index("recording_id")["device"]).to_numpy()
    means = sources.training_quality(train, "device_mean")[0]
    assert pd.Series(means).groupby(device).nunique().max() == 1
    assert pd.Series(means).groupby(device).first().to_dict() == pytest.approx(
        pd.Series(aqs).groupby(device).mean().to_dict()
    )


@pytest.mark.parametrize("source", ["aqs", "shuffled", "inverted", "learned_cheap", "constant"])
def test_a_silent_clip_is_neutral_and_counted(train, source, monkeypatch):
    h_r = np.array(quality.measure(train))
    h_r[7] = np.nan, -np.inf
    monkeypatch.setattr(sources.quality, "measure", lambda corpus: h_r)
    values, metadata = sources.training_quality(train, source)
    assert metadata["missing"] == 1
    assert values[7] == pytest.approx(np.delete(values, 7).mean(), abs=1e-6)


def test_true_snr_is_for_synthetic_recordings_only(real_root):
    with pytest.raises(QualityError, match="only synthetic recordings"):
        sources.training_quality(load_corpus("icbhi", real_root).select("train"), "oracle_snr")


def test_unknown_sources_are_refused(train):
    with pytest.raises(QualityError, match="unknown quality source 'aks': choose from aqs"):
        sources.training_quality(train, "aks")
    with pytest.raises(ConfigError, match="unknown quality 'aks'"):
        training.Config(quality="aks")


def test_runs_with_different_sources_have_different_folders(train, tmp_path, monkeypatch):
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path))
    runs = [training.fit(training.Config(quality=q, epochs=1, batch_size=64), train) for q in ("aqs", "inverted")]
    assert runs[0].folder != runs[1].folder
    record = json.loads((runs[1].folder / "run.json").read_text())
    assert record["quality"]["source"] == "inverted"
    again = quality.QualityScorer(**record["quality"]["scorer"])
    assert again.score(*quality.measure(train).T) == pytest.approx(sources.training_quality(train)[0])
