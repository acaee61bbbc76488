"""Cost of the losses, as ratios measured in one run: prints JSON.

Forward and backward, from features to the gradient of features and prototypes, on one thread. The contestants take
turns, so a busy machine slows both. ``saved_mb`` is what autograd keeps between forward and backward; ``peak_mb`` is
how far a fresh process's memory rises above its level before the first step.

    python benchmarks/margins.py            # about a minute
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from pytorch_metric_learning.losses import ArcFaceLoss
from torch.nn import functional as F

from qlung.margins import AngularClassifier, QLungLoss, arcface

DIM = 768
SIZES = [(b, c) for b in (8, 256, 4096) for c in (4, 1000)]
PAIRS = {
    "arcface / pytorch-metric-learning": ("arcface", "theirs"),
    "qlung / normalised cross-entropy": ("qlung", "plain"),
}


def contestants(batch: int, classes: int) -> dict:
    """name -> a function that runs one forward and backward pass."""
    torch.manual_seed(0)
    features = torch.randn(batch, DIM, requires_grad=True)
    target, aqs = torch.randint(classes, (batch,)), torch.rand(batch)
    head, theirs = AngularClassifier(DIM, classes), ArcFaceLoss(classes, DIM, margin=28.65, scale=37.0)
    qlung = QLungLoss(torch.arange(10, 10 + classes))

    def plain():
        cosine = F.linear(F.normalize(features), F.normalize(head.prototypes))
        return F.cross_entropy(37.0 * cosine, target)

    losses = {
        "arcface": lambda: arcface(head(features), target, margin=0.5, scale=37.0),
        "theirs": lambda: theirs(features, target),
        "qlung": lambda: qlung(head(features), target, aqs),
        "plain": plain,
    }

    def step(loss):
        features.grad = head.prototypes.grad = theirs.W.grad = None
        loss().backward()

    return {name: (lambda loss=loss: step(loss)) for name, loss in losses.items()}


def seconds(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def saved_bytes(function) -> int:
    """Bytes of the distinct storages that autograd keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(kept.values())


def compare(batch: int, classes: int, budget_s: float) -> list[dict]:
    """Per pair: median ratio of times with quartiles, and both memories."""
    runs = contestants(batch, classes)
    for function in runs.values():
        function()
    once = sum(seconds(function) for function in runs.values())
    times = [
        {name: seconds(function) for name, function in runs.items()}
        for _ in range(min(300, max(7, int(budget_s / once))))
    ]
    rows = []
    for pair, (ours, other) in PAIRS.items():
        ratios = [row[ours] / row[other] for row in times]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows.append({
            "pair": pair, "B": batch, "C": classes, "repeats": len(times),
            "ratio": round(statistics.median(ratios), 3), "quartiles": [round(low, 3), round(high, 3)],
            "ms": [round(1e3 * statistics.median(row[name] for row in times), 3) for name in (ours, other)],
            "saved_mb": [round(saved_bytes(runs[name]) / 2**20, 2) for name in (ours, other)],
        })  # fmt: skip
    return rows


def peak_mb(name: str, batch: int, classes: int) -> float:
    """Rise of this process's peak memory over three steps, after a small step has loaded every kernel."""
    contestants(8, 4)[name]()
    function = contestants(batch, classes)[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        function()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each size")
    parser.add_argument("--peak", nargs=3, metavar=("NAME", "B", "C"), help="only this contestant's peak memory")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.peak:
        print(round(peak_mb(given.peak[0], int(given.peak[1]), int(given.peak[2])), 1))
        return
    # Peaks first: a child process starts from the high-water mark of its parent.
    peaks, largest = {}, [size for size in SIZES if size[0] == max(SIZES)[0]]
    for name in ("arcface", "theirs", "qlung", "plain"):
        for size in largest:
            command = [sys.executable, __file__, "--peak", name, *map(str, size)]
            peaks[name, *size] = float(subprocess.check_output(command, text=True))
    rows = [row for batch, classes in SIZES for row in compare(batch, classes, given.seconds)]
    for row in rows:
        if (row["B"], row["C"]) in largest:
            row["peak_mb"] = [peaks[name, row["B"], row["C"]] for name in PAIRS[row["pair"]]]
    print(json.dumps({"torch": torch.__version__, "dim": DIM, "threads": 1, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
