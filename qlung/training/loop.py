"""Train one configuration: what it is, and the loop."""

import contextlib
import dataclasses
import math
import os
import resource
import time

import accelerate
import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import nn
from torch.nn import functional as F

from ..audio import frontends
from ..corpora import CLASSES
from ..errors import ConfigError, TrainingError
from ..evaluation import icbhi_score
from ..margins import Objective
from ..quality import sources
from . import runs
from .config import Config
from .model import Model, outputs, predict
from .runs import Run, run_folder

DIVERGED = 1e4  # far above any loss on cosines (about 2 * 37), and above any a linear head recovers from


class Trainer:
    """What a run needs before its first step, and what a checkpoint keeps of it."""

    def __init__(self, config: Config, corpus, tests: dict, device, world: int = 1):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        model = Model(config).to(device, memory_format=torch.channels_last)
        several_gpus = world > 1 and device.type == "cuda"
        self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if several_gpus else model
        with torch.random.fork_rng(devices=[]):  # a front end that builds a network must not move the seed
            self._prepare(config, corpus, tests, model.encoder.front_end)
        self.objective = Objective(config, self.counts).to(device)
        weights = self.objective.weights
        self.weight = torch.ones(len(self.x)) if weights is None else weights.cpu()[self.target]
        lr, steps = config.lr * (1 - config.ma_update), config.epochs * math.ceil(len(self.rows) / config.batch_size)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, steps, eta_min=lr / 1000)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.history, self.chosen, self.best, self.seconds = [], {}, {}, 0.0

    def _prepare(self, config: Config, corpus, tests: dict, front_end) -> None:
        """Features, targets and weights of the corpus, the rows to train on, and what an epoch is chosen by."""
        self.x, self.target = frontends.extract(corpus, front_end), torch.tensor(corpus.events["label"].to_numpy())
        rows, self.judged = np.arange(len(self.x)), None
        if config.checkpoint == "val":
            patients = corpus.recordings.set_index("recording_id")["patient_id"]
            folds = StratifiedGroupKFold(5, shuffle=True, random_state=config.seed)
            rows, held = next(folds.split(rows, self.target, corpus.events["recording_id"].map(patients)))
            self.judged = (self.x[held], self.target[held].numpy())
        elif config.checkpoint == "best_on_test":
            test = next(iter(tests.values()))
            self.judged = (frontends.extract(test, front_end), test.events["label"].to_numpy())
        values, self.quality = sources.training_quality(
            corpus, config.quality, config.alpha, config.beta, config.normalise, config.seed, rows
        )
        self.rows, self.aqs = torch.from_numpy(rows), torch.zeros(len(self.x))
        self.aqs[rows] = torch.tensor(values, dtype=torch.float32)
        self.counts = self.target[self.rows].bincount(minlength=4).tolist()

    def save(self, folder) -> None:
        told = {name: getattr(self, name) for name in ("history", "chosen", "seconds")}
        told |= {"schedule": self.schedule.state_dict(), "scaler": self.scaler.state_dict()}
        runs.save_checkpoint(folder, self.model, self.optimiser, self.generator, self.best, told)

    def load(self, folder, progress) -> None:
        """Go on from the newest sound checkpoint, if there is one."""
        best, told = runs.load_checkpoint(folder, self.model, self.optimiser, self.generator, progress)
        if told:
            self.best, self.history, self.chosen = best, told["history"], told["chosen"]
            self.seconds = told["seconds"]
            self.schedule.load_state_dict(told["schedule"])
            self.scaler.load_state_dict(told["scaler"])

    def judge(self) -> None:
        """Score the epoch as the checkpoint rule says, and keep its weights if it is the best so far."""
        score = icbhi_score(self.judged[1], outputs(self.model, self.judged[0])[0].argmax(1)).score
        self.history[-1]["score"] = score
        if score > self.chosen.get("score", -1):
            self.chosen = {"epoch": self.history[-1]["epoch"], "score": score}
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def fit(
    config: Config, corpus, tests: dict | None = None, profile: str = "demo", progress=lambda epoch, line: None
) -> Run:
    """Train on ``corpus``, predict every corpus in ``tests``, and leave one folder.

    A finished folder is reused; a killed run goes on from its last whole epoch, on a CPU with as many threads
    as before bit for bit. Under ``torchrun`` every process takes its share of each batch, and the first one writes.

    Parameters
    ----------
    config : Config
    corpus : Corpus
        Training events; every class must occur.
    tests : dict of name -> Corpus, optional
        Only predicted with the chosen weights; never looked at in training unless checkpoint="best_on_test".
    profile : str
        First folder under runs/.
    progress : callable
        Receives the epoch's number and a line, after every epoch.

    Raises
    ------
    ConfigError, MarginError, WeightsError, TrainingError
    """
    tests = tests or {}
    folder = run_folder(profile, config, corpus, tests)
    if runs.is_finished(folder):
        return runs.open_run(folder, config)
    if config.checkpoint == "best_on_test":
        if not tests:
            raise ConfigError("checkpoint='best_on_test' needs a test corpus; 'last' and 'val' do not")
        progress(0, f"{config.name}: the epoch is chosen by the TEST labels, to measure that bias and for nothing else")
    state = accelerate.PartialState(cpu=not torch.cuda.is_available())
    if config.precision == "fp16" and state.device.type == "cpu":
        raise ConfigError("precision='fp16' needs a GPU: on a CPU choose 'bf16' or 'fp32'")
    with runs.run_lock(folder) if state.is_main_process else contextlib.nullcontext():
        state.wait_for_everyone()  # nobody reads a checkpoint before the lock is held
        if not runs.is_finished(folder):
            _train(config, corpus, tests, folder, state, progress)
        state.wait_for_everyone()
    return runs.open_run(folder, config)


