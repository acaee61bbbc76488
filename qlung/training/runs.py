"""The folder of a run: where it lies, what it holds while training, and what it holds when it is finished."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import os
import pickle
import platform
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch

from .. import paths
from ..cache import code_version
from ..errors import TrainingError
from .config import Config

CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")
PACKAGES = ("torch", "torchaudio", "numpy", "pandas", "soxr", "soundfile", "accelerate", "transformers")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its folder, configuration and per-epoch history."""

    folder: Path
    config: Config
    history: pd.DataFrame

    def predictions(self) -> pd.DataFrame:
        """Predictions on every test corpus: corpus, event_id, recording_id, label, predicted, p0..p3, c0..c3."""
        with _whole(self.folder):
            return pd.read_parquet(self.folder / "predictions.parquet")


def run_folder(profile: str, config: Config, corpus, tests: dict) -> Path:
    """runs/<profile>/<backbone>-<method>/<hash of configuration, data and code>."""
    key = {
        "config": dataclasses.asdict(config),
        "data": [part.fingerprint() for part in (corpus, *tests.values())],
        "code": code_version("corpora", "audio", "margins", "backbones", "quality", "evaluation", "training"),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return paths.runs_dir(profile) / f"{config.backbone}-{config.method}" / digest


def is_finished(folder: Path) -> bool:
    """Whether the run is complete: run.json is the last thing written."""
    return (folder / "run.json").is_file()


@contextlib.contextmanager
def _whole(folder: Path):
    """Turn what a finished run lacks, or what cannot be read of it, into a TrainingError."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        hint = f"Delete the folder to train it again: '{folder}'"
        raise TrainingError(f"a finished run is damaged: {type(error).__name__}: {error}. {hint}") from error


def open_run(folder: Path, config: Config) -> Run:
    """Read a finished run."""
    with _whole(folder):
        json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]
        return Run(folder, config, pd.read_csv(folder / "history.csv"))


@contextlib.contextmanager
def disk_errors(folder: Path):
    """Turn a full disk or an unwritable folder into a TrainingError; what was there before stays as it was."""
    try:
        yield
    except OSError as error:
        hint = "Make room, or set QLUNG_RUNS to another folder; the same command then goes on. Finished runs stay"
        raise TrainingError(f"cannot write the run to '{folder}': {error.strerror or error}. {hint}.") from error


@contextlib.contextmanager
def run_lock(folder: Path):
    """Wait until no other process trains this run, and keep others from training it."""
    with contextlib.ExitStack() as stack:
        with disk_errors(folder):
            stack.enter_context(paths.lock(folder.with_name(f".{folder.name}.lock")))
        yield


def _write_synced(path: Path, content: bytes) -> None:
    """Write a file, and give it its name once it is on the disk and not only in the disk's cache."""

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    paths.write_atomically(path, write)


def save_checkpoint(folder: Path, state: dict) -> None:
    """Write what a killed run needs to go on; the checkpoint before it stays as a second chance.

    Parameters
    ----------
    state : dict
        Tensors, numbers, strings, and lists and dicts of them: what ``torch.load(weights_only=True)`` reads.
    """
    content = io.BytesIO()  # on a full disk torch.save would complain of its own file's position
    newest, previous = (folder / name for name in CHECKPOINTS)
    with disk_errors(folder):
        torch.save(state, content)
        if newest.is_file():
            os.replace(newest, previous)
        with content.getbuffer() as view:  # left to the garbage collector after an error it crashes Python 3.12.1
            _write_synced(newest, view)


def load_checkpoint(folder: Path, progress) -> dict:
    """State of the newest undamaged checkpoint, on the CPU; empty where there is none.

    A damaged one is reported to ``progress(line)`` and passed over.
    """
    for path in (folder / name for name in CHECKPOINTS if (folder / name).is_file()):
        try:
            with zipfile.ZipFile(path) as file:  # torch.load does not compare the checksums that torch.save writes
                if damaged := file.testzip():
                    raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            return torch.load(path, map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError) as error:
            progress(f"'{path.name}' is damaged ({error}): going on from what is before it")
    return {}


def publish(folder: Path, model, history: pd.DataFrame, predictions: pd.DataFrame | None, record: dict) -> None:
    """Write a finished run; run.json is written last; its presence marks the run as finished."""
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    with disk_errors(folder):
        if predictions is not None:
            paths.write_atomically(folder / "predictions.parquet", predictions.to_parquet)
        _write_synced(folder / "history.csv", history.to_csv(index=False).encode())
        _write_synced(folder / "model.safetensors", safetensors.torch.save(tensors))
        _write_synced(folder / "run.json", json.dumps(record, indent=1).encode())
        for left in (*folder.glob("checkpoint.*"), *folder.glob(".*.part.*")):  # the second kind of killed processes
            left.unlink()


def processor() -> str:
    """The processor's name, and the instructions that torch uses: on another one the same run gives other digits."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8") if os.path.exists("/proc/cpuinfo") else ""
    names = [*re.findall(r"model name\s*: (.*)", facts), platform.processor(), platform.machine()]
    return f"{next(filter(None, names))} ({torch.backends.cpu.get_cpu_capability()})"


def provenance() -> dict:
    """Code version with dirty flag, package versions and machine."""

    def git(*args) -> str:
        job = ["git", "-C", str(paths.ROOT), *args]
        return subprocess.run(job, capture_output=True, text=True).stdout.strip() if shutil.which("git") else ""  # noqa: S603

    ours = git("rev-parse", "--show-toplevel") == str(paths.ROOT)  # and not a repository that holds an unpacked copy
    return {
        "commit": git("rev-parse", "HEAD") if ours else "unknown",
        "dirty": bool(git("status", "--porcelain")) if ours else None,
        "python": platform.python_version(), "threads": torch.get_num_threads(), "processor": processor(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }  # fmt: skip
