"""Quality against independent implementations, limits, laws and invariances; other scores, damage, learned models."""

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
from sklearn.metrics import roc_auc_score

from qlung import audio, backbones, evaluation, load_corpus, quality, training
from qlung.audio import degrade
from qlung.errors import ConfigError, QualityError, WeightsError
from qlung.quality import indicators, learned, sources, stress

RATE = 16000
READINGS = [(scope, bins, power) for scope in quality.SCOPES for bins, power in
            (("linear", 2.0), ("linear", 1.0), ("logmel", 2.0))]  # fmt: skip


def noise(seconds=1.0, seed=0, clips=1, rate=RATE):
    return 0.1 * torch.randn(clips, int(seconds * rate), generator=torch.Generator().manual_seed(seed))


def tone(hertz=1000.0, seconds=1.0, rate=RATE):
    return torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * rate)) / rate)[None]


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


@pytest.mark.parametrize(("scope", "bins", "power"), READINGS)
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


def test_what_cannot_be_measured_is_nan_and_its_neighbours_are_not():
    batch = torch.cat([noise(), torch.zeros(1, RATE), noise(), noise(), tone()])
    batch[2, 5], batch[3, 7] = torch.nan, torch.inf
    for scope, bins, power in READINGS:
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
@given(gain=st.floats(-120, 60), flip=st.booleans(), seed=st.integers(0, 99), reading=st.sampled_from(READINGS))
def test_gain_and_sign_leave_entropy_and_shift_level(gain, flip, seed, reading):
    scope, bins, power = reading
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


def test_band_limits_entropy():
    mixed = noise() + tone(3000)
    assert quality.spectral_entropy(mixed, RATE, band=(100, 2000)) > 0.85 > quality.spectral_entropy(mixed, RATE)
    with pytest.raises(QualityError, match="give a wider one"):
        quality.spectral_entropy(mixed, RATE, band=(100, 110))
    with pytest.raises(QualityError, match="unknown reading"):
        quality.spectral_entropy(mixed, RATE, scope="frame")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees():
    x = noise(8.0, clips=20)
    for scope, bins, power in READINGS:
        ours = quality.spectral_entropy(x.cuda(), RATE, scope=scope, bins=bins, power=power).cpu()
        torch.testing.assert_close(ours, quality.spectral_entropy(x, RATE, scope=scope, bins=bins, power=power),
                                   atol=1e-4, rtol=0)  # fmt: skip


# The scorer


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    device = np.repeat(["A", "B"], 150)
    return rng.uniform(0.3, 0.7, 300) + 0.2 * (device == "B"), rng.uniform(-40, -20, 300) - 10 * (device == "B"), device


def test_the_papers_formula(measured):
    h, r, _ = measured
    aqs = quality.QualityScorer().fit(h, r).score(h, r)
    assert aqs == pytest.approx(np.clip(1 - 0.7 * h + 0.3 * 10 ** (r / 20), 0, 1))


@pytest.mark.parametrize("normalise", quality.NORMALISERS)
def test_better_is_never_less(measured, normalise):
    h, r, _ = measured
    scorer = quality.QualityScorer(normalise=normalise).fit(h, r)
    assert (scorer.score(h - 0.05, r) >= scorer.score(h, r)).all()
    assert (scorer.score(h, r + 3) >= scorer.score(h, r)).all()


@pytest.mark.parametrize("normalise", quality.NORMALISERS)
def test_state_survives_json(measured, normalise):
    h, r, device = measured
    scorer = quality.QualityScorer(0.6, 0.4, normalise).fit(h, r, device)
    again = quality.QualityScorer.from_state(json.loads(json.dumps(scorer.state())))
    new = np.append(h + 0.01, np.nan), np.append(r, -30), [*device, "C"]
    assert again.score(*new).tolist() == scorer.score(*new).tolist()
    assert again.missing == scorer.missing == 1
    assert again.state() == scorer.state()


def test_states_that_are_none_are_refused():
    with pytest.raises(QualityError, match="before the QualityScorer is fitted"):
        quality.QualityScorer().state()
    with pytest.raises(QualityError, match="'neutral' is missing"):
        quality.QualityScorer.from_state({"alpha": 0.7, "beta": 0.3, "normalise": "none"})


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
    assert set(scorer.state()["shift"]) == {"A", "B"}
    assert scorer.score(h[:1], r[:1], ["new"]) == pytest.approx(scorer.score(h[:1], r[:1]))
    with pytest.raises(QualityError, match="one device for each clip"):
        scorer.score(h, r, device[:3])