def _train(config: Config, corpus, tests: dict, folder, state, progress) -> None:
    """The loop. Accelerate says which device and which of how many processes this is; the rest is plain PyTorch."""
    started, device, rank, world = time.perf_counter(), state.device, state.process_index, state.num_processes
    with state.main_process_first():  # the others find its cache
        run = Trainer(config, corpus, tests, device, world)
    if not config.pretrained:
        progress(0, f"{config.name}: weights {run.model.encoder.weights}")
    run.load(folder, lambda line: progress(0, line))
    model, optimiser = run.model, run.optimiser
    masks = frontends.MASKS.get(model.encoder.front_end.recipe) if config.augment else None
    half = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    net = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True) if world > 1 else model
    net = torch.compile(net) if config.compile else net
    for epoch in range(len(run.history) + 1, config.epochs + 1):
        if rank:  # its own dropout, the same after a resume; the first process has its state in the checkpoint
            torch.manual_seed(config.seed + 1000 * epoch + rank)
        net.train()
        table = []
        for batch in run.rows[torch.randperm(len(run.rows), generator=run.generator)].split(config.batch_size):
            inputs = torch.from_numpy(run.x[batch.numpy()]).to(device).float()  # half the bytes to the device
            inputs = frontends.spec_augment(inputs, run.generator, masks) if masks else inputs
            optimiser.zero_grad()
            seen = 0
            for first in range(rank, world * config.accumulate, world):
                part = torch.arange(len(batch))[first :: world * config.accumulate]
                real, part = len(part) > 0, part if len(part) else torch.tensor([0])  # DDP wants every process to step
                clips = batch[part]
                share = (real * run.weight[clips].sum() / run.weight[batch].sum()).to(device)  # 1 for a whole batch
                y, aqs = run.target[clips].to(device), run.aqs[clips].to(device)
                with torch.autocast(device.type, half, enabled=half is not None):
                    logits, cosine, size = net(inputs[part])
                loss, plain, margin = run.objective(logits, cosine, size, y, aqs)
                run.scaler.scale(world * share * loss).backward()  # DDP takes the mean over processes
                seen = seen + _measures(share * loss, share * plain, margin, logits, cosine, y, real, len(batch))
            run.scaler.unscale_(optimiser)
            norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            if not seen[0] < DIVERGED or not (norm.isfinite() or run.scaler.is_enabled()):  # NaN compares false
                raise TrainingError(
                    f"{config.name} diverged in epoch {epoch}, step {len(table) + 1}: loss {seen[0].item():.3g}, "
                    f"gradient norm {norm.item():.3g}. Lower lr ({config.lr}). Finished runs are untouched."
                )
            run.scaler.step(optimiser)
            run.scaler.update()
            run.schedule.step()
            table.append(torch.cat([seen, norm[None] / world]))
        run.history.append({"epoch": epoch, **_summary(table, world), "lr": run.schedule.get_last_lr()[0]})
        if state.is_main_process:
            if run.judged:
                run.judge()
            run.seconds, started = run.seconds + time.perf_counter() - started, time.perf_counter()
            run.save(folder)
            progress(epoch, f"{config.name} epoch {epoch}/{config.epochs} loss {run.history[-1]['loss']:.3f}")
    if state.is_main_process:
        _finish(run, config, corpus, tests, folder, world)


def _measures(loss, plain, margin, logits, cosine, y, real: bool, size: int) -> torch.Tensor:
    """What history tells of a part of a batch: its terms of the batch's means, then angles and clips by class."""
    theta = cosine.detach().gather(1, y[:, None])[:, 0].clamp(-1, 1).acos().rad2deg()
    right, one = (logits.argmax(1) == y).float(), F.one_hot(y, 4).float()
    means = torch.stack([loss, plain, *(real * value.sum() / size for value in (right, theta, margin))])
    return torch.cat([means, real * theta @ one, real * one.sum(0)]).detach()


def _summary(table: list, world: int) -> dict:
    """One epoch's row of history from its steps' measures."""
    steps = torch.stack(table).double()
    if world > 1:
        torch.distributed.all_reduce(steps)
    steps = steps.cpu().numpy()
    names = ("loss", "loss_cls", "train_accuracy", "theta_deg", "margin_rad")
    row = dict(zip(names, steps.mean(0).tolist(), strict=False))
    by_class = (steps[:, 5:9].sum(0) / steps[:, 9:13].sum(0)).tolist()
    row |= {f"theta_{name}": angle for name, angle in zip(CLASSES, by_class, strict=True)}
    return row | {"grad_norm": float(steps[:, 13].mean()), "grad_norm_sd": float(np.std(steps[:, 13]))}


def _finish(run: Trainer, config: Config, corpus, tests: dict, folder, world: int) -> None:
    """Predict with the chosen weights and publish the run."""
    if run.best:
        run.model.load_state_dict(run.best)
    predicted = [predict(run.model, test).assign(corpus=name) for name, test in tests.items()]
    record = runs.provenance() | {
        "config": dataclasses.asdict(config), "data": corpus.fingerprint(), "train_counts": run.counts,
        "tests": {name: test.fingerprint() for name, test in tests.items()}, "weights": run.model.encoder.weights,
        "chosen": run.chosen or "last epoch", "device": next(run.model.parameters()).device.type, "processes": world,
        "missing_quality": run.quality["missing"], "quality": run.quality, "wall_s": round(run.seconds, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip
    table = pd.concat(predicted, ignore_index=True) if predicted else None
    runs.publish(folder, run.model, pd.DataFrame(run.history), table, record)
