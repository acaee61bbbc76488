"""Training against a plain loop with the same mathematics, and what a step of every encoder costs. Prints JSON.

    python benchmarks/training.py [--full-size]

Both loops run in one process, in turns, on synthetic clips, so that their ratio means more than their times. The plain
loop is what one writes first: float32, contiguous memory, and each clip's features computed whenever it is needed.
``--full-size`` adds two real steps of AST and CLAP with random weights, each in a process of its own.
"""

import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

from qlung import audio, load_corpus, quality, training
from qlung.audio import frontends
from qlung.margins import Objective
from qlung.training import Model
from qlung.training.loop import Trainer

EPOCHS, CLIPS = 3, 24  # clips of each class


def plain(config, corpus) -> tuple[list, list]:
    """(mean loss, seconds) of every epoch of the plain loop."""
    torch.manual_seed(config.seed)
    generator, model = torch.Generator().manual_seed(config.seed), Model(config)
    front_end, objective = model.encoder.front_end, Objective(config, corpus.counts())
    waves = [torch.from_numpy(clip) for _, clip in audio.cut_clips(corpus, front_end.sample_rate)]
    target = torch.tensor(corpus.events["label"].to_numpy())
    measured = quality.measure(corpus)
    aqs = torch.tensor(quality.QualityScorer().fit(*measured.T).score(*measured.T), dtype=torch.float32)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps = config.epochs * -(-len(waves) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=config.lr / 1000)
    losses, seconds = [], []
    for _ in range(config.epochs):
        started, seen = time.perf_counter(), []
        for batch in torch.randperm(len(waves), generator=generator).split(config.batch_size):
            outputs = model(torch.cat([front_end(waves[i][None]) for i in batch]))
            loss = objective(*outputs, target[batch], aqs[batch])[0]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            seen.append(loss.item())
        losses.append(float(np.mean(seen)))
        seconds.append(time.perf_counter() - started)
    return losses, seconds


def ours(config, corpus) -> tuple[list, list, float]:
    """(mean loss, seconds) of every epoch of qlung.training.fit, and the share of it spent on loading batches."""
    ticks = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as home:
        os.environ["QLUNG_RUNS"] = home
        run = training.fit(config, corpus, progress=lambda epoch, line: ticks.append(time.perf_counter()))
    seconds = np.diff(ticks).tolist()  # the first has the set-up in it, features among it
    x = Trainer(config, corpus, {}, torch.device("cpu")).x
    started = time.perf_counter()
    for batch in torch.randperm(len(x)).split(config.batch_size):
        torch.from_numpy(x[batch.numpy()]).float()
    loading = (time.perf_counter() - started) / min(seconds[1:])
    return run.history["loss"].tolist(), seconds, loading


def compare(backbone: str, corpus) -> dict:
    """Seconds per clip of both loops (least of the epochs), their ratio and how far their losses are apart."""
    config = training.Config(backbone=backbone, epochs=EPOCHS, batch_size=16, lr=1e-3, augment=False)
    n = len(corpus.events)
    plain_loss, plain_s = plain(config, corpus)
    our_loss, our_s, loading = ours(config, corpus)
    return {
        "clips": n, "ms_per_clip": round(1000 * min(our_s[1:]) / n, 2),
        "ms_per_clip_plain": round(1000 * min(plain_s) / n, 2), "ratio": round(min(plain_s) / min(our_s[1:]), 2),
        "setup_s": round(our_s[0] - min(our_s[1:]), 2), "loading_share": round(loading, 4),
        "largest_loss_difference": round(float(np.abs(np.array(plain_loss) / our_loss - 1).max()), 4),
    }  # fmt: skip


def front_ends() -> dict:
    """Milliseconds per 8 s clip of the front ends and of the quality measure, on clips in memory."""
    jobs = {
        "ast_fbank": lambda: frontends.ast_fbank(wave), "quality": lambda: quality.spectral_entropy(
            wave, 16000, **quality.DEFAULT_DEFINITION),
        "mn_logmel": lambda: frontends.mn_logmel(wave.repeat(1, 2)),
        "clap_logmel": lambda: frontends.clap_logmel(wave.repeat(1, 3)),
    }  # fmt: skip
    out, wave = {}, 0.1 * torch.randn(16, 128000)
    for name, job in jobs.items():
        times = []
        for _ in range(4):
            started = time.perf_counter()
            job()
            times.append(time.perf_counter() - started)
        out[name] = round(1000 * min(times) / len(wave), 2)
    return out


def full_size(backbone: str) -> dict:
    """Two optimisation steps at full size, batch 2, random weights."""
    torch.manual_seed(0)
    config = training.Config(backbone=backbone, pretrained=False)
    model, objective = Model(config), Objective(config, [2063, 1215, 501, 363])
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr)
    x = model.encoder.front_end(0.1 * torch.randn(2, int(8 * model.encoder.front_end.sample_rate)))
    seconds, losses = [], []
    for _ in range(2):
        started = time.perf_counter()
        loss = objective(*model(x), torch.tensor([0, 2]), torch.tensor([0.4, 0.5]))[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seconds.append(round(time.perf_counter() - started, 2))
        losses.append(round(loss.item(), 3))
    parameters = sum(p.numel() for p in model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"parameters": parameters, "batch": 2, "step_s": seconds, "loss": losses, "peak_memory_mb": peak}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(full_size(sys.argv[2])))
        return
    corpus = load_corpus("synthetic").select("train")
    corpus = dataclasses.replace(corpus, events=corpus.events.groupby("label").head(CLIPS).reset_index(drop=True))
    report = {
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0], "processor": platform.processor()},
        "threads": torch.get_num_threads(), "torch": torch.__version__, "ms_per_clip": front_ends(),
        **{name: compare(name, corpus) for name in ("cnn", "mn04")},
    }  # fmt: skip
    if "--full-size" in sys.argv:
        for name in ("ast", "clap"):
            job = [sys.executable, __file__, "--one", name]
            report[name] = json.loads(subprocess.run(job, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
