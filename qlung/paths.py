"""Every place on disk, in one module; the working directory never matters."""

import os
import threading
from pathlib import Path

import filelock

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
EXPERIMENTS = ROOT / "experiments.toml"
CLAIMS = ROOT / "claims.toml"


def data_dir() -> Path:
    """Where the user's corpora lie: ``$QLUNG_DATA``, else ``data/`` in the repository."""
    return Path(os.environ.get("QLUNG_DATA") or ROOT / "data").expanduser()


def cache_dir() -> Path:
    """Where derived files lie: ``$QLUNG_CACHE``, else the XDG cache. Safe to delete."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("QLUNG_CACHE") or Path(base) / "qlung").expanduser()


def runs_dir(profile: str) -> Path:
    """Where one profile's results lie: ``$QLUNG_RUNS``/profile, else ``runs/``/profile in the repository."""
    return Path(os.environ.get("QLUNG_RUNS") or ROOT / "runs").expanduser() / profile


def write_atomically(path: Path, write) -> Path:
    """Call ``write(temporary_path)`` and move the result to ``path`` in one step, so no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}.part{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def lock(path: Path, timeout: float = -1) -> filelock.BaseFileLock:
    """Exclusive lock between processes, for ``with``; the system releases it when its holder is killed.

    ``path`` is the lock's own file; its folder is made. ``filelock.Timeout`` after ``timeout`` seconds; -1 waits for
    ever.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path, timeout)
