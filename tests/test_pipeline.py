"""Front ends, quality, backbones, training and scores on synthetic input; the reference part where it is there."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchaudio.compliance import kaldi

from qlung import backbones, cache, load_corpus, quality, training
from qlung.audio import frontends
from qlung.errors import ConfigError, QualityError, WeightsError
from qlung.evaluation import confusion, icbhi_score
from qlung.margins import Objective


def test_fbank_equals_torchaudio():
    wave = 0.1 * torch.randn(3, 128000)
    for clip, ours in zip(wave, frontends.ast_fbank(wave), strict=True):
        theirs = kaldi.fbank(clip[None], htk_compat=True, sample_frequency=16000, use_energy=False,
                             window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10)  # fmt: skip
        assert ours.shape == (798, 128)
        torch.testing.assert_close(ours, (theirs + 4.2677393) / (2 * 4.5689974), atol=1e-4, rtol=0)


def test_damaged_cache_is_rebuilt(own_folders):
    def build():
        return np.arange(5.0)

    cache.cached_array("check", {"a": 1}, build)
    (file,) = (own_folders / "cache" / "check").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-9])
    assert cache.cached_array("check", {"a": 1}, build).tolist() == [0, 1, 2, 3, 4]


def test_entropy_limits():
    t = torch.arange(32000) / 16000
    tone, noise = torch.sin(2 * torch.pi * 440 * t), torch.randn(32000)
    assert quality.spectral_entropy(tone, 16000) < 0.25
    assert quality.spectral_entropy(noise, 16000) > 0.9
    assert quality.spectral_entropy(noise, 16000, scope="mean") > 0.98
    torch.testing.assert_close(quality.spectral_entropy(noise * 7, 16000), quality.spectral_entropy(noise, 16000))
    for bad in (torch.zeros(16000), torch.full((16000,), torch.nan), noise[:100]):
        for bins in ("linear", "logmel"):
            assert quality.spectral_entropy(bad, 16000, bins=bins).isnan()


def test_rms_law():
    wave = torch.randn(2, 8000)
    torch.testing.assert_close(quality.rms_dbfs(wave / 10), quality.rms_dbfs(wave) - 20)
    assert quality.rms_dbfs(torch.ones(10)) == 0


@pytest.mark.parametrize("normalise", quality.NORMALISERS)
def test_missing_quality_is_neutral_and_counted(normalise):
    rng = np.random.default_rng(0)
    h, r = rng.uniform(0.3, 0.9, 200), rng.uniform(-50, -10, 200)
    scorer = quality.QualityScorer(normalise=normalise).fit(h, r)
    mean = scorer.score(h, r).mean()
    scores = scorer.score([0.5, np.nan, 0.5, 0.4], [-20, -20, -np.inf, -30])
    missing = [1] if normalise == "none" else [1, 2]
    assert scorer.missing == len(missing)
    assert scores[missing] == pytest.approx(mean)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_scorer_refuses_nonsense():
    with pytest.raises(QualityError, match="choose from"):
        quality.QualityScorer(normalise="percentil")
    with pytest.raises(QualityError, match="every H or R is missing"):
        quality.QualityScorer().fit([np.nan], [-20.0])


def test_scores_against_a_hand_counted_matrix():
    target = [0] * 4 + [1] * 3 + [2] * 2 + [3]
    predicted = [0, 0, 0, 2, 1, 3, 0, 2, 1, 1]
    assert confusion(target, predicted).tolist() == [[3, 0, 1, 0], [1, 1, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0]]
    score = icbhi_score(target, predicted)
    assert score == pytest.approx((75.0, 100 * 2 / 6, (75 + 100 / 3) / 2))
    assert icbhi_score(target, [0] * 10).score == 50
    with pytest.raises(ConfigError):
        icbhi_score([0, 4], [0, 0])


def test_mn04_hears_noise():
    try:
        model = backbones.build_backbone("mn04").eval()
    except WeightsError as error:
        pytest.skip(f"no mn04 weights: {error}")
    noise = model.front_end(0.1 * torch.randn(1, 256000, generator=torch.Generator().manual_seed(0)))
    assert set(model.tags(noise)[0].topk(3).indices.tolist()) <= {513, 514, 515, 520, 521}
    assert model(noise).shape == (1, 384)


def test_missing_weights_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(backbones.paths, "ROOT", tmp_path / "a" / "b")
    monkeypatch.setenv("QLUNG_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="qlung data fetch weights"):
        backbones.build_backbone("mn04")
    (tmp_path / backbones.MN04_FILE).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="expected 899a8c62"):
        backbones.build_backbone("mn04")


@pytest.mark.parametrize("method", training.METHODS)
def test_every_method_trains_and_repeats(method, synthetic_root, tmp_path, monkeypatch):
    corpus = load_corpus("icbhi", synthetic_root)
    train, test = corpus.select("train"), corpus.select("test")
    config = training.Config(method=method, epochs=2, batch_size=32, lr=1e-3)
    histories = []
    for folder in ("one", "two"):
        monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / folder))
        run = training.fit(config, train, {"test": test})
        histories.append(run.history)
        assert run.predictions()["event_id"].tolist() == test.events["event_id"].tolist()
        assert training.fit(config, train, {"test": test}).folder == run.folder
    assert histories[0].equals(histories[1])
    assert histories[0]["loss"].iloc[-1] < histories[0]["loss"].iloc[0]


def test_published_losses_are_what_their_papers_say():
    """Each against its formula, written out for one batch."""
    config, counts = training.Config(), [8, 4, 2, 2]
    generator = torch.Generator().manual_seed(0)
    cosine = 1.3 * torch.rand(6, 4, generator=generator) - 0.5  # angles where no margin leaves [0, pi]
    target, norm = torch.tensor([0, 1, 2, 3, 0, 1]), torch.linspace(1.5, 9, 6)
    hot, theta, logits, aqs = F.one_hot(target, 4), cosine.acos(), 37 * cosine, torch.full((6,), 0.4)
    z = ((norm - norm.mean()) / (norm.std(correction=0) + 1e-3) * 0.333).clamp(-1, 1)[:, None]
    rising = (0.45 + 0.35 * (norm - 1) / 10)[:, None]
    rare = (2 / torch.tensor(counts)) ** 0.25 / 2
    expected = {
        "arcface": 37 * (theta + 0.5 * hot).cos(),
        "cosface": 37 * (cosine - 0.35 * hot),
        "ldam": 37 * (cosine - rare * hot),
        "logit_adjustment": logits + (torch.tensor(counts) / 16).log(),
        "magface": 37 * (theta + rising * hot).cos(),
        "adaface": 37 * ((theta - 0.4 * z * hot).cos() - 0.4 * (z + 1) * hot),
    }
    for method, shifted in expected.items():
        objective = Objective(dataclasses.replace(config, method=method), counts)
        penalty = 3.5 * (1 / norm + norm / 121).mean() if method == "magface" else 0
        loss = objective(logits, cosine, norm, target, aqs)[0]
        torch.testing.assert_close(loss, F.cross_entropy(shifted, target) + penalty, msg=method)


def test_ill_typed_parameters_are_refused():
    with pytest.raises(ConfigError, match="unknown method 'qlungg'"):
        training.Config(method="qlungg")
    with pytest.raises(ConfigError, match="augment should be bool"):
        training.Config(augment="false")
    with pytest.raises(ConfigError, match="epochs should be int"):
        training.Config(epochs=2.5)


def test_default_reading_follows_the_rule(real_root):
    train = load_corpus("icbhi", real_root).select("train")
    distance = {}
    for scope in quality.SCOPES:
        for bins, power in (("linear", 2.0), ("linear", 1.0), ("logmel", 2.0)):
            reading = {"scope": scope, "bins": bins, "power": power}
            measured = quality.measure(train, reading)
            aqs = quality.QualityScorer().fit(*measured.T).score(*measured.T)
            if ((aqs <= 0) | (aqs >= 1)).mean() < 0.05:
                distance[tuple(reading.values())] = np.hypot(aqs.mean() - 0.45, aqs.std() - 0.08)
    assert min(distance, key=distance.get) == tuple(quality.DEFAULT_DEFINITION.values())
