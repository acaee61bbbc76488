"""Known degradations in graded severity."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..errors import QualityError

# From least to most severe; amounts in the unit named. Gain takes nothing away: a quality score should ignore it.
SEVERITIES = {
    "noise": ("SNR [dB]", (30.0, 20.0, 10.0, 0.0, -10.0)),
    "clipping": ("share clipped", (0.001, 0.01, 0.05, 0.15, 0.3)),
    "lowpass": ("cut-off [Hz]", (1600.0, 1200.0, 800.0, 400.0, 200.0)),
    "dropouts": ("share lost", (0.02, 0.05, 0.1, 0.2, 0.4)),
    "gain": ("gain [dB]", (-5.0, -10.0, -15.0, -20.0, -25.0)),
}


def levels(severities: dict = SEVERITIES) -> list[tuple]:
    """(kind, severity, amount) of every level: ("none", 0, NaN) for clean audio, then each kind from severity 1 up."""
    graded = [(kind, i, a) for kind, (_, amounts) in severities.items() for i, a in enumerate(amounts, 1)]
    return [("none", 0, np.nan), *graded]


def degraded(x: Tensor, sample_rate: int, kind: str, amount: float) -> Tensor:
    """Waveforms [B, n] -> degraded waveforms [B, n], the same every time.

    Parameters
    ----------
    kind : {"none", "noise", "clipping", "lowpass", "dropouts", "gain"}
        White noise below 2 kHz (so that it means the same at every rate) at ``amount`` dB SNR over the clip; the
        loudest share of samples cut off; all above ``amount`` Hz removed; pieces of 0.1 s set to zero; gain in dB.
        QualityError if it is another.
    amount : float
    """
    generator = torch.Generator().manual_seed(0)
    if kind == "none":
        return x
    if kind == "noise":
        noise = _below(torch.randn(x.shape, generator=generator).to(x), sample_rate, 2000.0)
        wanted = x.square().mean(-1, keepdim=True) * 10 ** (-amount / 10)
        return x + noise * (wanted / noise.square().mean(-1, keepdim=True)).sqrt()
    if kind == "clipping":
        limit = x.abs().quantile(1 - amount, dim=-1, keepdim=True)
        return x.clamp(-limit, limit)
    if kind == "lowpass":
        return _below(x, sample_rate, amount)
    if kind == "dropouts":
        piece = round(0.1 * sample_rate)
        pieces = -(-x.shape[-1] // piece)
        order = torch.rand(len(x), pieces, generator=generator).argsort(-1)
        return x * (order >= round(amount * pieces)).repeat_interleave(piece, -1)[:, : x.shape[-1]].to(x)
    if kind == "gain":
        return x * 10 ** (amount / 20)
    raise QualityError(f"unknown degradation '{kind}': choose from {', '.join(SEVERITIES)}")


def _below(x: Tensor, rate: int, hertz: float) -> Tensor:
    spectrum = torch.fft.rfft(x)
    spectrum[..., torch.fft.rfftfreq(x.shape[-1], 1 / rate) > hertz] = 0
    return torch.fft.irfft(spectrum, x.shape[-1])


def sample(corpus, clips: int, seed: int = 0):
    """The corpus with ``clips`` of its events, drawn uniformly at random, for measurements that need no more."""
    chosen = np.random.default_rng(seed).permutation(len(corpus.events))[:clips]
    return dataclasses.replace(corpus, events=corpus.events.iloc[np.sort(chosen)].reset_index(drop=True))
