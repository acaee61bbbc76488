"""Rival quality indicators on known signals, their invariances, clips without a value, and the severity table."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import noise, tone

from qlung import load_corpus, quality
from qlung.audio import degrade
from qlung.quality import indicators


def test_indicators_of_known_signals():
    x = torch.cat([noise(2.0, rate=4000), tone(440, 2.0, 4000), noise(2.0, 1, rate=4000).clamp(-0.1, 0.1)])
    scores = indicators.signal_scores(x)
    assert list(scores) == list(indicators.DIRECTION)
    assert len(scores) == 8
    ours = quality.spectral_entropy(x, 4000, n_fft=256, win_s=0.064, hop_s=0.032, scope="mean")
    torch.testing.assert_close(scores["entropy"], ours, atol=0.01, rtol=0)  # which keeps the bin at 0 Hz
    band = {name: 10 * np.log10(width / 2000) for name, width in (("low", 200), ("high", 800))}
    assert {name: scores[name][0] for name in band} == pytest.approx(band, abs=0.3)
    assert scores["low"][1] < -50
    periodic = x[:1, :128].repeat(1, 40)  # every frame is the same
    assert scores["flux"][0] > 3 > 0.1 > indicators.signal_scores(periodic)["flux"]
    assert scores["flatness"][0] > -1 > -20 > scores["flatness"][1]
    assert scores["clipping"][2] == pytest.approx(float((x[2].abs() >= 0.0999).float().mean()), abs=0.01)
    assert scores["clipping"][0] < 0.01 < 0.2 < scores["clipping"][2]


def test_estimated_snr_rises_with_bursts_over_a_noise_floor():
    burst = noise(4.0, rate=4000) * (torch.arange(16000) % 4000 < 1000)
    floor = noise(4.0, 1, rate=4000)
    snr = [float(indicators.signal_scores(burst + floor * 10 ** (-db / 20))["snr"]) for db in (0, 10, 20, 30)]
    assert np.diff(snr) == pytest.approx([10, 10, 10], abs=4)


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(-60, 40), seed=st.integers(0, 99))
def test_only_level_depends_on_gain(gain, seed):
    x = noise(1.0, seed, rate=4000) * torch.linspace(0, 1, 4000)
    before, after = indicators.signal_scores(x), indicators.signal_scores(x * 10 ** (gain / 20))
    torch.testing.assert_close(after.pop("level"), before.pop("level") + gain, atol=1e-3, rtol=0)
    torch.testing.assert_close(after, before, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(
        indicators.band_features(x * 10 ** (gain / 20)), indicators.band_features(x), atol=2e-3, rtol=0
    )


def test_indicators_of_silent_non_finite_and_short_clips():
    x = torch.cat([noise(rate=4000), torch.zeros(1, 4000), noise(rate=4000)])
    x[2, 3] = torch.nan
    for score in (*indicators.signal_scores(x).values(), *indicators.band_features(x).T):
        assert score.isnan().tolist() == [False, True, True]
    assert all(s.isnan().all() for s in indicators.signal_scores(x[:, :50]).values())


def test_severity_table(synthetic_root):
    corpus = degrade.sample(load_corpus("icbhi", synthetic_root).select("train"), 10)
    table = indicators.severity_table(corpus)
    assert len(table) == 10 * 26
    clean = table[table["kind"] == "none"].set_index("event_id").loc[corpus.events["event_id"]]
    assert clean[["H", "R"]].to_numpy() == pytest.approx(quality.measure(corpus), abs=1e-6)
    assert clean[list(indicators.DIRECTION)].to_numpy() == pytest.approx(
        indicators.measure(corpus)[list(indicators.DIRECTION)].to_numpy(), abs=1e-3
    )
    assert table.columns[:4].tolist() == ["kind", "severity", "amount", "event_id"]
    assert table.groupby("kind")["severity"].nunique().to_dict() == dict.fromkeys(degrade.SEVERITIES, 5) | {"none": 1}
    gain = table[table["kind"] == "gain"].set_index("event_id")
    loud = clean["R"].reindex(gain.index)
    assert gain["R"].to_numpy() == pytest.approx((loud + gain["amount"]).to_numpy(), abs=1e-3)
