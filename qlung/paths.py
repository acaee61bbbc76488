"""Every place on disk, in one module; the working directory matters only to an installed wheel."""

import contextlib
import os
import threading
from pathlib import Path

import filelock
import joblib

from .errors import QlungError

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "experiments.toml").is_file():
    ROOT = Path.cwd()  # an installed wheel must not write beside itself
NOTEBOOKS = ROOT / "notebooks"
EXPERIMENTS = ROOT / "experiments.toml"
CLAIMS = ROOT / "claims.toml"


def _named(variable: str) -> Path | None:
    """The place that an environment variable names; a relative one lies in the repository, wherever a process runs."""
    value = os.environ.get(variable)
    return ROOT / Path(value).expanduser() if value else None


def data_dir() -> Path:
    """Where the user's corpora lie: ``$QLUNG_DATA``, else ``data/`` in the repository."""
    return _named("QLUNG_DATA") or ROOT / "data"


def cache_dir() -> Path:
    """Where derived files lie: ``$QLUNG_CACHE``, else the XDG cache. Safe to delete."""
    if named := _named("QLUNG_CACHE"):
        return named
    try:
        return (_named("XDG_CACHE_HOME") or Path.home() / ".cache") / "qlung"
    except RuntimeError as error:
        raise QlungError("there is no home directory for the cache: set QLUNG_CACHE to a folder") from error


def runs_dir(profile: str) -> Path:
    """Where one profile's results lie: ``$QLUNG_RUNS``/profile, else ``runs/``/profile in the repository."""
    return (_named("QLUNG_RUNS") or ROOT / "runs") / profile


def cores() -> int:
    """Cores that this process may use: of the machine, by affinity and container limits, and of a Slurm task."""
    return max(1, min(joblib.cpu_count(), int(os.environ.get("SLURM_CPUS_PER_TASK") or 10**6)))


@contextlib.contextmanager
def naming(path: Path):
    """Let an error of the system name the file also where the system doesn't: a full disk, no locks."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_atomically(path: Path, write) -> Path:
    """Call ``write(temporary_path)`` and move the result to ``path`` in one step, so no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}.part{path.suffix}")
    try:
        with naming(path):
            write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def lock(path: Path, timeout: float = -1):
    """Exclusive lock between processes; the system releases it when its holder is killed.

    ``path`` is the lock's own file; its folder is made. QlungError after ``timeout`` seconds; -1 waits for ever.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path):
            held = filelock.FileLock(path, timeout).acquire()
    except filelock.Timeout as error:
        raise QlungError(f"another process works on '{path.parent}': wait for it, or stop it") from error
    with held:
        yield
