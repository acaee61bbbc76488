"""Train one configuration: the loop, and what a run keeps between its steps."""

import contextlib
import dataclasses
import functools
import math
import os
import resource
import time

import accelerate
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ..audio import frontends
from ..corpora import CLASSES
from ..corpora.splits import all_seen, grouped_folds
from ..errors import ConfigError, TrainingError
from ..evaluation import icbhi_score
from ..margins import Objective
from ..quality import sources
from . import runs
from .config import Config
from .model import Model, predict

DIVERGED = 1e4  # far above any loss on cosines (about 2 * 37), and above any a linear head recovers from
HALF = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
STATEFUL = ("model", "optimiser", "schedule", "scaler")  # what a checkpoint keeps of a Trainer: states of these, ...
KEPT = ("history", "chosen", "best", "seconds")  # ... and these as they are


class Trainer:
    """Model, loss, optimiser and training clips of a run; `state` is what its checkpoints keep."""

    def __init__(self, config: Config, corpus, tests: dict, device, world: int = 1):
        self.device, self.generator = device, torch.Generator().manual_seed(config.seed)
        self.model = Model(config).to(device, memory_format=torch.channels_last)
        if world > 1 and device.type == "cuda":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.corpus, self.validation = corpus, None
        if config.checkpoint == "val":
            fold = grouped_folds(corpus, 5, config.seed)[0]
            self.corpus, self.validation = fold.select("train"), fold.select("test")
        elif config.checkpoint == "best_on_test":
            self.validation = next(iter(tests.values()))
        self.target = torch.tensor(self.corpus.events["label"].to_numpy())
        self.counts = self.target.bincount(minlength=4).tolist()
        self.objective = Objective(config, self.counts).to(device)  # before features: it refuses a missing class
        front_end, scorer = self.model.encoder.front_end, (config.alpha, config.beta, config.normalise)
        with torch.random.fork_rng(devices=[]):  # a front end that builds a network must not move the seed
            self.x, filled = self.model.features(self.corpus)
            aqs, self.quality = sources.training_quality(self.corpus, config.quality, *scorer, config.seed)
        self.filled = None if filled is None else torch.from_numpy(filled)
        self.aqs = torch.tensor(aqs, dtype=torch.float32)
        self.config, self.recipe = config, front_end.recipe
        weights = self.objective.class_weights
        self.weight = torch.ones(len(self.x)) if weights is None else weights.cpu()[self.target]
        lr, steps = config.lr * (1 - config.ma_update), config.epochs * math.ceil(len(self.x) / config.batch_size)
        rates = [(self.model.encoder.parameters(), lr), (self.model.head_parameters(), config.head_lr * lr)]
        groups = [{"params": list(parameters), "lr": rate} for parameters, rate in rates]
        self.optimiser = torch.optim.Adam(groups, weight_decay=config.weight_decay)
        rate = functools.partial(share_of_rate, steps=steps, rising=round(config.warm_up * steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, rate)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.history, self.chosen, self.best, self.seconds = [], {}, {}, 0.0

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        """Features of a batch on the device, changed at random as the configuration wants it."""
        x = torch.from_numpy(self.x[batch.numpy()]).to(self.device).float()  # half the bytes to the device
        c, random, bands = self.config, self.generator, frontends.BANDS.get(self.recipe)
        heard = c.crop_s / self.model.encoder.front_end.seconds or 1.0
        if heard < 1:
            x = frontends.crop(x, random, 3 - bands, heard)
        if c.tilt_db:
            x = frontends.tilt(x, random, bands, c.tilt_db * frontends.DECIBEL[self.recipe])
        if c.band_mix and torch.rand(1, generator=random) < c.band_mix:
            x = frontends.mix_bands(x, random, bands)
        if c.augment and c.masks and self.recipe in frontends.MASKS:
            longest = [c.masks * size for size in frontends.MASKS[self.recipe]]
            longest[2 - bands] *= heard  # of time
            x = frontends.spec_augment(x, random, longest)
        return x

    def order(self) -> torch.Tensor:
        """The clips of an epoch: all of them once, or as many drawn from balanced groups."""
        if not self.config.balance:
            return torch.randperm(len(self.x), generator=self.generator)
        group = self.corpus.events["label"].astype(str)
        if self.config.balance == "device":
            group = group + self.corpus.of_events("listed_device")
        share = torch.tensor((1 / group.map(group.value_counts())).to_numpy())
        return torch.multinomial(share, len(self.x), replacement=True, generator=self.generator)

    def set_mode(self, epoch: int) -> None:
        """Training mode, but for what this epoch leaves as it was pretrained."""
        probing, encoder = epoch <= self.config.probe_epochs, self.model.train().encoder
        encoder.train(not probing).requires_grad_(not probing)
        for block in encoder.features[: self.config.frozen_blocks] if self.config.frozen_blocks else ():
            block.eval().requires_grad_(False)
        for layer in self.model.modules() if self.config.batch_norm == "frozen" else ():
            if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
                layer.eval()

    def update_best(self) -> None:
        """Keep the weights of the best epoch on the validation set; without one, the mean of the last epochs'."""
        if self.validation is None:
            if (n := self.config.average) > 1 and len(self.history) > self.config.epochs - n:
                state = self.model.state_dict().items()
                self.best = {name: self.best.get(name, 0) + value.detach() / n for name, value in state}
            return
        table = predict(self.model, self.validation)
        score = float(icbhi_score(table["label"], table["predicted"]).score)
        self.history[-1]["score"] = score
        if score > self.chosen.get("score", -1):
            self.chosen = {"epoch": self.history[-1]["epoch"], "score": score}
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def state(self) -> dict:
        """Everything that a killed run needs to go on bit for bit, random numbers among it."""
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        state |= {name: getattr(self, name) for name in KEPT}
        cuda_rng = torch.cuda.get_rng_state() if self.device.type == "cuda" else None
        return state | {"generator": self.generator.get_state(), "rng": torch.get_rng_state(), "cuda_rng": cuda_rng}

    def resume(self, folder, progress) -> None:
        """Go on from the newest undamaged checkpoint, if there is one."""
        if state := runs.load_checkpoint(folder, progress):
            for name in STATEFUL:
                getattr(self, name).load_state_dict(state[name])
            vars(self).update({name: state[name] for name in KEPT})
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["rng"])
            if state["cuda_rng"] is not None:
                torch.cuda.set_rng_state(state["cuda_rng"])


