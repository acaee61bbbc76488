"""Other no-reference quality indicators of a recording, to compare with AQS, and how they react to degradation."""

import dataclasses
import itertools
import math

import pandas as pd
import torch
from torch import Tensor

from ..audio import batches
from ..audio.degrade import degraded, levels
from ..cache import cached_array, code_version
from . import aqs
from .aqs import entropy_nats, rms_dbfs

RATE = 4000  # the lowest rate of either corpus, so that no indicator can use a device's bandwidth above 2 kHz
WINDOW = 256  # samples, 64 ms; frames overlap by half

# name -> +1 if more of it should mean better quality, else -1: fixed before any label was looked at.
# The paper's two ingredients lead; "level" is the only one that depends on gain.
DIRECTION = {"entropy": -1, "level": 1, "flatness": -1, "snr": 1, "clipping": -1, "flux": -1, "low": -1, "high": -1}


def signal_scores(waveform: Tensor) -> dict[str, Tensor]:
    """Eight interpretable indicators of waveforms [B, n] at 4 kHz: name -> Tensor [shape=(B,)]. None needs a reference.

    entropy of the mean power spectrum in 0..1; level [dBFS], the only one that depends on gain; flatness [dB, <= 0]:
    geometric over arithmetic mean of the spectrum; snr [dB]: 95th over 10th percentile of frame power at 100 to
    1000 Hz, the quiet frames being taken for noise; clipping: share of samples within 0.1 % of the clip's peak;
    flux [dB]: mean change of the spectrum from frame to frame; low, high [dB]: share of power at 100-300 and at
    800-1600 Hz. NaN for a clip that is silent, not finite or shorter than one frame.
    """
    power = _spectrum(waveform)
    mean = power.mean(1)
    share = mean / mean.sum(-1, keepdim=True)
    loud, quiet = (decibel(_band(power, 100, 1000).sum(-1).quantile(q, dim=1)) for q in (0.95, 0.10))
    peak = waveform.abs().amax(-1, keepdim=True)
    scores = {
        "entropy": entropy_nats(mean) / math.log(power.shape[-1]),
        "level": rms_dbfs(waveform),
        "flatness": decibel(mean).mean(-1) - decibel(mean.mean(-1)),
        "snr": loud - quiet,
        "clipping": ((waveform / peak).abs() >= 0.999).to(mean).mean(-1),
        "flux": decibel(power).diff(dim=1).abs().mean((1, 2)),
        "low": decibel(_band(share, 100, 300).sum(-1)),
        "high": decibel(_band(share, 800, 1600).sum(-1)),
    }
    known = mean.sum(-1).isfinite()
    return {name: torch.where(known, score, torch.nan) for name, score in scores.items()}


