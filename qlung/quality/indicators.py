"""Other no-reference scores of a recording, to hold the paper's against: what each measures, batched, on any device."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..audio import batches
from ..cache import cached_array, code_version
from ..errors import QualityError
from .aqs import rms_dbfs

RATE = 4000  # the lowest rate of either corpus, so that a device's bandwidth above 2 kHz tells nothing
BANDS = {"heart": (20, 100), "low": (100, 300), "mid": (300, 800), "high": (800, 1600)}

# name -> +1 if more of it should mean better quality, else -1: said before any label was looked at.
# The paper's two ingredients lead; "level" is the only one that depends on gain.
DIRECTION = {
    "entropy": -1, "level": 1, "entropy_100_1000": -1, "flatness": -1, "snr": 1, "clipping": -1, "zero_crossings": -1,
    "kurtosis": -1, "centroid": -1, "bandwidth": -1, "rolloff": -1, "heart": -1, "low": -1, "mid": 1, "high": -1,
    "crest": -1, "swing": 1, "flux": -1, "dropouts": -1, "spikes": -1,
}  # fmt: skip


def signal_scores(waveform: Tensor, sample_rate: int = RATE) -> dict[str, Tensor]:
    """Interpretable scores of each clip, none of which needs a reference; all but ``level`` ignore the gain.

    Parameters
    ----------
    waveform : Tensor [shape=(B, n)]
    sample_rate : int [Hz]
        At least 4 kHz.

    Returns
    -------
    dict of name -> Tensor [shape=(B,)]
        entropy (mean power spectrum) and entropy_100_1000 (of that band) in 0..1; level [dBFS]; flatness [dB, <= 0]:
        geometric over arithmetic mean of the spectrum; snr [dB]: 95th over 10th percentile of frame power at 100 to
        1000 Hz, the quiet frames being taken for noise; clipping: share of samples within 0.1 % of the clip's peak;
        zero_crossings [per s]; kurtosis (log of, so that one click does not rule it); centroid and bandwidth [Hz];
        rolloff [Hz]: 85 % of the power lies below; heart, low, mid, high [dB]: share of power at 20-100, 100-300,
        300-800, 800-1600 Hz; crest [dB]: peak over RMS; swing [dB]: sd of frame levels; flux [dB]: mean change of the
        spectrum from frame to frame; dropouts: share of frames 60 dB or more under the median frame; spikes [dB]:
        loudest over median frame. NaN for a clip that is silent, not finite or shorter than one frame.

    Raises
    ------
    QualityError
        Under 4 kHz, where the bands do not exist.
    """
    power, hertz = _spectrum(waveform, sample_rate)
    x = waveform / waveform.abs().amax(-1, keepdim=True)
    mean = power.mean(1)
    share = mean / mean.sum(-1, keepdim=True)
    frame, inside = power.sum(-1), (hertz >= 100) & (hertz <= 1000)
    breath = power[..., inside].sum(-1)
    loud, quiet = (decibel(breath.quantile(q, dim=1)) for q in (0.95, 0.10))
    centroid = (share * hertz).sum(-1)
    rms = x.square().mean(-1, keepdim=True).sqrt()
    level, flow = decibel(frame), decibel(power)
    middle = level.quantile(0.5, dim=1)
    told = {
        "entropy": _entropy(share),
        "level": rms_dbfs(waveform),
        "entropy_100_1000": _entropy(share[:, inside] / share[:, inside].sum(-1, keepdim=True)),
        "flatness": decibel(mean).mean(-1) - decibel(mean.mean(-1)),
        "snr": loud - quiet,
        "clipping": (x.abs() >= 0.999).to(x).mean(-1),
        "zero_crossings": (x[:, 1:].signbit() != x[:, :-1].signbit()).to(x).mean(-1) * sample_rate,
        "kurtosis": (x / rms).pow(4).mean(-1).log(),
        "centroid": centroid,
        "bandwidth": (share * (hertz - centroid[:, None]).square()).sum(-1).sqrt(),
        "rolloff": hertz[(share.cumsum(-1) < 0.85).sum(-1).clamp_max(len(hertz) - 1)],
        **{k: decibel(share[:, (hertz >= a) & (hertz < b)].sum(-1)) for k, (a, b) in BANDS.items()},
        "crest": -2 * decibel(rms[:, 0]),
        "swing": level.std(1, correction=0),
        "flux": (flow[:, 1:] - flow[:, :-1]).abs().mean((1, 2)),
        "dropouts": (level < middle[:, None] - 60).to(x).mean(-1),
        "spikes": level.amax(1) - middle,
    }
    known = frame.sum(1).isfinite()
    return {name: torch.where(known, score, torch.nan) for name, score in told.items()}


def _spectrum(waveform: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Power [B, frames, bins] of 64 ms Hann frames of the clip scaled to a peak of 1, DC left out, and bins [Hz]."""
    if sample_rate < RATE:
        raise QualityError(f"these scores need {RATE} Hz or more, not {sample_rate}: resample first")
    window, hop = round(0.064 * sample_rate), round(0.032 * sample_rate)
    if waveform.shape[-1] < window:
        waveform = waveform.new_full((len(waveform), window), torch.nan)
    x = waveform / waveform.abs().amax(-1, keepdim=True)
    hann = torch.hann_window(window, device=x.device, dtype=x.dtype)
    spectrum = torch.stft(x, window, hop, window=hann, center=False, return_complex=True).transpose(1, 2)[..., 1:]
    power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag) + 1e-12
    return power, torch.arange(1, window // 2 + 1, device=x.device) * (sample_rate / window)


def decibel(power: Tensor) -> Tensor:
    """10 log10."""
    return 10 * power.log10()


def _entropy(share: Tensor) -> Tensor:
    return torch.special.entr(share).sum(-1) / np.log(share.shape[-1])


QUANTITIES = ("quiet", "loud", "flicker", "noisy")
EDGES = (20, 100, 200, 400, 800, 1900)
FEATURES = [f"{q}_{low}_{high}" for q in QUANTITIES for low, high in itertools.pairwise(EDGES)]


def band_features(waveform: Tensor, sample_rate: int = RATE) -> Tensor:
    """Four plain quantities in five bands, what ``learned_cheap`` hears; none depends on gain.

    Parameters
    ----------
    waveform : Tensor [shape=(B, n)]
    sample_rate : int [Hz]

    Returns
    -------
    features : Tensor [shape=(B, 20), dB], named by ``FEATURES``
        Per band: level of the quiet frames (5th percentile) and of the loud ones (95th) against the clip's mean power;
        flicker, the mean change from frame to frame; noisy, the spectral flatness (0: noise, far below: tones).
        NaN for a clip that cannot be measured.
    """
    power, hertz = _spectrum(waveform, sample_rate)
    bands = [power[..., (hertz >= low) & (hertz < high)] for low, high in itertools.pairwise(EDGES)]
    level = torch.stack([decibel(band.mean(-1)) for band in bands], -1)
    level = level - decibel(power.mean((1, 2)))[:, None, None]
    quiet, loud = torch.quantile(level, torch.tensor([0.05, 0.95], device=level.device, dtype=level.dtype), dim=1)
    flicker = (level[:, 1:] - level[:, :-1]).abs().mean(1)
    noisy = torch.stack([(decibel(band).mean(-1) - decibel(band.mean(-1))).mean(1) for band in bands], -1)
    return torch.cat([quiet, loud, flicker, noisy], 1)


def measure(corpus) -> pd.DataFrame:
    """``signal_scores`` and ``band_features`` of every event at 4 kHz, padded to 8 s, cached; one row an event."""
    key = {"corpus": corpus.fingerprint(), "code": code_version("audio", "quality")}

    def build() -> np.ndarray:
        parts = []
        for batch in batches(corpus, RATE, 8.0):
            parts.append(torch.cat([torch.stack(list(signal_scores(batch).values()), 1), band_features(batch)], 1))
        return torch.cat(parts).double().numpy()

    return pd.DataFrame(cached_array("scores", key, build), columns=[*DIRECTION, *FEATURES])


def whole_recordings(corpus):
    """The corpus with one event a recording: its first 8 s. Quality is judged a recording at a time."""
    told = corpus.recordings
    events = pd.DataFrame({
        "event_id": told["recording_id"], "recording_id": told["recording_id"], "start_s": 0.0,
        "end_s": told["duration_s"].clip(upper=8.0), "label": 0, "crackle": False, "wheeze": False,
        "raw_label": "whole", "split": told["split"],
    })  # fmt: skip
    return dataclasses.replace(corpus, events=events)
