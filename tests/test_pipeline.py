"""Front ends, quality, backbones, training and scores on synthetic input; the reference part where it is there."""

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.compliance import kaldi

from qlung import audio, backbones, cache, load_corpus, quality, training
from qlung.audio import frontends
from qlung.errors import ConfigError, QualityError, WeightsError
from qlung.evaluation import confusion, icbhi_score


def test_fbank_equals_torchaudio():
    wave = 0.1 * torch.randn(3, 128000, generator=torch.Generator().manual_seed(0))
    for clip, ours in zip(wave, frontends.ast_fbank(wave), strict=True):
        theirs = kaldi.fbank(clip[None], htk_compat=True, sample_frequency=16000, use_energy=False,
                             window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10)  # fmt: skip
        assert ours.shape == (798, 128)
        torch.testing.assert_close(ours, (theirs + 4.2677393) / (2 * 4.5689974), atol=1e-4, rtol=0)


def test_damaged_cache_is_rebuilt(own_folders):
    def build():
        return [np.arange(5.0)]

    cache.cached_array("check", {"a": 1}, build, 5)
    (file,) = (own_folders / "cache" / "check").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-9])
    assert cache.cached_array("check", {"a": 1}, build, 5).tolist() == [0, 1, 2, 3, 4]


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


def test_mn04_recognises_noise():
    try:
        model = backbones.build_backbone("mn04").eval()
    except WeightsError as error:
        pytest.skip(f"no mn04 weights: {error}")
    noise = model.front_end(0.1 * torch.randn(1, 256000, generator=torch.Generator().manual_seed(0)))
    tags = model.classifier(model.features(noise[:, None]))[0]  # of AudioSet
    assert set(tags.topk(3).indices.tolist()) <= {513, 514, 515, 520, 521}
    assert model(noise).shape == (1, 384)


def test_missing_weights_are_an_error_that_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("QLUNG_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="qlung data fetch weights"):
        backbones.build_backbone("mn04")
    (tmp_path / backbones.MN04_FILE).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="not 899a8c62"):
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


def test_the_default_definition_is_the_one_the_rule_chooses(real_root):
    train = load_corpus("icbhi", real_root).select("train")
    distance = {}
    for scope in quality.SCOPES:
        for bins, power in (("linear", 2.0), ("linear", 1.0), ("logmel", 2.0)):
            definition = {"scope": scope, "bins": bins, "power": power}
            measured = quality.measure(train, definition)
            aqs = quality.QualityScorer().fit(*measured.T).score(*measured.T)
            if ((aqs <= 0) | (aqs >= 1)).mean() < 0.05:
                distance[tuple(definition.values())] = np.hypot(aqs.mean() - 0.45, aqs.std() - 0.08)
    assert min(distance, key=distance.get) == tuple(quality.DEFAULT_DEFINITION.values())


@pytest.mark.parametrize("settings", [{"pad": "silence"}, {"pad": "reflect"}, {"band_hz": 700.0}])
def test_padding_and_band_are_settings_of_a_run(settings, synthetic_root, tmp_path, monkeypatch):
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path))
    corpus = load_corpus("synthetic")
    train, tests = corpus.select("train"), {"test": corpus.select("test")}
    short = {"epochs": 1, "lr": 1e-3, "batch_size": 32}
    plain, other = (training.fit(training.Config(**short | changed), train, tests) for changed in ({}, settings))
    assert plain.folder != other.folder
    columns = [f"p{k}" for k in range(4)]
    assert np.isfinite(other.predictions()[columns].to_numpy()).all()
    assert not other.predictions()[columns].equals(plain.predictions()[columns])


def test_silence_is_left_out_of_the_mean():
    maps = torch.randn(2, 3, 8, 5, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([1.0, 0.45])  # of eight frames, 3.6: the fourth one is begun
    along = backbones.pool(maps, shares, axis=2)
    torch.testing.assert_close(along[0], maps[0].mean((1, 2)))
    torch.testing.assert_close(along[1], maps[1, :, :4].mean((1, 2)))
    torch.testing.assert_close(backbones.pool(maps.mT, shares, axis=3), along)
    torch.testing.assert_close(backbones.pool(maps, None, axis=2), maps.mean((2, 3)))


def test_padding_by_hand():
    clip = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    assert audio.fit_length(clip, 1, 8, "silence").tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert audio.fit_length(clip, 1, 8, "reflect").tolist() == [1, 2, 3, 3, 2, 1, 1, 2]
    assert audio.fit_length(clip, 1, 8).tolist() == [1, 2, 3, 1, 2, 3, 1, 2]  # the fade is shorter than a sample here
    assert audio.fit_length(clip, 1, 2, "silence").tolist() == [1, 2]


def test_a_silent_channel_is_not_averaged_in(tmp_path):
    sound = 0.5 * np.sin(np.arange(4000) / 10)
    soundfile.write(tmp_path / "a.wav", np.stack([sound, 0 * sound], 1), 4000)
    soundfile.write(tmp_path / "b.wav", np.stack([sound, sound / 2], 1), 4000)
    assert np.abs(audio.read(tmp_path / "a.wav")[0] - sound).max() < 1e-4
    assert np.abs(audio.read(tmp_path / "b.wav")[0] - 0.75 * sound).max() < 1e-4
