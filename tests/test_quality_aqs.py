"""AQS against independent implementations, limits, laws and invariances."""

import dataclasses
import json

import librosa
import numpy as np
import pandas as pd
import pytest
import scipy.signal
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import RATE, noise, tone

from qlung import audio, load_corpus, quality
from qlung.errors import QualityError

DEFINITIONS = [(scope, bins, power) for scope in quality.SCOPES for bins, power in
               (("linear", 2.0), ("linear", 1.0), ("logmel", 2.0))]  # fmt: skip


@pytest.mark.parametrize("rate", [4000, 16000, 44100])
@pytest.mark.parametrize(("scope", "power"), [("frames", 2.0), ("frames", 1.0), ("mean", 2.0), ("plane", 1.0)])
def test_entropy_equals_scipy(rate, scope, power):
    """scipy's STFT and scipy's entropy, one clip and one frame at a time."""
    clip = noise(0.7, rate=rate)[0] * torch.linspace(0, 1, int(0.7 * rate))
    window, hop = round(0.025 * rate), round(0.010 * rate)
    n_fft = max(512, 1 << (window - 1).bit_length())
    hann = scipy.signal.get_window("hann", window)
    starts = range(0, len(clip) - window + 1, hop)
    s = np.array([np.abs(np.fft.rfft(clip.double().numpy()[a : a + window] * hann, n_fft)) ** power for a in starts])
    s = {"frames": s, "mean": s.mean(0, keepdims=True), "plane": s.reshape(1, -1)}[scope]
    theirs = np.mean([scipy.stats.entropy(row, base=len(row)) for row in s])
    ours = quality.spectral_entropy(clip, rate, scope=scope, power=power)
    assert float(ours) == pytest.approx(theirs, abs=1e-5)


def test_entropy_and_level_equal_librosa():
    clip = noise(2.0)[0].numpy()
    s = np.abs(librosa.stft(y=clip, n_fft=512, hop_length=160, win_length=512, center=False)) ** 2
    theirs = np.mean(scipy.stats.entropy(s, base=257, axis=0))
    ours = quality.spectral_entropy(torch.from_numpy(clip), RATE, win_s=512 / RATE)
    assert float(ours) == pytest.approx(theirs, abs=1e-4)
    rms = librosa.feature.rms(y=clip, frame_length=len(clip), hop_length=len(clip), center=False).item()
    assert float(quality.rms_dbfs(torch.from_numpy(clip))) == pytest.approx(20 * np.log10(rms), abs=1e-3)


@pytest.mark.parametrize(("scope", "bins", "power"), DEFINITIONS)
def test_entropy_of_limits(scope, bins, power):
    """Tone < clipped tone < noise; a constant is a tone at 0 Hz; clipped noise is still noise."""

    def entropy(x):
        return float(quality.spectral_entropy(x, RATE, scope=scope, bins=bins, power=power))

    white = noise(8.0)
    assert entropy(tone()) < entropy(tone().clamp(-0.3, 0.3)) < entropy(white)
    assert entropy(white.clamp(-0.05, 0.05)) == pytest.approx(entropy(white), abs=0.02)
    assert entropy(torch.ones(1, RATE)) <= entropy(tone()) + 0.02
    assert entropy(white) > (0.98 if scope == "mean" else 0.9)
    if (bins, power) == ("linear", 2.0) and scope != "plane":  # in the plane a tone fills every frame
        assert entropy(tone()) < 0.5


def test_entropy_converges_to_one_for_long_noise():
    values = [1 - float(quality.spectral_entropy(noise(s), RATE, scope="mean")) for s in (0.1, 1.0, 10.0)]
    assert values[0] > 5 * values[1] > 5 * values[2] > 0


