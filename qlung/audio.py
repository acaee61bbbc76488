"""From a recording on disk to the clip a model hears: read, resample, slice, pad."""

import numpy as np
import soundfile
import soxr
import torch

from .errors import AudioError

FADE_S = 1 / 16


def read(path: str, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Mono float32 samples, resampled by soxr (HQ) if a rate is given; a sample that is not finite becomes 0."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(
            f"cannot read '{path}': {error}. Run `qlung data verify` to see what else is damaged."
        ) from error
    if not len(samples):
        raise AudioError(f"'{path}' holds no samples")
    samples = np.nan_to_num(samples.mean(axis=1), nan=0.0, posinf=0.0, neginf=0.0)
    if sample_rate and sample_rate != rate:
        samples, rate = soxr.resample(samples, rate, sample_rate), sample_rate
    return samples, rate


def fade(samples: np.ndarray, rate: int, ends: str = "both") -> np.ndarray:
    """Linear fade over 1/16 s at both ends, or at the "end" only (the family's reference protocol)."""
    n = min(int(FADE_S * rate), len(samples))
    out, ramp = samples.copy(), np.linspace(0, 1, n, dtype=samples.dtype)
    if ends == "both":
        out[:n] *= ramp
    out[len(out) - n :] *= ramp[::-1]
    return out


def fit_length(clip: np.ndarray, rate: int, seconds: float) -> np.ndarray:
    """Cut a clip at ``seconds``, or repeat it to that length and fade the last repetition out."""
    n = round(rate * seconds)
    if len(clip) >= n:
        return clip[:n]
    return fade(np.tile(clip, -(-n // len(clip)))[:n], rate, "end")


def clips(corpus, sample_rate: int, seconds: float | None = 8.0):
    """Yield (event_id, samples float32) in the order of ``corpus.events``, each recording read once.

    Parameters
    ----------
    corpus : Corpus
    sample_rate : int [Hz]
    seconds : float or None
        Length of every clip; None leaves the event's own length.
    """
    for recording_id, events in corpus.events.groupby("recording_id", sort=False):
        path = corpus.recordings.set_index("recording_id").at[recording_id, "path"]
        samples = fade(read(path, sample_rate)[0], sample_rate)
        for event in events.itertuples():
            clip = samples[round(event.start_s * sample_rate) : round(event.end_s * sample_rate)]
            if not len(clip):
                raise AudioError(f"{event.event_id}: shorter than one sample at {sample_rate} Hz")
            yield event.event_id, clip if seconds is None else fit_length(clip, sample_rate, seconds)


def batches(corpus, sample_rate: int, seconds: float, size: int = 32):
    """Yield Tensors [<= size, samples] of equal-length clips, in the order of ``corpus.events``."""
    batch = []
    for _, clip in clips(corpus, sample_rate, seconds):
        batch.append(torch.from_numpy(clip))
        if len(batch) == size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
