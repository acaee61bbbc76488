"""A simulated run over very much audio: many small shards through Dask, some lost on the way, none done twice.

    python benchmarks/shards.py [shards] [clips per shard]

Each shard is made from its number (noise with a breath's rhythm), scored as every clip of this companion is, and
written as one Parquet file named by the hash of its input. The plan is run twice, the first time with a worker killed
half-way; the second time nothing is left to do. Prints JSON: what scoring takes, and everything around it, per shard.
"""

import collections
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from distributed import as_completed

from qlung import quality
from qlung.book.engine import connect
from qlung.paths import write_atomically

SECONDS = 8


def score_shard(number: int, clips: int, folder: str) -> tuple[int, float, float]:
    """(process, seconds in all, seconds of scoring) of one shard; nothing is done if its file is there."""
    started = time.perf_counter()
    target = Path(folder) / f"{hashlib.sha256(f'shard {number} of {clips}'.encode()).hexdigest()[:16]}.parquet"
    if target.is_file():
        return os.getpid(), time.perf_counter() - started, 0.0
    samples = np.random.default_rng(number).standard_normal((clips, SECONDS * quality.RATE), dtype=np.float32)
    breath = 0.02 + 0.1 * np.abs(np.sin(np.linspace(0, 8, samples.shape[1], dtype=np.float32)))
    waves = torch.from_numpy(samples * breath)
    before = time.perf_counter()
    h, r = quality.spectral_entropy(waves, quality.RATE, **quality.DEFAULT_DEFINITION), quality.rms_dbfs(waves)
    scoring = time.perf_counter() - before
    table = pd.DataFrame({"shard": number, "clip": range(clips), "entropy": h, "rms_dbfs": r})
    write_atomically(target, lambda part: table.to_parquet(part, index=False))
    return os.getpid(), time.perf_counter() - started, scoring


def run(shards: int, clips: int, folder: str, kill: bool) -> dict:
    """Submit every shard; with ``kill``, end one worker process when half of them are back."""
    started, times, answers = time.perf_counter(), [], collections.Counter()
    with connect(tasks=2, jobs=2) as client:
        started_workers = time.perf_counter() - started
        keys = [f"shard-{number}" for number in range(shards)]
        futures = client.map(score_shard, range(shards), clips=clips, folder=folder, key=keys, retries=3)
        for count, future in enumerate(as_completed(futures)):
            process, whole, scoring = future.result()
            answers[process] += 1
            times.append((whole, scoring))
            if kill and count == shards // 2:
                os.kill(process, 9)
    seconds = time.perf_counter() - started - started_workers
    whole, scoring = np.array(times).sum(0)
    return {
        "seconds": round(seconds, 2), "start_of_workers_s": round(started_workers, 2), "workers_seen": len(answers),
        "shards_per_second": round(shards / seconds, 1),
        "scoring_ms_per_clip": round(1e3 * scoring / shards / clips, 2),
        "overhead_ms_per_shard": round(1e3 * (2 * seconds - scoring) / shards, 1),
        "in_worker_ms_per_shard": round(1e3 * whole / shards, 1),
    }  # fmt: skip


def main() -> None:
    shards, clips = (int(argument) for argument in (*sys.argv[1:], *("1000", "4")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        first = run(shards, clips, folder, kill=True)
        stamps = {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("*.parquet")}
        again = run(shards, clips, folder, kill=False)
        unchanged = stamps == {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("*.parquet")}
        rows = sum(len(pd.read_parquet(path)) for path in Path(folder).glob("*.parquet"))
    print(json.dumps({
        "shards": shards, "clips_per_shard": clips, "with_a_killed_worker": first, "again": again,
        "every_clip_scored_once": rows == shards * clips, "second_run_wrote_nothing": unchanged,
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