def test_silent_and_non_finite_clips_are_nan_and_their_neighbours_are_not():
    batch = torch.cat([noise(), torch.zeros(1, RATE), noise(), noise(), tone()])
    batch[2, 5], batch[3, 7] = torch.nan, torch.inf
    for scope, bins, power in DEFINITIONS:
        h = quality.spectral_entropy(batch, RATE, scope=scope, bins=bins, power=power)
        assert h.isnan().tolist() == [False, True, True, True, False]
    assert quality.spectral_entropy(noise(0.02), RATE).isnan().all()
    assert not quality.spectral_entropy(noise(0.025), RATE).isnan().any()
    level = quality.rms_dbfs(batch)
    assert level[1] == -torch.inf
    assert not level[2:4].isfinite().any()
    assert level[[0, 4]].isfinite().all()


def test_half_silent_clip_is_measured_where_it_sounds():
    loud = noise(1.0)
    half = torch.cat([loud, torch.zeros_like(loud)], 1)
    assert quality.spectral_entropy(half, RATE) == pytest.approx(quality.spectral_entropy(loud, RATE), abs=0.02)


@settings(max_examples=25, deadline=None)
@given(gain=st.floats(-120, 60), flip=st.booleans(), seed=st.integers(0, 99), definition=st.sampled_from(DEFINITIONS))
def test_gain_and_sign_leave_entropy_and_shift_level(gain, flip, seed, definition):
    scope, bins, power = definition
    x = noise(0.3, seed) * torch.linspace(0, 1, int(0.3 * RATE))
    y = (-x if flip else x) * 10 ** (gain / 20)
    h = [quality.spectral_entropy(z, RATE, scope=scope, bins=bins, power=power) for z in (x, y)]
    assert 0 <= float(h[0]) <= 1
    torch.testing.assert_close(h[0], h[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(quality.rms_dbfs(y), quality.rms_dbfs(x) + gain, atol=1e-3, rtol=0)


@settings(max_examples=10, deadline=None)
@given(clips=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_batch_is_its_clips(clips, seed):
    """However the batch is cut into blocks, a clip's value is its own; leading axes are kept."""
    x = noise(0.2, seed, clips)
    one = torch.stack([quality.spectral_entropy(clip, RATE) for clip in x])
    torch.testing.assert_close(quality.spectral_entropy(x, RATE), one)
    torch.testing.assert_close(quality.spectral_entropy(x[None], RATE), one[None])


def test_frame_order_does_not_matter():
    x = noise(1.0) * torch.linspace(0, 1, RATE)
    for scope in quality.SCOPES:
        h = quality.spectral_entropy(torch.cat([x, x.flip(-1)]), RATE, hop_s=0.025, scope=scope)
        assert float(h[0]) == pytest.approx(float(h[1]), abs=5e-3)


def test_unknown_definitions_are_refused():
    with pytest.raises(QualityError, match="unknown scope='frame' or bins='linear': choose scope from"):
        quality.spectral_entropy(noise(), RATE, scope="frame")
    with pytest.raises(QualityError, match="unknown scope='frames' or bins='mel'"):
        quality.spectral_entropy(noise(), RATE, bins="mel")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees():
    x = noise(8.0, clips=20)
    for scope, bins, power in DEFINITIONS:
        ours = quality.spectral_entropy(x.cuda(), RATE, scope=scope, bins=bins, power=power).cpu()
        torch.testing.assert_close(ours, quality.spectral_entropy(x, RATE, scope=scope, bins=bins, power=power),
                                   atol=1e-4, rtol=0)  # fmt: skip


# The scorer


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    device = np.repeat(["A", "B"], 150)
    return rng.uniform(0.3, 0.7, 300) + 0.2 * (device == "B"), rng.uniform(-40, -20, 300) - 10 * (device == "B"), device


def test_aqs_is_the_papers_formula(measured):
    h, r, _ = measured
    aqs = quality.QualityScorer().fit(h, r).score(h, r)
    assert aqs == pytest.approx(np.clip(1 - 0.7 * h + 0.3 * 10 ** (r / 20), 0, 1))


@pytest.mark.parametrize("normalise", quality.NORMALISERS)
def test_aqs_rises_with_level_and_falls_with_entropy(measured, normalise):
    h, r, _ = measured
    scorer = quality.QualityScorer(normalise=normalise).fit(h, r)
    assert (scorer.score(h - 0.05, r) >= scorer.score(h, r)).all()
    assert (scorer.score(h, r + 3) >= scorer.score(h, r)).all()


@pytest.mark.parametrize("normalise", quality.NORMALISERS)
def test_state_survives_json(measured, normalise):
    h, r, device = measured
    scorer = quality.QualityScorer(0.6, 0.4, normalise).fit(h, r, device)
    again = quality.QualityScorer(**json.loads(json.dumps(dataclasses.asdict(scorer))))
    new = np.append(h + 0.01, np.nan), np.append(r, -30), [*device, "C"]
    assert again.score(*new).tolist() == scorer.score(*new).tolist()
    assert again.missing == scorer.missing == 1
    assert again == scorer


def test_a_scorer_that_is_not_fitted_is_refused():
    with pytest.raises(QualityError, match="not fitted: call fit"):
        quality.QualityScorer().score([0.5], [-20])


def test_a_silent_training_clip_is_kept_with_linear_level():
    scorer = quality.QualityScorer().fit([0.5, 0.6], [-np.inf, -20])
    assert "Infinity" not in json.dumps(dataclasses.asdict(scorer))
    assert scorer.score([0.5], [-np.inf]) == pytest.approx(1 - 0.7 * 0.5)


@pytest.mark.parametrize("normalise", quality.NORMALISERS)
def test_device_calibration_takes_the_device_away_and_keeps_the_rest(measured, normalise):
    h, r, device = measured
    plain = quality.QualityScorer(normalise=normalise).fit(h, r).score(h, r)
    calibrated = quality.QualityScorer(normalise=normalise).fit(h, r, device).score(h, r, device)
    gap = [abs(x[device == "A"].mean() - x[device == "B"].mean()) for x in (plain, calibrated)]
    assert gap[1] < 0.2 * gap[0]
    for name in "AB":
        own = device == name
        assert scipy.stats.spearmanr(plain[own], calibrated[own]).statistic > 0.8


def test_an_unknown_or_rare_device_is_not_shifted(measured):
    h, r, device = measured
    device = device.copy()
    device[:5] = "rare"
    scorer = quality.QualityScorer().fit(h, r, device)
    assert set(scorer.shift) == {"A", "B"}
    assert scorer.score(h[:1], r[:1], ["new"]) == pytest.approx(scorer.score(h[:1], r[:1]))
    with pytest.raises(QualityError, match="one value for each clip, not 300 H, 300 R, 3 devices"):
        scorer.score(h, r, device[:3])
    with pytest.raises(QualityError, match="one value for each clip, not 300 H, 2 R"):
        scorer.fit(h, r[:2])


@pytest.fixture(scope="module")
def train(synthetic_root):
    return load_corpus("icbhi", synthetic_root).select("train")


def test_measure_uses_the_clip_the_cycle_or_the_recording(train):
    cycles = [torch.from_numpy(samples) for _, samples in audio.cut_clips(train, RATE, seconds=None)]
    h, r = quality.measure(train, audio="cycle").T
    want = [quality.spectral_entropy(x, RATE, **quality.DEFAULT_DEFINITION) for x in cycles]
    assert h == pytest.approx(np.array(want), abs=1e-6)
    assert r == pytest.approx([float(quality.rms_dbfs(x)) for x in cycles], abs=1e-4)
    whole = pd.DataFrame(quality.measure(train, audio="recording"), columns=["H", "R"])
    own = whole.groupby(train.events["recording_id"])
    assert (own.max() == own.min()).all(axis=None)
    assert own.ngroups > 1
    first = train.recordings.iloc[0]
    samples = torch.from_numpy(audio.read(first["path"], RATE)[0])
    assert own["R"].first()[first["recording_id"]] == pytest.approx(float(quality.rms_dbfs(samples)), abs=1e-4)
    with pytest.raises(QualityError, match="unknown audio='padded': choose from clip, cycle, recording"):
        quality.measure(train, audio="padded")