# Other scores


def test_scores_where_the_answer_is_known():
    x = torch.cat([noise(2.0, rate=4000), tone(440, 2.0, 4000), noise(2.0, 1, rate=4000).clamp(-0.1, 0.1)])
    told = indicators.signal_scores(x)
    assert list(told) == list(indicators.DIRECTION)
    assert told["zero_crossings"][1] == pytest.approx(880, rel=0.01)
    assert told["centroid"][1] == pytest.approx(440, rel=0.02)
    assert told["crest"][1] == pytest.approx(20 * np.log10(np.sqrt(2)), abs=0.05)
    kurtosis = scipy.stats.kurtosis(x[0].numpy(), fisher=False)
    assert told["kurtosis"][0] == pytest.approx(np.log(kurtosis), abs=0.02)
    assert told["flatness"][0] > -1 > -20 > told["flatness"][1]
    assert told["clipping"][2] == pytest.approx(float((x[2].abs() >= 0.0999).float().mean()), abs=0.01)
    assert told["clipping"][0] < 0.01 < 0.2 < told["clipping"][2]
    silence = torch.cat([x[:, :4000], torch.zeros(3, 4000)], 1)
    assert (indicators.signal_scores(silence)["dropouts"] > 0.4).all()


def test_estimated_snr_follows_bursts_over_a_floor():
    burst = noise(4.0, rate=4000) * (torch.arange(16000) % 4000 < 1000)
    floor = noise(4.0, 1, rate=4000)
    snr = [float(indicators.signal_scores(burst + floor * 10 ** (-db / 20))["snr"]) for db in (0, 10, 20, 30)]
    assert np.diff(snr) == pytest.approx([10, 10, 10], abs=4)


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(-60, 40), seed=st.integers(0, 99))
def test_only_level_follows_gain(gain, seed):
    x = noise(1.0, seed, rate=4000) * torch.linspace(0, 1, 4000)
    before, after = indicators.signal_scores(x), indicators.signal_scores(x * 10 ** (gain / 20))
    torch.testing.assert_close(after.pop("level"), before.pop("level") + gain, atol=1e-3, rtol=0)
    torch.testing.assert_close(after, before, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(
        indicators.band_features(x * 10 ** (gain / 20)), indicators.band_features(x), atol=2e-3, rtol=0
    )


def test_scores_of_what_cannot_be_measured():
    x = torch.cat([noise(rate=4000), torch.zeros(1, 4000), noise(rate=4000)])
    x[2, 3] = torch.nan
    for score in (*indicators.signal_scores(x).values(), *indicators.band_features(x).T):
        assert score.isnan().tolist() == [False, True, True]
    assert all(s.isnan().all() for s in indicators.signal_scores(x[:, :50]).values())
    with pytest.raises(QualityError, match="resample first"):
        indicators.signal_scores(x, 2000)


def test_auroc_equals_sklearn_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    good, patient = rng.random(400) < 0.8, rng.integers(0, 40, 400)
    score = np.round(good + rng.normal(size=400), 1)  # with ties
    score[3] = np.nan
    told = evaluation.auroc_interval(score, good, patient, draws=300)
    assert told["AUROC"] == pytest.approx(roc_auc_score(good[np.isfinite(score)], score[np.isfinite(score)]))
    assert told["low"] < told["AUROC"] < told["high"]
    assert (told["good"] + told["poor"], told["missing"]) == (399, 1)
    alike = evaluation.auroc_interval(np.tile(score, 9), np.tile(good, 9), np.tile(patient, 9), draws=300)
    assert alike["high"] - alike["low"] == pytest.approx(told["high"] - told["low"])  # copies are no new patients


# Damage


@pytest.mark.parametrize("kind", degrade.SEVERITIES)
def test_damage_is_what_it_says(kind):
    x = noise(4.0, clips=3) * torch.linspace(0.2, 1, 4 * RATE)
    unit, amounts = degrade.SEVERITIES[kind]
    for amount in amounts:
        y = degrade.Degradation(kind, amount)(x, RATE)
        assert y.shape == x.shape
        assert torch.equal(y, degrade.Degradation(kind, amount)(x, RATE))
        if kind == "noise":
            snr = 10 * (x.square().mean(-1) / (y - x).square().mean(-1)).log10()
            torch.testing.assert_close(snr, torch.full((3,), amount), atol=0.05, rtol=0)
        elif kind == "clipping":
            at_limit = (y.abs() >= y.abs().amax(-1, keepdim=True) - 1e-9).float().mean(-1)
            torch.testing.assert_close(at_limit, torch.full((3,), amount), atol=2e-4, rtol=0)
        elif kind == "lowpass":
            spectrum = torch.fft.rfft(y).abs()
            assert spectrum[:, torch.fft.rfftfreq(x.shape[-1], 1 / RATE) > amount + 1].max() < 1e-3
        elif kind == "dropouts":
            torch.testing.assert_close((y == 0).float().mean(-1), torch.full((3,), amount), atol=0.02, rtol=0)
        else:
            torch.testing.assert_close(quality.rms_dbfs(y), quality.rms_dbfs(x) + amount, atol=1e-3, rtol=0)
    assert unit
    with pytest.raises(QualityError, match="unknown degradation 'echo'"):
        degrade.Degradation("echo", 1)


def test_ladder_and_what_follows_it(synthetic_root):
    corpus = degrade.sample(load_corpus("icbhi", synthetic_root).select("train"), 10)
    table = stress.severity_table(corpus)
    assert len(table) == 10 * 26
    clean = table[table["kind"] == "none"].set_index("event_id").loc[corpus.events["event_id"]]
    assert clean[["H", "R"]].to_numpy() == pytest.approx(quality.measure(corpus), abs=1e-6)
    told = stress.monotonicity(table.assign(level=table["R"]), "level").set_index("kind")
    assert told.loc["gain", "rho"] == pytest.approx(-1)
    assert told.loc["gain", "monotone"] == 1
    told = stress.monotonicity(table.assign(zero=0.0 * table["R"], made=-table["step"]), "zero")
    assert (told["rho"] == 0).all()
    told = stress.monotonicity(table, "entropy").set_index("kind")
    assert told.loc["gain", "monotone"] == 1
    assert told.loc["noise", "rho"] > 0.5


def test_what_only_rounding_moves_follows_nothing(synthetic_root):
    corpus = degrade.sample(load_corpus("icbhi", synthetic_root).select("train"), 10)
    table = stress.severity_table(corpus)
    spread = table.loc[table["kind"] == "none", "flux"].std()
    told = []
    for seed in range(3):  # as three processors might round; on no grid, for a grid's lines part what is equal
        jitter = 1e-3 * spread * np.random.default_rng(seed).uniform(-1, 1, len(table))
        told.append(stress.monotonicity(table.assign(flux=table["flux"] + jitter), "flux").set_index("kind"))
        assert told[-1].loc["gain", "rho"] == 0  # flux doesn't know the gain
        assert told[-1].loc["gain", "monotone"] == 1
    rhos = pd.concat([one["rho"] for one in told], axis=1)
    assert (rhos.max(axis=1) - rhos.min(axis=1)).max() < 0.05
    assert (rhos.loc["dropouts"] > 0.5).all()


# Learned models


@pytest.fixture
def heard():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 30, 400)
    good = rng.random(400) < 0.8
    return 2.0 * good[:, None] * [1, 0, -1] + rng.normal(size=(400, 3)), good, patient


