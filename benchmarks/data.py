"""Data preparation compared with the recipe of public code for this task, in one run; prints JSON.

    python benchmarks/data.py [DIR]      # DIR holds icbhi/ in its owners' layout; without it, the synthetic corpus

The reference reads a recording, resamples all of it with torchaudio's windowed sinc, fades it, cuts the cycles, pads
each to 8 s and calls ``torchaudio.compliance.kaldi.fbank`` one clip at a time. Ratios are reference / ours. Nothing
else should run on the machine. The cache is a temporary folder, empty at the cold start.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr
import torch
from torchaudio import functional
from torchaudio.compliance import kaldi

from qlung import audio, load_corpus
from qlung.audio import frontends
from qlung.audio.clips import FEW
from qlung.corpora import synthetic

FRONT_END = frontends.FrontEnd("ast", 16000)
RATE = FRONT_END.sample_rate


def timed(function):
    """(seconds of wall clock, seconds of processor time over all threads, result)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def reference_fbank(clip: torch.Tensor) -> torch.Tensor:
    """One clip [n] as the reference makes it: [frames, 128]."""
    mel = kaldi.fbank(clip[None], htk_compat=True, sample_frequency=RATE, use_energy=False, window_type="hanning",
                      num_mel_bins=128, dither=0.0, frame_shift=10)  # fmt: skip
    return (mel - frontends.AST_MEAN) / (2 * frontends.AST_STD)


def reference_read(path: str) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return functional.resample(torch.from_numpy(samples.mean(1)), rate, RATE).numpy()


def reference_preparation(corpus) -> np.ndarray:
    """Features of every event by the reference recipe, float16 as ours are."""
    out = []
    for recording in corpus.recordings.itertuples():
        samples = audio.fade(reference_read(recording.path), RATE)
        events = corpus.events[corpus.events["recording_id"] == recording.recording_id]
        for event in events.itertuples():
            clip = samples[round(event.start_s * RATE) : round(event.end_s * RATE)]
            padded = torch.from_numpy(audio.fit_length(clip, RATE, FRONT_END.seconds))
            out.append(reference_fbank(padded).to(torch.float16).numpy())
    return np.stack(out)


def front_end(corpus, clips: int = 160, rounds: int = 3) -> dict:
    """Our batched filter bank compared with torchaudio's, on one thread, alternating; best of ``rounds``."""
    torch.set_num_threads(1)
    few = [torch.from_numpy(clip) for _, clip in zip(range(clips), (c for _, c in audio.cut_clips(corpus, RATE)))]  # noqa: B905
    groups = [torch.stack(few[i : i + FEW]) for i in range(0, clips, FEW)]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(timed(lambda: torch.cat([frontends.ast_fbank(group, RATE) for group in groups])))
        theirs.append(timed(lambda: torch.stack([reference_fbank(clip) for clip in few])))
    difference = (ours[-1][2] - theirs[-1][2]).abs().max().item()
    best = min(wall for wall, *_ in ours), min(wall for wall, *_ in theirs)
    return {"clips": clips, "ours_ms_a_clip": 1000 * best[0] / clips, "reference_ms_a_clip": 1000 * best[1] / clips,
            "ratio": best[1] / best[0], "max_abs_difference": difference}  # fmt: skip


def whole(root: Path) -> dict:
    """Cold start from the files, compared with the reference; then a warm start."""

    def prepare():
        corpus = load_corpus("icbhi", root)
        return corpus, frontends.extract(corpus, FRONT_END)

    cold, busy, (corpus, ours) = timed(prepare)
    reference, _, theirs = timed(lambda: reference_preparation(corpus))
    first, *_ = timed(prepare)
    warm = min(timed(prepare)[0] for _ in range(3))
    difference = np.abs(ours.astype(np.float32) - theirs.astype(np.float32))
    return {
        "recordings": len(corpus.recordings), "events": len(corpus.events), "cores": os.cpu_count(), "cold_s": cold,
        "cores_busy": busy / cold, "reference_s": reference, "ratio": reference / cold, "first_warm_s": first,
        "warm_s": warm, "warm_ratio": cold / warm, "features_mean_abs_difference": float(difference.mean()),
    }  # fmt: skip


def resampler() -> dict:
    """soxr and torchaudio's default sinc, 44.1 to 16 kHz: a tone in the band, and one that must be removed."""
    t, out = np.arange(44100) / 44100, {}
    for pitch in (1000, 7000, 7500, 8500, 9000):
        tone = np.sin(2 * np.pi * pitch * t).astype(np.float32)
        sinc = functional.resample(torch.from_numpy(tone), 44100, RATE).numpy()
        for name, made in (("soxr", soxr.resample(tone, 44100, RATE)), ("torchaudio", sinc)):
            level = np.sqrt(2 * np.mean(made[RATE // 4 : -RATE // 4] ** 2))
            out[f"{name}_{pitch}_hz_db"] = round(20 * float(np.log10(level + 1e-9)), 2)
    return out


def repeated(corpus, times: int):
    """The corpus several times over, under other names."""

    def again(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
        copies = [table.assign(**{c: f"{i}_" + table[c] for c in columns}) for i in range(times)]
        return pd.concat(copies, ignore_index=True)

    recordings, events = again(corpus.recordings, "recording_id"), again(corpus.events, "recording_id", "event_id")
    return dataclasses.replace(corpus, recordings=recordings, events=events)


def growth(root: Path) -> list[dict]:
    """Peak memory and time of preparing 12 recordings 1, 4 and 16 times over, each in a process of its own."""
    rows = []
    for times in (1, 4, 16):
        child = subprocess.run([sys.executable, __file__, str(root), str(times)], capture_output=True, check=True)
        rows.append(json.loads(child.stdout))
    return rows


def peak_mb() -> float:
    """This process's largest resident size so far; unlike ru_maxrss, it does not start at the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def grow_once(root: Path, times: int) -> dict:
    corpus = load_corpus("icbhi", root)
    # the longest recordings, so that the first round already holds the largest pieces
    few = corpus.recordings.nlargest(12, "duration_s")["recording_id"]
    part = dataclasses.replace(
        corpus, recordings=corpus.recordings[corpus.recordings["recording_id"].isin(few)],
        events=corpus.events[corpus.events["recording_id"].isin(few)],
    )  # fmt: skip
    before = peak_mb()
    seconds, busy, array = timed(lambda: frontends.extract(repeated(part, times), FRONT_END))
    return {"times": times, "events": len(array), "seconds": seconds, "cores_busy": busy / seconds,
            "array_mb": array.nbytes / 1e6, "before_mb": before, "peak_mb": peak_mb()}  # fmt: skip


def main() -> None:
    if len(sys.argv) > 2:
        print(json.dumps(grow_once(Path(sys.argv[1]), int(sys.argv[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QLUNG_CACHE"] = folder
        named = sys.argv[1:]
        root = Path(named[0]) if named else synthetic.ensure(Path(folder) / "synthetic")
        found = {"corpus": f"icbhi in {root}" if named else "synthetic-icbhi: no folder was named"}
        found["preparation"] = whole(root)
        found["front_end"] = front_end(load_corpus("icbhi", root))
        found["resampler"], found["growth"] = resampler(), growth(root)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