def share_of_rate(step: int, steps: int, rising: int = 0) -> float:
    """The learning rate of a step as a share of the largest: a linear rise, then a cosine down to a thousandth."""
    if step < rising:
        return (step + 1) / rising
    return 0.001 + 0.999 * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


@contextlib.contextmanager
def reproducible(seed: int):
    """Seeded random numbers and deterministic algorithms inside; the process is as before afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # costs an eighth of a step
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.utils.deterministic.fill_uninitialized_memory = fill
            if workspace is None:
                del os.environ["CUBLAS_WORKSPACE_CONFIG"]


def fit(config: Config, corpus, tests=None, profile: str = "demo", progress=lambda epoch, line: None) -> runs.Run:
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
    if seen := [name for name, test in tests.items() if all_seen(corpus, test)]:
        patients = tests[seen[0]].recordings["patient_id"].nunique()
        found = f"all {patients} patients of test '{seen[0]}' are in the training corpus '{corpus.name}', too"
        raise ConfigError(f"{found}: test on other patients, or train on another corpus")
    folder = runs.run_folder(profile, config, corpus, tests)
    if runs.is_finished(folder):
        return runs.open_run(folder, config)
    if config.checkpoint == "best_on_test":
        if not tests:
            raise ConfigError("checkpoint='best_on_test' needs a test corpus; 'last' and 'val' do not")
        progress(0, f"{config.name}: the epoch is chosen by the TEST labels, to measure that bias and for nothing else")
    if "WORLD_SIZE" in os.environ:  # of torchrun, or left over
        if "MASTER_ADDR" not in os.environ:
            raise ConfigError("WORLD_SIZE is set without MASTER_ADDR: unset it, or start the processes with torchrun")
        progress(0, f"waiting for {os.environ['WORLD_SIZE']} processes (WORLD_SIZE; unset it if this is the only one)")
    state = accelerate.PartialState(cpu=not torch.cuda.is_available())
    if config.precision == "fp16" and state.device.type == "cpu":
        raise ConfigError("precision='fp16' needs a GPU: on a CPU choose 'bf16' or 'fp32'")
    with runs.run_lock(folder) if state.is_main_process else contextlib.nullcontext():
        state.wait_for_everyone()  # nobody reads a checkpoint before the lock is held
        if not runs.is_finished(folder):
            with reproducible(config.seed):
                _train(config, corpus, tests, folder, state, progress)
        state.wait_for_everyone()
    return runs.open_run(folder, config)


def _train(config: Config, corpus, tests: dict, folder, state, progress) -> None:
    """The loop. Accelerate names the device and which of how many processes this is; the rest is plain PyTorch."""
    started, device, rank, world = time.perf_counter(), state.device, state.process_index, state.num_processes
    with state.main_process_first():  # the others find its cache
        run = Trainer(config, corpus, tests, device, world)
    if not config.pretrained:
        progress(0, f"{config.name}: weights {run.model.encoder.weights}")
    run.resume(folder, lambda line: progress(0, line))
    half = HALF[config.precision]
    net = nn.parallel.DistributedDataParallel(run.model, find_unused_parameters=True) if world > 1 else run.model
    for epoch in range(len(run.history) + 1, config.epochs + 1):
        if rank:  # its own dropout, the same after a resume; the first process has its state in the checkpoint
            torch.manual_seed(config.seed + 1000 * epoch + rank)
        run.set_mode(epoch)
        sums, norms = [], []
        for batch in run.order().split(config.batch_size):
            features = run.features(batch)
            run.optimiser.zero_grad()
            for part, share, is_last in micro_batches(run.weight[batch], rank, world, config.accumulate):
                clips, share = batch[part], share.to(device)
                target, aqs = run.target[clips].to(device), run.aqs[clips].to(device)
                exchange = world == 1 or is_last  # processes exchange gradients once per step, not once per part
                with contextlib.nullcontext() if exchange else net.no_sync():
                    with torch.autocast(device.type, half, enabled=half is not None):
                        filled = None if run.filled is None else run.filled[clips].to(device)
                        logits, cosine, norm = net(features[part], filled)
                    loss, loss_cls, margin = run.objective(logits, cosine, norm, target, aqs)
                    run.scaler.scale(world * share * loss).backward()  # DDP takes the mean over processes
                sums.append(_part_sums(share, len(batch), loss, loss_cls, margin, logits, cosine, target))
            run.scaler.unscale_(run.optimiser)
            norms.append(nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None]))
            step_loss = sum(part["loss"] for part in sums[-config.accumulate :])
            if not step_loss < DIVERGED or not (norms[-1].isfinite() or run.scaler.is_enabled()):  # NaN compares false
                found = f"loss {step_loss.item():.3g}, gradient norm {norms[-1].item():.3g}. Lower lr ({config.lr})"
                raise TrainingError(f"{config.name} diverged in epoch {epoch}, step {len(norms)}: {found}.")
            run.scaler.step(run.optimiser)
            run.scaler.update()
            if norms[-1].isfinite():  # else fp16 has skipped the step
                run.schedule.step()
        run.history.append({"epoch": epoch, **_epoch_means(sums, norms, world), "lr": run.schedule.get_last_lr()[0]})
        if state.is_main_process:
            run.update_best()
            run.seconds, started = run.seconds + time.perf_counter() - started, time.perf_counter()
            runs.save_checkpoint(folder, run.state())
            progress(epoch, f"{config.name} epoch {epoch}/{config.epochs} loss {run.history[-1]['loss']:.3f}")
    if state.is_main_process:
        _finish(run, config, corpus, tests, folder, world)


def micro_batches(weight: torch.Tensor, rank: int, world: int, accumulate: int):
    """This process's parts of a batch: (positions in it, share of the batch's mean loss, whether it is the last part).

    Parameters
    ----------
    weight : Tensor [shape=(B,)]
        How much each clip counts in the mean.
    """
    firsts = range(rank, world * accumulate, world)
    for first in firsts:
        part = torch.arange(len(weight))[first :: world * accumulate]
        share = weight[part].sum() / weight.sum()
        # DDP needs every process in every step: without a clip of its own it computes the first one, with share 0.
        yield part if len(part) else torch.tensor([0]), share, first == firsts[-1]


def _part_sums(share, size: int, loss, loss_cls, margin, logits, cosine, target) -> dict[str, torch.Tensor]:
    """What a part adds to the history of its step: terms of means over ``size`` clips; angles and clips per class."""
    counted = (share > 0).float()  # a clip of share 0 is no clip of this process
    theta = cosine.detach().gather(1, target[:, None])[:, 0].clamp(-1, 1).acos().rad2deg()
    one_hot = F.one_hot(target, len(CLASSES)).float()
    return {
        "loss": share * loss.detach(), "loss_cls": share * loss_cls,
        "train_accuracy": counted * (logits.argmax(1) == target).float().sum() / size,
        "theta_deg": counted * theta.sum() / size, "margin_rad": counted * margin.sum() / size,
        "theta_per_class": counted * theta @ one_hot, "clips_per_class": counted * one_hot.sum(0),
    }  # fmt: skip


def _epoch_means(sums: list[dict], norms: list[torch.Tensor], world: int) -> dict[str, float]:
    """One epoch's row of history: means over its steps, after the processes have added up their parts.

    Steps that fp16 skipped have no gradient norm; where there are any, their number is in the row.
    """
    table = {name: torch.stack([part[name] for part in sums]).double() for name in sums[0]}
    for column in table.values() if world > 1 else ():
        torch.distributed.all_reduce(column)
    total = {name: column.cpu().numpy().sum(0) for name, column in table.items()}
    angles = total.pop("theta_per_class") / total.pop("clips_per_class")
    row = {name: float(value / len(norms)) for name, value in total.items()}
    row |= {f"theta_{name}": float(angle) for name, angle in zip(CLASSES, angles, strict=True)}
    taken = pd.Series(torch.stack(norms).double().cpu().numpy()).loc[np.isfinite]
    skipped = {"skipped_steps": len(norms) - len(taken)} if len(taken) < len(norms) else {}
    return row | {"grad_norm": float(taken.mean()), "grad_norm_sd": float(taken.std(ddof=0))} | skipped


def _finish(run: Trainer, config: Config, corpus, tests: dict, folder, world: int) -> None:
    """Predict with the chosen weights and publish the run."""
    if run.best:
        run.model.load_state_dict(run.best)
    predicted = [predict(run.model, test).assign(corpus=name) for name, test in tests.items()]
    record = runs.provenance() | {
        "config": dataclasses.asdict(config), "data": corpus.fingerprint(), "train_counts": run.counts,
        "tests": {name: test.fingerprint() for name, test in tests.items()}, "weights": run.model.encoder.weights,
        "chosen": run.chosen or "last epoch", "device": run.device.type, "processes": world,
        "missing_quality": run.quality["missing"], "quality": run.quality, "wall_s": round(run.seconds, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip
    table = pd.concat(predicted, ignore_index=True) if predicted else None
    runs.publish(folder, run.model, pd.DataFrame(run.history), table, record)