def test_a_model_is_sklearns_and_survives_json(heard):
    from sklearn.linear_model import LogisticRegression

    x, good, _ = heard
    model = learned.fit(x, good, "bands", "a test")
    z = (x - x.mean(0)) / x.std(0)
    theirs = LogisticRegression(C=0.3, class_weight="balanced", max_iter=3000).fit(z, good).decision_function(z)
    assert model(x) == pytest.approx(theirs, abs=1e-6)
    again = learned.LinearQuality.from_json(model.to_json())
    assert again(x) == pytest.approx(theirs, abs=1e-3)
    assert again.to_json() == model.to_json()
    with pytest.raises(QualityError, match="not a learned quality model"):
        learned.LinearQuality.from_json('{"kind": "bands"}')


def test_folds_do_not_see_the_patient():
    """Features that only name the patient, and labels that are the patient's: folds must find nothing."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    good = (rng.random(40) < 0.5)[patient]
    x = rng.normal(size=(40, 20))[patient]
    seen = learned.fit(x, good, "bands", "a test", 10.0)(x)
    assert roc_auc_score(good, seen) > 0.9
    assert roc_auc_score(good, learned.out_of_fold(x, good, patient, "bands", 10.0)) < 0.75


def test_a_missing_clip_stays_missing(heard):
    x, good, patient = heard
    x[5] = np.nan
    assert np.isnan(learned.out_of_fold(x, good, patient, "bands")).tolist() == [i == 5 for i in range(400)]
    assert np.isnan(learned.typicality(x)[5])
    with pytest.raises(QualityError, match="there are 400 and 0"):
        learned.fit(np.nan_to_num(x), np.ones(400), "bands", "a test")


def test_the_untypical_is_far():
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    told = learned.typicality(np.vstack([usual[:50], usual[:50] * 6]), usual)
    assert roc_auc_score(np.repeat([1, 0], 50), told) > 0.95


def test_level_cannot_be_heard_in_the_embedding():
    try:
        backbones.mn04_weights()
    except WeightsError as error:
        pytest.skip(f"no mn04 weights: {error}")
    front_end = learned.LevelledEmbedding("mn04_levelled", 32000)
    x = noise(2.0, rate=32000)
    torch.testing.assert_close(front_end(0.01 * x + 0.3), front_end(x), atol=1e-3, rtol=0)
    assert front_end(torch.zeros(1, 64000)).isfinite().all()


def test_shipped_models_are_the_fit(real_root):
    """The packaged numbers are those that fitting again gives, and beat chance on patients they have not seen."""
    sprsound = load_corpus("sprsound", real_root)
    shipped, again = learned.load("learned_cheap"), learned.train_on_people(sprsound, "bands")
    assert again.seen == shipped.seen == "sprsound train"
    assert again.weight == pytest.approx(shipped.weight, abs=2e-3)
    whole = indicators.whole_recordings(sprsound.select("train"))
    good = whole.recordings["quality_label"] == "good"
    out = learned.out_of_fold(learned.extract_features(whole, "bands"), good, whole.recordings["patient_id"], "bands")
    assert roc_auc_score(good, out) > 0.85


# Sources of the margin's number


@pytest.fixture(scope="module")
def train(synthetic_root):
    return load_corpus("icbhi", synthetic_root).select("train")


@pytest.mark.parametrize("source", sources.SOURCES)
def test_every_source_gives_one_value_a_clip(train, source):
    try:
        values, told = sources.training_quality(train, source)
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
    assert values.mean() == pytest.approx(aqs.mean(), abs=1e-6 if source != "aqs_device" else 0.05)
    assert json.loads(json.dumps(told)) == told
    assert told["missing"] == 0
    assert told["sees_sprsound"] == source.startswith("learned")
    if source not in ("constant", "device_mean", "aqs_device", "oracle_snr"):
        assert np.sort(values) == pytest.approx(np.sort(aqs))


def test_what_is_heard_is_the_clip_the_cycle_or_the_recording(train):
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


def test_controls_are_what_they_say(train):
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
    values, told = sources.training_quality(train, source)
    assert told["missing"] == 1
    assert values[7] == pytest.approx(np.delete(values, 7).mean(), abs=1e-6)


def test_the_truth_is_known_of_synthetic_recordings_only(real_root):
    with pytest.raises(QualityError, match="only synthetic recordings"):
        sources.training_quality(load_corpus("icbhi", real_root).select("train"), "oracle_snr")


def test_unknown_sources_are_refused(train):
    with pytest.raises(QualityError, match="unknown quality source 'aks': choose from aqs"):
        sources.training_quality(train, "aks")
    with pytest.raises(ConfigError, match="unknown quality 'aks'"):
        training.Config(quality="aks")


def test_a_run_keeps_its_source_apart(train, tmp_path, monkeypatch):
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path))
    runs = [training.fit(training.Config(quality=q, epochs=1, batch_size=64), train) for q in ("aqs", "inverted")]
    assert runs[0].folder != runs[1].folder
    record = json.loads((runs[1].folder / "run.json").read_text())
    assert record["quality"]["source"] == "inverted"
    again = quality.QualityScorer.from_state(record["quality"]["scorer"])
    assert again.score(*quality.measure(train).T) == pytest.approx(sources.training_quality(train)[0])