def _band(power: Tensor, low: float, high: float) -> Tensor:
    """The bins of a spectrum [..., bins] from ``low`` to ``high`` [Hz]."""
    hertz = torch.arange(1, WINDOW // 2 + 1, device=power.device) * (RATE / WINDOW)
    return power[..., (hertz >= low) & (hertz <= high)]


def _spectrum(waveform: Tensor) -> Tensor:
    """Power [B, frames, bins] of 64 ms Hann frames of the clip scaled to a peak of 1, DC left out."""
    if waveform.shape[-1] < WINDOW:
        waveform = waveform.new_full((len(waveform), WINDOW), torch.nan)
    x = waveform / waveform.abs().amax(-1, keepdim=True)
    hann = torch.hann_window(WINDOW, device=x.device, dtype=x.dtype)
    spectrum = torch.stft(x, WINDOW, WINDOW // 2, window=hann, center=False, return_complex=True)
    spectrum = spectrum.transpose(1, 2)[..., 1:]
    return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag) + 1e-12


def decibel(power: Tensor) -> Tensor:
    """10 log10."""
    return 10 * power.log10()


BANDS = list(itertools.pairwise((20, 100, 200, 400, 800, 1900)))  # [Hz]
FEATURES = [f"{name}_{low}_{high}" for name in ("quiet", "loud", "flicker", "noisy") for low, high in BANDS]


def band_features(waveform: Tensor) -> Tensor:
    """Features of ``learned_cheap`` [B, 20, dB] of waveforms [B, n] at 4 kHz, named by ``FEATURES``; gain is ignored.

    In each of five bands: level of the quiet frames (5th percentile) and of the loud ones (95th) against the clip's
    mean power; flicker, the mean change from frame to frame; noisy, the spectral flatness (0: noise, far below: tones).
    NaN for a clip that cannot be measured.
    """
    power = _spectrum(waveform)
    bands = [_band(power, low, high) for low, high in BANDS]
    level = torch.stack([decibel(band.mean(-1)) for band in bands], -1)
    level = level - decibel(power.mean((1, 2)))[:, None, None]
    quiet, loud = torch.quantile(level, torch.tensor([0.05, 0.95], device=level.device, dtype=level.dtype), dim=1)
    flicker = level.diff(dim=1).abs().mean(1)
    noisy = torch.stack([(decibel(band).mean(-1) - decibel(band.mean(-1))).mean(1) for band in bands], -1)
    return torch.cat([quiet, loud, flicker, noisy], 1)


def all_indicators(waveform: Tensor) -> Tensor:
    """`band_features`, then `signal_scores` of waveforms [B, n] at 4 kHz: [B, 28], named by FEATURES and DIRECTION."""
    return torch.cat([band_features(waveform), torch.stack(list(signal_scores(waveform).values()), 1)], 1)


def measure(corpus) -> pd.DataFrame:
    """``signal_scores`` and ``band_features`` per event, at 4 kHz and repeated or cut to 8 s; cached."""
    key = {"corpus": corpus.fingerprint(), "code": code_version("audio", "quality")}
    parts = (all_indicators(batch).double().numpy() for batch in batches(corpus, RATE, 8.0))
    values = cached_array("indicators", key, lambda: parts, rows=len(corpus.events))
    return pd.DataFrame(values, columns=[*FEATURES, *DIRECTION])


def severity_table(corpus) -> pd.DataFrame:
    """Quality measures of every clip, clean ("none", severity 0) and at every level of each degradation; cached.

    Per clip and level: kind, severity (0 to 5), amount, event_id, H, R [dBFS], then ``FEATURES`` and ``DIRECTION``.
    """
    steps = levels()
    key = {"corpus": corpus.fingerprint(), "levels": steps, "code": code_version("audio", "quality")}

    def measured(high: Tensor, low: Tensor, kind: str, amount: float) -> Tensor:
        high, low = degraded(high, aqs.RATE, kind, amount), degraded(low, RATE, kind, amount)
        h = aqs.spectral_entropy(high, aqs.RATE, **aqs.DEFAULT_DEFINITION)
        return torch.cat([torch.stack([h, rms_dbfs(high)], 1), all_indicators(low)], 1)

    def parts():
        for high, low in zip(*(batches(corpus, rate, 8.0) for rate in (aqs.RATE, RATE)), strict=True):
            yield torch.stack([measured(high, low, kind, a) for kind, _, a in steps], 1).double().numpy()

    values = cached_array("severity", key, parts, rows=len(corpus.events))  # [clips, levels, columns]
    keys = pd.DataFrame(steps, columns=["kind", "severity", "amount"]).merge(corpus.events[["event_id"]], how="cross")
    columns = ["H", "R", *FEATURES, *DIRECTION]
    return keys.join(pd.DataFrame(values.swapaxes(0, 1).reshape(len(keys), -1), columns=columns))


def whole_recordings(corpus):
    """The corpus with one event per recording, its first 8 s: physicians label the quality of whole recordings."""
    table = corpus.recordings
    events = pd.DataFrame({
        "event_id": table["recording_id"], "recording_id": table["recording_id"], "start_s": 0.0,
        "end_s": table["duration_s"].clip(upper=8.0), "label": 0, "crackle": False, "wheeze": False,
        "raw_label": "whole", "split": table["split"]})  # fmt: skip
    return dataclasses.replace(corpus, events=events)
