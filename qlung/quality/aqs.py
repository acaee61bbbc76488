"""The paper's audio-quality score: AQS = clip(1 - alpha H + beta R, 0, 1), from spectral entropy H and RMS energy R."""

import dataclasses
import functools
import math

import numpy as np
import torch
from torch import Tensor

from ..audio import cut_clips, map_clips, read
from ..audio.frontends import mel_bank
from ..cache import cached_array, code_version
from ..errors import QualityError

SCOPES = ("frames", "mean", "plane")
BINS = ("linear", "logmel")
SCALES = {  # name of a rescaling -> what it needs of the fitted values: (low, high), or for ranks all of them in order
    "none": lambda x: x[:0],
    "percentile": lambda x: np.percentile(x, (1, 99)),
    "minmax": lambda x: np.percentile(x, (0, 100)),
    "zscore": lambda x: x.mean() + 3 * x.std() * np.array([-1, 1]),
    "rank": np.sort,
}
NORMALISERS = tuple(SCALES)
CACHE_BYTES = 1 << 21  # spectra of this size stay in a core's cache: twice as fast as a batch of 16 at once


def spectral_entropy(waveform: Tensor, sample_rate: int, n_fft: int = 512, win_s: float = 0.025, hop_s: float = 0.010,
                     scope: str = "frames", power: float = 2.0, bins: str = "linear") -> Tensor:  # fmt: skip
    """Normalised Shannon entropy of the spectrum: near 0 for a tone, near 1 for white noise, whatever the gain.

    Parameters
    ----------
    waveform : Tensor [shape=(..., n)]
        Its mean is not removed: a constant is a tone at 0 Hz.
    sample_rate : int [Hz]
    n_fft : int
        Grows to the next power of two where the window is longer.
    win_s, hop_s : float [s]
        Hann window and hop.
    scope : {"frames", "mean", "plane"}
        Entropy of each frame, averaged over those that are not silent; of the mean spectrum; or of the whole
        time-frequency plane.
    power : float
        2 for the power spectrum, 1 for magnitudes.
    bins : {"linear", "logmel"}
        FFT bins, or 128 mel bands in decibels above 80 dB under the clip's loudest (power is then ignored).

    Returns
    -------
    entropy : Tensor [shape=(...), range 0..1]
        Divided by the log of the number of bins (of cells, for the plane). NaN where there is nothing to measure:
        silence, a sample that is not finite, or less than one frame. QualityError if ``scope`` or ``bins`` is unknown.

    Examples
    --------
    >>> tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
    >>> print(f"{spectral_entropy(tone, 16000):.2f}")
    0.20
    """
    if scope not in SCOPES or bins not in BINS:
        raise QualityError(f"unknown scope={scope!r} or bins={bins!r}: choose scope from {SCOPES}, bins from {BINS}")
    window, hop = round(win_s * sample_rate), round(hop_s * sample_rate)
    n_fft = max(n_fft, 1 << (window - 1).bit_length())
    shape, flat = waveform.shape[:-1], waveform.reshape(-1, waveform.shape[-1])
    if flat.shape[-1] < window:
        return waveform.new_full(shape, torch.nan)
    hann = torch.hann_window(window, device=flat.device, dtype=flat.dtype)
    left = (n_fft - window) // 2  # torch.stft centres a window shorter than n_fft: padding puts it back at the start
    bank = mel_bank(n_fft, sample_rate, 20.0, 0.5 * sample_rate).T.to(flat) if bins == "logmel" else None

    def entropy(part: Tensor) -> Tensor:
        peak = part.abs().amax(-1)  # dividing by it keeps squares in range, and gives NaN for silence
        part = torch.nn.functional.pad(part / peak[:, None], (left, n_fft - window - left))
        spectrum = torch.stft(part, n_fft, hop, window=hann, win_length=window, center=False, return_complex=True)
        spectrum = spectrum.transpose(1, 2)  # [clips, frames, bins], as it lies in memory
        density = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
        if bank is not None:
            decibels = 10 * (density @ bank).clamp_min(1e-20).log10()
            density = (decibels - decibels.amax((-2, -1), keepdim=True) + 80).clamp_min(0)
        elif power != 2:
            density = density.pow(power / 2)
        if scope == "mean":
            density = density.mean(-2, keepdim=True)
        elif scope == "plane":
            density = density.flatten(-2)[:, None]
        sounding = (density.sum(-1) > 0).sum(-1)  # frames
        mean = entropy_nats(density).sum(-1) / sounding / math.log(density.shape[-1])
        return torch.where(peak.isfinite() & (peak > 0), mean.clamp(0, 1), torch.nan)

    frames = 1 + (flat.shape[-1] - window) // hop
    clips = len(flat) if flat.is_cuda else max(1, CACHE_BYTES // (8 * frames * (n_fft // 2 + 1)))
    return torch.cat([entropy(part) for part in flat.split(clips)]).reshape(shape)


def entropy_nats(density: Tensor) -> Tensor:
    """Shannon entropy [nats] of densities [..., bins], which need not add up to 1: [...]; 0 where all bins are 0."""
    total = density.sum(-1)
    safe = torch.where(total > 0, total, 1)
    # With p = s / total, -sum p log p = log total - (sum s log s) / total: one pass, and nothing is divided
    return safe.log() - (density * density.clamp_min(torch.finfo(density.dtype).tiny).log()).sum(-1) / safe


def rms_dbfs(waveform: Tensor) -> Tensor:
    """Root-mean-square level [..., dBFS] of waveforms [..., n]; -inf for silence, NaN or inf if not finite.

    0 dBFS is a full-scale square wave.
    """
    # A norm, because squares of very quiet samples underflow
    return 20 * (torch.linalg.vector_norm(waveform, dim=-1) / math.sqrt(waveform.shape[-1])).log10()


@dataclasses.dataclass
class QualityScorer:
    """AQS from H [0..1] and R [dBFS], with the rescaling fitted on training clips only.

    Parameters
    ----------
    alpha, beta : float
        Weights of H_norm and R_norm; 0.7 and 0.3 in the paper.
    normalise : {"none", "percentile", "minmax", "zscore", "rank"}
        How H and R are rescaled: not at all (R linear), 1st-99th percentile of the fitted values to [0, 1] and clipped,
        their range, z = 0.5 + (x - mean) / (6 sd) clipped, or their rank among the fitted values.
    neutral, scales, shift
        Set by `fit`: mean AQS of the fitted clips; (low, high) of H and of R, or all fitted values for ranks; what is
        added to H and R per device.

    Notes
    -----
    Given devices, H and R [dB] are first shifted so that every fitted device has the pooled mean; a device that was not
    fitted, or by fewer than 20 clips, is not shifted. A clip whose quality cannot be computed gets the fitted clips'
    mean AQS, and is counted in ``missing``. ``QualityScorer(**dataclasses.asdict(scorer))`` scores alike, and these
    fields fit into JSON.
    """

    alpha: float = 0.7
    beta: float = 0.3
    normalise: str = "none"
    neutral: float | None = None
    scales: list = dataclasses.field(default_factory=list)
    shift: dict = dataclasses.field(default_factory=dict)

    MIN_CLIPS = 20

    def __post_init__(self):
        if self.normalise not in NORMALISERS:
            raise QualityError(f"unknown normalise={self.normalise!r}: choose from {', '.join(NORMALISERS)}")
        self.missing = 0

    def fit(self, entropy, level, device=None) -> "QualityScorer":
        """Learn the rescaling from training clips' H and R [shape=(n,)], and a shift per device if n names are given.

        NaN and infinite values are left out. QualityError if no clip has both, or the lengths differ.
        """
        self.shift = {}
        h_r, known = self._columns(entropy, level, device)
        if not known.any():
            raise QualityError("no clip to fit the quality score on: every H or R is missing")
        if device is not None:
            names, finite = np.asarray(device, dtype=str), np.isfinite(h_r).all(0)
            for name in np.unique(names[finite]):
                same = finite & (names == name)
                if same.sum() >= self.MIN_CLIPS:
                    self.shift[str(name)] = [float(x[finite].mean() - x[same].mean()) for x in h_r]
            h_r, _ = self._columns(entropy, level, device)
        self.scales = [SCALES[self.normalise](x).tolist() for x in h_r[:, known]]
        self.neutral = float(self._aqs(h_r[:, known]).mean())
        return self

    def score(self, entropy, level, device=None) -> np.ndarray:
        """AQS in [0, 1] of each clip, neutral where it cannot be computed; QualityError if nothing is fitted yet."""
        if self.neutral is None:
            raise QualityError("the QualityScorer is not fitted: call fit(entropy, level) with training clips first")
        h_r, known = self._columns(entropy, level, device)
        self.missing = int((~known).sum())
        out = np.full(len(known), self.neutral)
        out[known] = self._aqs(h_r[:, known])
        return out

    def _columns(self, entropy, level, device):
        """H and R as float64 [2, n], shifted by device, and whether both are known [n]."""
        h, r = (np.asarray(x, dtype=np.float64).reshape(-1) for x in (entropy, level))
        if h.shape != r.shape or (device is not None and len(device) != len(h)):
            given = f"{len(h)} H, {len(r)} R" + ("" if device is None else f", {len(device)} devices")
            raise QualityError(f"H, R and device need one value for each clip, not {given}")
        shift = [self.shift.get(str(name), (0.0, 0.0)) for name in (() if device is None else device)]
        h_r = np.stack([h, r]) + (np.transpose(shift) if shift else 0)
        known = np.isfinite(h_r)
        if self.normalise == "none":
            known |= np.isneginf(h_r) & [[False], [True]]  # -inf dBFS is a linear level of 0
        return h_r, known.all(0)

    def _aqs(self, h_r: np.ndarray) -> np.ndarray:
        if self.normalise == "none":
            h, r = h_r[0], 10 ** (h_r[1] / 20)
        else:
            h, r = (self._rescale(x, scale) for x, scale in zip(h_r, self.scales, strict=True))
        return np.clip(1 - self.alpha * h + self.beta * r, 0, 1)

    def _rescale(self, x: np.ndarray, scale: list) -> np.ndarray:
        if self.normalise == "rank":
            return np.searchsorted(scale, x, side="right") / len(scale)
        low, high = scale
        return np.clip((x - low) / (high - low), 0, 1) if high > low else np.full_like(x, 0.5)


# Chosen by the rule written down before any training: among the definitions that clip under 5 % of ICBHI-train clips,
# the one whose mean and sd lie nearest to 0.45 +- 0.08. Notebook 02 applies the rule; a test on the real part holds it.
DEFAULT_DEFINITION = {"scope": "mean", "bins": "logmel", "power": 2.0}
RATE = 16000


def measure(corpus, definition: dict = DEFAULT_DEFINITION, audio: str = "clip") -> np.ndarray:
    """H and R [dBFS] of every event at 16 kHz: array [events, 2], cached, in ``corpus.events`` order.

    ``definition`` holds arguments of `spectral_entropy`. ``audio`` is the "clip", the model's input, cut or repeated to
    8 s; the "cycle", the event as long as it is; or the event's whole "recording".
    """
    key = {"corpus": corpus.fingerprint(), **definition, "audio": audio, "code": code_version("audio", "quality")}

    def entropy_and_level(clips: Tensor) -> np.ndarray:
        return torch.stack([spectral_entropy(clips, RATE, **definition), rms_dbfs(clips)], 1).double().numpy()

    @functools.cache
    def recording(path: str) -> np.ndarray:
        return entropy_and_level(torch.from_numpy(read(path, RATE)[0])[None])

    parts = {  # generators: only the one that is iterated over reads audio
        "clip": map_clips(corpus, RATE, 8.0, entropy_and_level),
        "cycle": (entropy_and_level(torch.from_numpy(clip)[None]) for _, clip in cut_clips(corpus, RATE, None)),
        "recording": (recording(path) for path in corpus.of_events("path")),
    }
    if audio not in parts:
        raise QualityError(f"unknown audio={audio!r}: choose from {', '.join(parts)}")
    return cached_array("quality", key, lambda: parts[audio], rows=len(corpus.events))
