"""The folder of a run: where it lies, what it holds while training, and what it holds when it is finished."""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch.nn import functional as F

from .. import paths
from ..cache import code_version
from ..errors import TrainingError
from .config import Config

CHECKPOINTS = ("checkpoint.safetensors", "checkpoint.previous.safetensors")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its folder, configuration and per-epoch history."""

    folder: Path
    config: Config
    history: pd.DataFrame

    def predictions(self) -> pd.DataFrame:
        """Predictions on every test corpus: corpus, event_id, recording_id, label, predicted, p0..p3, c0..c3."""
        return pd.read_parquet(self.folder / "predictions.parquet")

    def prototypes(self) -> torch.Tensor:
        """Class weights of unit length [shape=(4, d)]."""
        with safetensors.safe_open(self.folder / "model.safetensors", "pt") as file:
            return F.normalize(file.get_tensor("classifier.prototypes"), dim=1)


def run_folder(profile: str, config: Config, corpus, tests: dict) -> Path:
    """runs/<profile>/<backbone>-<method>/<hash of configuration, data and code>."""
    key = {
        "config": dataclasses.asdict(config),
        "data": [corpus.fingerprint(), *(test.fingerprint() for test in tests.values())],
        "code": code_version("corpora", "audio", "margins", "backbones", "quality", "evaluation", "training"),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return paths.runs_dir(profile) / f"{config.backbone}-{config.method}" / digest


def is_finished(folder: Path) -> bool:
    """Whether the run is complete: run.json is the last thing written."""
    return (folder / "run.json").is_file()


def open_run(folder: Path, config: Config) -> Run:
    """Read a finished run."""
    return Run(folder, config, pd.read_csv(folder / "history.csv"))


@contextlib.contextmanager
def disk_errors(folder: Path):
    """Answer a full disk or an unwritable folder; what was there before stays as it was."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainingError(
            f"cannot write the run to '{folder}': {reason}. Free some space or make it writable, or set QLUNG_RUNS to "
            "another folder; the same command then goes on from the last checkpoint. Finished runs are untouched."
        ) from error


@contextlib.contextmanager
def run_lock(folder: Path):
    """Wait until no other process trains this run. The lock goes with its holder, even when that is killed."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder.with_name(f".{folder.name}.lock"), "w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _save(path: Path, tensors: dict, metadata: dict | None = None) -> None:
    """Write tensors so that the file is on the disk, not only in its cache, before it gets its name."""

    def write(part: Path) -> None:
        plain = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
        safetensors.torch.save_file(plain, part, metadata)
        with open(part, "rb") as file:
            os.fsync(file.fileno())

    paths.write_atomically(path, write)


def save_checkpoint(folder: Path, model, optimiser, generator, best: dict, told: dict) -> None:
    """Everything a killed run needs to go on bit for bit; the checkpoint before it stays as a second chance.

    Parameters
    ----------
    best : dict of Tensor
        State of the chosen epoch, empty where the rule is "last".
    told : dict
        What is not a tensor, as JSON: history, state of the schedule and of the loss scaler, seconds so far.
    """
    state = optimiser.state_dict()
    tensors = {f"optimiser.{i}.{key}": v for i, slot in state["state"].items() for key, v in slot.items()}
    tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {"rng.torch": torch.get_rng_state(), "rng.generator": generator.get_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    metadata = {"told": json.dumps(told | {"groups": state["param_groups"]})}
    newest, previous = (folder / name for name in CHECKPOINTS)
    with disk_errors(folder):
        fresh = folder / "checkpoint.new.safetensors"
        _save(fresh, tensors, metadata)
        if newest.is_file():
            os.replace(newest, previous)
        os.replace(fresh, newest)


def load_checkpoint(folder: Path, model, optimiser, generator, progress) -> tuple[dict, dict]:
    """(best, told) of the newest sound checkpoint after restoring the rest in place; two empty dicts where none is."""
    for path in (folder / name for name in CHECKPOINTS):
        if not path.is_file():
            continue
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                told = json.loads(file.metadata()["told"])
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            progress(f"'{path.name}' is damaged ({error}): going on from what is before it")
            continue
        part = {kind: {} for kind in ("model", "optimiser", "best", "rng")}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            part[kind][rest] = value
        try:
            model.load_state_dict(part["model"])
        except RuntimeError as error:
            raise TrainingError(f"'{path}' is of another model: {error}. Delete that file to start over.") from error
        slots, parameters = {}, optimiser.param_groups[0]["params"]
        for name, value in part["optimiser"].items():
            index, key = name.split(".")
            if value.ndim:  # the parameter's own memory layout, or Adam's last bit may differ
                value = torch.empty_like(parameters[int(index)]).copy_(value)
            slots.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": slots, "param_groups": told["groups"]})
        generator.set_state(part["rng"]["generator"])
        torch.set_rng_state(part["rng"]["torch"])
        if "cuda" in part["rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(part["rng"]["cuda"])
        return part["best"], told
    return {}, {}


def publish(folder: Path, model, history: pd.DataFrame, predictions: pd.DataFrame | None, record: dict) -> None:
    """Write a finished run; run.json comes last and makes it one."""
    with disk_errors(folder):
        if predictions is not None:
            paths.write_atomically(folder / "predictions.parquet", predictions.to_parquet)
        paths.write_atomically(folder / "history.csv", lambda part: history.to_csv(part, index=False))
        _save(folder / "model.safetensors", model.state_dict())
        paths.write_atomically(folder / "run.json", lambda part: part.write_text(json.dumps(record, indent=1)))
        for left in (*folder.glob("checkpoint.*"), *folder.glob(".*.part.*")):  # the second kind of killed processes
            left.unlink()


def provenance() -> dict:
    """Code version with dirty flag, package versions and machine."""

    def git(*args):
        try:
            return subprocess.run(["git", *args], cwd=paths.ROOT, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607
        except OSError:
            return ""

    names = ("torch", "torchaudio", "numpy", "pandas", "soxr", "soundfile", "accelerate", "transformers")
    return {
        "commit": git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(git("status", "--porcelain")),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in names},
        "threads": torch.get_num_threads(),
    }
