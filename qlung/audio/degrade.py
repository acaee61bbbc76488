"""Known degradations in graded severity, and a front end that hears degraded audio."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..cache import code_version
from ..errors import QualityError
from .frontends import FrontEnd

# From least to most damage; amounts in the unit named. Gain is no damage: a score of quality should not follow it.
SEVERITIES = {
    "noise": ("SNR [dB]", (30.0, 20.0, 10.0, 0.0, -10.0)),
    "clipping": ("share clipped", (0.001, 0.01, 0.05, 0.15, 0.3)),
    "lowpass": ("cut-off [Hz]", (1600.0, 1200.0, 800.0, 400.0, 200.0)),
    "dropouts": ("share lost", (0.02, 0.05, 0.1, 0.2, 0.4)),
    "gain": ("gain [dB]", (-5.0, -10.0, -15.0, -20.0, -25.0)),
}


@dataclasses.dataclass(frozen=True)
class Degradation:
    """One kind and amount of damage, the same every time: ``Degradation("noise", 10.0)(waveform, rate)``.

    Parameters
    ----------
    kind : {"noise", "clipping", "lowpass", "dropouts", "gain"}
        White noise below 2 kHz (so that it means the same at every rate) at ``amount`` dB SNR over the clip; the
        loudest share of samples cut off; all above ``amount`` Hz removed; pieces of 0.1 s set to zero; gain in dB.
    amount : float
    seed : int
        For noise and dropouts.
    """

    kind: str
    amount: float
    seed: int = 0

    def __post_init__(self):
        if self.kind not in SEVERITIES:
            raise QualityError(f"unknown degradation '{self.kind}': choose from {', '.join(SEVERITIES)}")

    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Waveforms [B, n] -> degraded waveforms [B, n]."""
        return getattr(self, f"_{self.kind}")(waveform, sample_rate, torch.Generator().manual_seed(self.seed))

    def _noise(self, x: Tensor, rate: int, generator) -> Tensor:
        noise = _below(torch.randn(x.shape, generator=generator).to(x), rate, 2000.0)
        wanted = x.square().mean(-1, keepdim=True) * 10 ** (-self.amount / 10)
        return x + noise * (wanted / noise.square().mean(-1, keepdim=True)).sqrt()

    def _clipping(self, x: Tensor, rate: int, generator) -> Tensor:
        limit = x.abs().quantile(1 - self.amount, dim=-1, keepdim=True)
        return x.clamp(-limit, limit)

    def _lowpass(self, x: Tensor, rate: int, generator) -> Tensor:
        return _below(x, rate, self.amount)

    def _dropouts(self, x: Tensor, rate: int, generator) -> Tensor:
        piece = round(0.1 * rate)
        pieces = -(-x.shape[-1] // piece)
        order = torch.rand(len(x), pieces, generator=generator).argsort(-1)
        keep = (order >= round(self.amount * pieces)).repeat_interleave(piece, -1)[:, : x.shape[-1]]
        return x * keep.to(x)

    def _gain(self, x: Tensor, rate: int, generator) -> Tensor:
        return x * 10 ** (self.amount / 20)


@dataclasses.dataclass(frozen=True)
class Degraded:
    """A front end that hears damaged audio; ``frontends.extract`` takes it like any other and caches what it gives."""

    front_end: FrontEnd
    damage: Degradation
    code: str = dataclasses.field(default_factory=lambda: code_version("audio"))

    @property
    def sample_rate(self) -> int:
        """Of the front end behind it [Hz]."""
        return self.front_end.sample_rate

    @property
    def seconds(self) -> float:
        """Of the front end behind it [s]."""
        return self.front_end.seconds

    def half(self, waveform: Tensor) -> np.ndarray:
        """Features of the damaged waveforms [B, ...] in float16."""
        return self.front_end.half(self.damage(waveform, self.sample_rate))


def _below(x: Tensor, rate: int, hertz: float) -> Tensor:
    spectrum = torch.fft.rfft(x)
    spectrum[..., torch.fft.rfftfreq(x.shape[-1], 1 / rate) > hertz] = 0
    return torch.fft.irfft(spectrum, x.shape[-1])


def sample(corpus, clips: int, seed: int = 0):
    """The corpus with ``clips`` of its events, drawn evenly at random, for measurements that need not hear all."""
    chosen = np.random.default_rng(seed).permutation(len(corpus.events))[:clips]
    return dataclasses.replace(corpus, events=corpus.events.iloc[np.sort(chosen)].reset_index(drop=True))
