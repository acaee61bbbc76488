"""Cost of the audio-quality score: throughput, memory, its share of a training step. Prints one JSON object.

    python benchmarks/quality.py [repeats]

Everything is timed on one thread in one process, alternating, and the fastest of the repeats is kept: on a shared
machine the ratios vary less than the times. The lower bound is the FFT alone, over the same frames.
"""

import json
import platform
import resource
import sys
import time

import librosa
import numpy as np
import scipy.stats
import torch
from torch.nn import functional as F

from qlung import quality, training
from qlung.errors import WeightsError
from qlung.margins import Objective
from qlung.quality import indicators
from qlung.training import Model

RATE, SECONDS, CLIPS = 16000, 8.0, 16
DEFINITIONS = {
    "default (mean, log-mel)": quality.DEFAULT_DEFINITION,
    "mean, power": {"scope": "mean"},
    "frames, power": {},
}


def per_clip_librosa(clips: np.ndarray) -> None:
    """H (frames, power) and R the way most notebooks compute them: one clip at a time."""
    for clip in clips:
        spectrum = np.abs(librosa.stft(y=clip, n_fft=512, hop_length=160, win_length=400, center=False)) ** 2
        np.mean(scipy.stats.entropy(spectrum, base=len(spectrum), axis=0))
        20 * np.log10(librosa.feature.rms(y=clip, frame_length=len(clip), hop_length=len(clip), center=False).mean())


def fastest(jobs: dict, repeats: int) -> dict[str, float]:
    """Seconds of each job, the fastest of ``repeats`` rounds that go through all of them."""
    best = dict.fromkeys(jobs, np.inf)
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def training_step(backbone: str, batch: int = CLIPS):
    """One step of QLung on features in memory, as in training.fit: forward, loss, backward, Adam."""
    config = training.Config(backbone=backbone, batch_size=batch)
    model, objective = Model(config), Objective(config, [4, 3, 2, 1])
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr)
    wave = 0.1 * torch.randn(batch, int(SECONDS * model.encoder.front_end.sample_rate))
    inputs, target, aqs = model.encoder.front_end(wave), torch.arange(batch) % 4, torch.full((batch,), 0.5)

    def step():
        optimiser.zero_grad()
        objective(*model(inputs), target, aqs)[0].backward()
        optimiser.step()

    return step, lambda: model.encoder.front_end(wave)


def growth_mb(clips: int) -> float:
    """Growth of this process's peak memory while scoring that many clips, one batch at a time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(clips // CLIPS):
        quality.spectral_entropy(0.1 * torch.randn(CLIPS, int(RATE * SECONDS)), RATE, **quality.DEFAULT_DEFINITION)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main(repeats: int = 7) -> dict:
    """Measure everything; a backbone without its weights is left out, and the output names it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    growth = growth_mb(64), growth_mb(640)  # first: a peak reached by training would hide it
    wave = 0.1 * torch.randn(CLIPS, int(RATE * SECONDS))
    padded = F.pad(wave.unfold(-1, 400, 160), (0, 112)).contiguous()
    small = 0.1 * torch.randn(CLIPS, int(indicators.RATE * SECONDS))
    clips = wave.numpy()
    jobs = {name: lambda chosen=chosen: (quality.spectral_entropy(wave, RATE, **chosen), quality.rms_dbfs(wave))
            for name, chosen in DEFINITIONS.items()}  # fmt: skip
    jobs |= {
        "FFT alone": lambda: torch.fft.rfft(padded),
        "per-clip librosa (frames, power)": lambda: per_clip_librosa(clips),
        "learned_cheap's features": lambda: indicators.band_features(small),
        "the eight indicators": lambda: indicators.signal_scores(small),
    }
    left_out = []
    for backbone in ("cnn", "mn04"):
        try:
            jobs[f"{backbone} step"], jobs[f"{backbone} front end"] = training_step(backbone)
        except WeightsError as error:
            left_out.append(f"{backbone}: {error}")
    seconds = fastest(jobs, repeats)
    aqs = seconds["default (mean, log-mel)"]
    steps = [name for name in jobs if name.endswith(" step")]
    return {
        "machine": platform.processor() or platform.machine(), "threads": 1, "repeats": repeats,
        "batch": f"{CLIPS} clips of {SECONDS:g} s at {RATE} Hz",
        "milliseconds": {name: round(1e3 * s, 2) for name, s in seconds.items()},
        "times_real_time": {name: round(CLIPS * SECONDS / seconds[name]) for name in [*DEFINITIONS, "FFT alone"]},
        "times_faster_than_librosa": round(seconds["per-clip librosa (frames, power)"] / seconds["frames, power"], 2),
        "share_of_bound": {name: round(seconds["FFT alone"] / seconds[name], 2) for name in DEFINITIONS},
        "aqs_online_percent_of_step": {name: round(100 * aqs / seconds[name], 1) for name in steps},
        "aqs_online_percent_of_step_and_front_end": {
            name: round(100 * aqs / (seconds[name] + seconds[name.replace("step", "front end")]), 1) for name in steps
        },
        "aqs_cached_or_at_inference_percent": 0,  # training looks values up, prediction takes none
        "peak_memory_growth_mb": {"64 clips": growth[0], "640 more": growth[1]},
        "left_out": left_out,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:])), indent=1))
