"""Front ends: batched log-mel features, a cache of them on disk, and SpecAugment."""

import dataclasses
import functools
import math

import numpy as np
import torch
import torchaudio
from torch import Tensor
from torchaudio.compliance import kaldi

from ..cache import cached_array, code_version
from . import clips
from .degrade import degraded

MASKS = {"ast": (160, 48), "mn": (48, 160)}  # SpecAugment's longest masks, the family's T and F, in each layout
BANDS = {"ast": 2, "mn": 1}  # the axis of frequency in a batch; time is the other one
AST_MEAN, AST_STD = -4.2677393, 4.5689974
DECIBEL = {"ast": math.log(10) / 20 / AST_STD, "mn": math.log(10) / 50}  # of power, in units of the features


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """What a backbone needs as input: name of the recipe, rate [Hz], clip length [s]."""

    recipe: str
    sample_rate: int
    seconds: float = 8.0

    def __call__(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, n] -> features [B, frames, 128] ("ast"), [B, 128, frames] ("mn"), [B, 1001, 64] ("clap")."""
        recipes = {"ast": ast_fbank, "mn": mn_logmel, "clap": clap_logmel}
        return recipes[self.recipe](waveform, self.sample_rate)


@functools.lru_cache
def mel_bank(n_fft: int, rate: int, low: float, high: float) -> Tensor:
    """Kaldi's triangular mel filters [128, n_fft / 2 + 1] between two frequencies [Hz]."""
    bank, _ = kaldi.get_mel_banks(128, n_fft, rate, low, high, 100.0, -500.0, 1.0)
    return torch.nn.functional.pad(bank, (0, 1))  # Kaldi's banks leave out the Nyquist bin


@functools.lru_cache
def _mel_blocks(n_fft: int, rate: int) -> list[tuple[slice, Tensor]]:
    """Kaldi's bank, 32 bands at a time, with the bins that each block touches: three quarters of it are zeros."""
    blocks = []
    for bands in mel_bank(n_fft, rate, 20.0, 0.5 * rate).T.split(32, dim=1):
        touched = bands.any(1).nonzero().flatten().tolist() or [0]
        bins = slice(touched[0], touched[-1] + 1)
        blocks.append((bins, bands[bins].contiguous()))
    return blocks


def ast_fbank(waveform: Tensor, rate: int = 16000) -> Tensor:
    """Kaldi-compatible log-mel filter bank of AST's recipe, a batch at a time.

    Equal to ``torchaudio.compliance.kaldi.fbank(htk_compat=True, window_type="hanning", num_mel_bins=128, dither=0,
    use_energy=False)`` per clip: 25/10 ms, per-frame mean removed, pre-emphasis 0.97, power, natural log; then
    (x - mean) / (2 std) with AudioSet's statistics: [B, n] -> [B, frames, 128]. No gradient flows to the waveform.
    """
    window, hop = int(0.025 * rate), int(0.010 * rate)
    n_fft = 1 << (window - 1).bit_length()
    # Pre-emphasis of the whole clip at once: it keeps 0.03 of a frame's mean, and a frame's first sample, the only
    # one whose predecessor lies outside, has the weight 0 in this window. Frames are cut at the length of the FFT; the
    # window's zeros make up for it.
    size, extra = waveform.shape[-1], n_fft - window
    emphasised = waveform.new_zeros(*waveform.shape[:-1], size + extra)
    torch.sub(waveform[..., 1:], waveform[..., :-1], alpha=0.97, out=emphasised[..., 1:size])
    mean = waveform.unfold(-1, window, hop).mean(-1, keepdim=True)
    frames = torch.sub(emphasised.unfold(-1, n_fft, hop), mean, alpha=0.03)
    hann = torch.hann_window(window, periodic=False, device=frames.device, dtype=frames.dtype)
    frames *= torch.nn.functional.pad(hann, (0, extra))
    squares = torch.view_as_real(torch.fft.rfft(frames)).square_()
    power = squares[..., 0] + squares[..., 1]
    mel = torch.cat([power[..., bins] @ bands.to(power) for bins, bands in _mel_blocks(n_fft, rate)], -1)
    return mel.clamp_min_(torch.finfo(mel.dtype).eps).log_().sub_(AST_MEAN).div_(2 * AST_STD)


def mn_logmel(waveform: Tensor, rate: int = 32000) -> Tensor:
    """Log-mel of the EfficientAT models (Schmid et al. 2023): [B, n] at 32 kHz -> [B, 128, frames]."""
    emphasised = waveform[:, 1:] - 0.97 * waveform[:, :-1]
    window = torch.hann_window(800, periodic=False, device=waveform.device)
    spectrum = torch.stft(emphasised, 1024, 320, 800, window, center=True, pad_mode="reflect", return_complex=True)
    mel = mel_bank(1024, rate, 0.0, 15000.0).to(waveform) @ spectrum.abs().square()
    return ((mel + 1e-5).log() + 4.5) / 5


