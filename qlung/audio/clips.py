"""From a recording on disk to a model's input clip: read, resample, slice, pad."""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soundfile
import soxr
import torch

from .. import paths
from ..errors import AudioError

FADE_S = 1 / 16
FEW = 2  # clips at a time through a front end: its intermediate arrays then stay in the processor's cache


def read(path: str, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Mono float32 samples, resampled by soxr (HQ) if a rate is given; a sample that is not finite becomes 0."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"cannot read '{path}': {error}. `qlung data verify` shows what else is damaged.") from error
    if not len(samples):
        raise AudioError(f"'{path}' holds no samples")
    samples = mono(samples)
    if sample_rate and sample_rate != rate:
        samples, rate = soxr.resample(samples, rate, sample_rate), sample_rate
    return samples, rate


def mono(samples: np.ndarray) -> np.ndarray:
    """Mean of the channels [shape=(n, channels)] -> [shape=(n,)], without silent ones; what is not finite becomes 0."""
    if samples.shape[1] > 1 and samples.any():
        samples = samples[:, samples.any(axis=0)]  # a silent channel would only halve the level
    samples = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(samples).all():
        samples = np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return samples


def fade(samples: np.ndarray, rate: int, ends: str = "both") -> np.ndarray:
    """A copy with a linear fade over 1/16 s at both ends, or at the "end" only (the family's reference protocol)."""
    samples, n = samples.copy(), min(int(FADE_S * rate), len(samples))
    ramp = np.linspace(0, 1, n, dtype=samples.dtype)
    if ends == "both":
        samples[:n] *= ramp
    samples[len(samples) - n :] *= ramp[::-1]
    return samples


def fit_length(clip: np.ndarray, rate: int, seconds: float, pad: str = "repeat") -> np.ndarray:
    """Cut a clip at ``seconds``, or pad it to that length.

    Parameters
    ----------
    pad : {"repeat", "silence", "reflect"}
        Repeat the clip, with the last repetition faded out (the paper's way; the length can be heard as a rhythm); add
        zeros; or play it forwards and backwards in turn.
    """
    n = round(rate * seconds)
    if len(clip) >= n:
        return clip[:n]
    if pad == "silence":
        return np.pad(clip, (0, n - len(clip)))
    if pad == "reflect":
        return np.pad(clip, (0, n - len(clip)), mode="symmetric")
    return fade(np.resize(clip, n), rate, "end")


def cut(recording, events, sample_rate: int, seconds: float | None, pad: str = "repeat") -> list[np.ndarray]:
    """The clips of one recording: read, resampled, faded as a whole, sliced at its events, cut or padded."""
    samples = fade(read(recording.path, sample_rate)[0], sample_rate)
    out = []
    for event_id, start, end in zip(events["event_id"], events["start_s"], events["end_s"], strict=True):
        clip = samples[round(start * sample_rate) : round(end * sample_rate)]
        if not len(clip):
            raise AudioError(f"{event_id}: no sample at {sample_rate} Hz: too short, or past the end")
        out.append(clip if seconds is None else fit_length(clip, sample_rate, seconds, pad))
    return out


def _in_order(function, jobs):
    """``function(*job)`` of every job in threads, in order, a few jobs per core at a time: memory stays bounded.

    Reading, resampling and torch's kernels all release the interpreter's lock, so threads use every core. Each of them
    gets one torch thread, or they would get into each other's way; the caller's setting comes back at the end.
    """
    workers, before = paths.cores(), torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            while some := list(itertools.islice(jobs, 4 * workers)):
                yield from pool.map(function, *zip(*some, strict=True))
    finally:
        torch.set_num_threads(before)


def _jobs(corpus):
    """(recording, its events) for each sequence of events of one recording, in the order of ``corpus.events``."""
    recordings = {row.recording_id: row for row in corpus.recordings.itertuples()}
    names = corpus.events["recording_id"]
    for _, events in corpus.events.groupby((names != names.shift()).cumsum(), sort=False):
        yield recordings[events["recording_id"].iat[0]], events


def cut_clips(corpus, sample_rate: int, seconds: float | None = 8.0):
    """Yield (event_id, samples float32) in the order of ``corpus.events``, each recording read once.

    Every clip is ``seconds`` long; None leaves the event's own length. AudioError if a recording can no longer be read,
    or an event holds no sample.
    """
    cuts = _in_order(functools.partial(cut, sample_rate=sample_rate, seconds=seconds), _jobs(corpus))
    yield from zip(corpus.events["event_id"], itertools.chain.from_iterable(cuts), strict=True)


def map_clips(corpus, sample_rate: int, seconds: float, function, pad: str = "repeat"):
    """Iterate over ``function(Tensor [k, n]) -> array [k, ...]`` of each recording's clips, in order, on all cores.

    Peak memory does not depend on the number of recordings. ``function`` runs in threads and must be pure.
    """

    def work(recording, events):
        clips = cut(recording, events, sample_rate, seconds, pad)
        groups = (np.stack(clips[first : first + FEW]) for first in range(0, len(clips), FEW))
        return np.concatenate([function(torch.from_numpy(few)) for few in groups])

    return _in_order(work, _jobs(corpus))


def batches(corpus, sample_rate: int, seconds: float, size: int = 32):
    """Yield Tensors [<= size, samples] of equal-length clips, in the order of ``corpus.events``."""
    stream = (clip for _, clip in cut_clips(corpus, sample_rate, seconds))
    while batch := list(itertools.islice(stream, size)):
        yield torch.from_numpy(np.stack(batch))
