"""Two processes under torchrun equal one process with the same batch, and exchange gradients once per step."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from qlung import load_corpus, training

# 20 clips: the second batch has one clip for two processes of two parts, so three parts are empty.
CONFIG = training.Config(backbone="ast", method="qlung", epochs=3, batch_size=19, accumulate=2, lr=1e-3)


def small_corpus(root: str):
    corpus = load_corpus("icbhi", root).select("train")
    return dataclasses.replace(corpus, events=corpus.events.groupby("label").head(5).reset_index(drop=True))


def main(root: str) -> None:
    """What each process runs: train, and count how often gradients are exchanged."""
    exchanges = []

    class Counted(nn.parallel.DistributedDataParallel):
        def __init__(self, *given, **settings):
            super().__init__(*given, **settings)
            self.register_comm_hook(None, count)

    def count(state, bucket):
        exchanges.append(bucket.index())
        return default_hooks.allreduce_hook(None, bucket)

    plain, nn.parallel.DistributedDataParallel = nn.parallel.DistributedDataParallel, Counted
    try:
        run = training.fit(CONFIG, small_corpus(root))
    finally:
        nn.parallel.DistributedDataParallel = plain
    if torch.distributed.get_rank() == 0:
        (run.folder / "exchanges.txt").write_text(str(exchanges.count(0)), encoding="utf-8")


def test_two_processes_equal_one(synthetic_root, tmp_path, monkeypatch):
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    network = transformers.ASTModel(transformers.ASTConfig(**shape, frequency_stride=16, time_stride=16))
    network.save_pretrained(tmp_path / "weights" / "ast")
    monkeypatch.setenv("QLUNG_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / "one"))
    one = training.fit(CONFIG, small_corpus(str(synthetic_root)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    settings = {"QLUNG_RUNS": str(tmp_path / "two"), "OMP_NUM_THREADS": "1"}
    job = subprocess.run(
        [*launch, __file__, str(synthetic_root)], env=os.environ | settings, capture_output=True, text=True, timeout=120
    )
    assert job.returncode == 0, job.stderr
    (folder,) = (path.parent for path in tmp_path.glob("two/demo/*/*/run.json"))
    assert folder.name == one.folder.name
    assert json.loads((folder / "run.json").read_text())["processes"] == 2
    assert int((folder / "exchanges.txt").read_text(encoding="utf-8")) == 3 * 2  # epochs times steps, not parts
    two = training.runs.open_run(folder, CONFIG)
    np.testing.assert_allclose(two.history, one.history, rtol=2e-3)
    expected, before = load_file(one.folder / "model.safetensors"), network.state_dict()
    moved = 0.0
    for name, value in load_file(folder / "model.safetensors").items():
        if name.endswith("k_proj.bias"):  # softmax doesn't see it: its gradient is rounding, which Adam makes large
            continue
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
        old = before.get(name.removeprefix("encoder.network."))
        if old is not None and old.shape == value.shape:
            moved = max(moved, float((value - old).abs().max()))
    assert moved > 2e-3  # training moved the weights far further than the two may differ


if __name__ == "__main__":
    main(sys.argv[1])