def clap_logmel(waveform: Tensor, rate: int = 48000) -> Tensor:
    """Log-mel [dB] of LAION-CLAP without fusion: [B, n <= 10 s] at 48 kHz, silence added to 10 s -> [B, 1001, 64]."""
    waveform = torch.nn.functional.pad(waveform, (0, 10 * rate - waveform.shape[-1]))
    window = torch.hann_window(1024, device=waveform.device)
    spectrum = torch.stft(waveform, 1024, 480, window=window, pad_mode="reflect", return_complex=True)
    bank = torchaudio.functional.melscale_fbanks(513, 50.0, 14000.0, 64, rate, norm="slaney", mel_scale="slaney")
    return 10 * (spectrum.abs().square().mT @ bank.to(waveform)).clamp_min(1e-10).log10()


def spec_augment(features: Tensor, generator: torch.Generator, width: tuple[int, int] = (160, 48)) -> Tensor:
    """Two masks along each of the last two axes, up to ``width`` long, filled with the clip's mean.

    ``width`` is in the order of the axes: (160, 48) for [B, frames, mel], the family's T and F.
    """
    out = features.clone()
    fill = features.mean((-2, -1), keepdim=True)
    for axis, limit in ((-2, width[0]), (-1, width[1])):
        size = features.shape[axis]
        at = torch.arange(size)
        for _ in range(2):
            length = torch.rand(len(features), 1, generator=generator) * min(limit, size)
            start = torch.rand(len(features), 1, generator=generator) * (size - length)
            mask = ((at >= start) & (at < start + length)).to(features.device)
            out = torch.where(mask[:, :, None] if axis == -2 else mask[:, None, :], fill, out)
    return out


def crop(features: Tensor, generator: torch.Generator, axis: int, share: float) -> Tensor:
    """A random window of each clip along ``axis``, ``share`` of its length: [B, ...] -> [B, ..., shorter, ...]."""
    size = round(share * features.shape[axis])
    starts = torch.randint(features.shape[axis] - size + 1, (len(features),), generator=generator).tolist()
    return torch.stack([clip.narrow(axis - 1, start, size) for clip, start in zip(features, starts, strict=True)])


def tilt(features: Tensor, generator: torch.Generator, axis: int, most: float) -> Tensor:
    """A random gain and slope over the bands of ``axis`` in each clip, both uniform in +-``most`` of their unit."""
    gain, slope = most * (2 * torch.rand(2, len(features), 1, generator=generator) - 1)
    change = (gain + slope * torch.linspace(-1, 1, features.shape[axis])).to(features.device)
    return features + change.unsqueeze(3 - axis)


def mix_bands(features: Tensor, generator: torch.Generator, axis: int) -> Tensor:
    """Give each clip, in every band of ``axis``, the mean and sd over time of a mixture of its own and another clip's.

    Freq-MixStyle (Kim et al. 2022, DCASE task 1; after MixStyle, Zhou et al., ICLR 2021), so that the network can't
    rely on a device's spectrum. The clip's own weight is Beta(1/2, 1/2): sin^2 of a uniform angle.
    """
    own = (torch.rand(len(features), 1, 1, generator=generator) * math.pi / 2).sin().square().to(features.device)
    other = torch.randperm(len(features), generator=generator)
    sd, mean = torch.std_mean(features, 3 - axis, keepdim=True)
    mixed_sd, mixed_mean = (own * x + (1 - own) * x[other] for x in (sd, mean))
    return (features - mean) / (sd + 1e-5) * mixed_sd + mixed_mean


def extract(
    corpus, front_end: FrontEnd, degradation: tuple[str, float] = ("none", 0.0), pad: str = "repeat", band_hz: float = 0
) -> np.ndarray:
    """Features of every event, float16 and memory-mapped, in the order of ``corpus.events``; on all cores.

    Float16 keeps three digits of a feature of unit scale: the difference to float32 is at most 1e-3 within [-2, 2].

    Parameters
    ----------
    degradation : tuple of kind and amount
        How the audio is first `degraded`.
    pad : {"repeat", "silence", "reflect"}
        How a shorter event fills the clip, see `fit_length`.
    band_hz : float [Hz]
        All above it is removed first, so that devices with a wider band don't differ in it; 0 removes nothing.
    """
    rate, key = front_end.sample_rate, {"corpus": corpus.fingerprint(), "degradation": degradation}
    key |= {"front_end": dataclasses.asdict(front_end), "code": code_version("audio"), "pad": pad, "band_hz": band_hz}

    def features(waveform: Tensor) -> np.ndarray:
        limited = degraded(waveform, rate, "lowpass", band_hz) if band_hz else waveform
        return front_end(degraded(limited, rate, *degradation)).half().numpy()

    parts = clips.map_clips(corpus, rate, front_end.seconds, features, pad)
    return cached_array("features", key, lambda: parts, rows=len(corpus.events))


def filled(corpus, seconds: float, pad: str) -> np.ndarray | None:
    """Share of each clip that is not silence added by ``pad``, float32; None where nothing is added."""
    if pad != "silence":
        return None
    length = corpus.events["end_s"] - corpus.events["start_s"]
    return (length / seconds).clip(upper=1).to_numpy("float32")
