"""A sweep with one worker and with two, single-threaded jobs on synthetic recordings; prints JSON.

    python benchmarks/sweep.py [runs]

Each run is a small CNN trained in a notebook of its own; run folders are new each time. The machine sets an upper bound
of the ratio: what two single-threaded processes gain over one, measured in the same call with matrix products.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # counted when torch is imported

from qlung.book.sweep import plan, sweep

TABLE = """
[profiles.demo]
corpora = ["synthetic-icbhi", "synthetic-sprsound"]
[profiles.demo.backbones.cnn]
methods = ["qlung"]
seeds = {seeds}
epochs = 30
batch_size = 16
lr = 1e-3
"""
WORK = "import numpy as n; a = n.random.rand(700, 700)\nfor _ in range(150): a @ a"


def timed(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def products(processes: int) -> None:
    """So many processes at once, each computing the same matrix products."""
    single = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    jobs = [subprocess.Popen([sys.executable, "-c", WORK], env=single) for _ in range(processes)]
    for job in jobs:
        job.wait()


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.toml"
        table.write_text(TABLE.format(seeds=list(range(runs))), encoding="utf-8")
        plan("demo", "", str(table))
        for jobs in (1, 2):
            os.environ["QLUNG_RUNS"] = str(Path(folder) / str(jobs))
            seconds[jobs] = timed(lambda jobs=jobs: sweep("demo", table=str(table), jobs=jobs))
    one, two = timed(lambda: products(1)), timed(lambda: products(2))
    print(json.dumps({
        "runs": runs, "one_worker_s": round(seconds[1], 1), "two_workers_s": round(seconds[2], 1),
        "ratio": round(seconds[1] / seconds[2], 2), "bound_of_this_machine": round(2 * one / two, 2),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
