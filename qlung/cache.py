"""The cache on disk: arrays and facts about files, keyed on content, checked against damage, safe to delete.

An array ends with the SHA-256 of all before it, which every process checks when it first opens the array, and again
when the file has changed. A file of which facts are kept counts as unchanged while its size, modification time and
change time are what they were before it was examined.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from . import paths
from .errors import QlungError

LIBRARIES = ("numpy", "torch", "torchaudio", "soxr", "soundfile")  # their releases change arrays in the last digits


class CacheError(QlungError):
    """The cache cannot be written, or an array was filled with the wrong number of rows."""


def code_version(*rooms: str) -> str:
    """Hash of every source file and model of the named rooms, so that no result outlives the code that made it.

    Rooms are folders or modules of the package: ``code_version("audio", "backbones")``. Twelve hexadecimal digits.
    """
    home, digest = Path(__file__).parent, hashlib.sha256()
    for room in sorted(rooms):
        files = [*home.glob(f"{room}.py"), *home.glob(f"{room}/**/*.py"), *home.glob(f"{room}/**/*.json")]
        if not files:
            raise CacheError(f"there is no code in room '{room}': name a folder or module of the package")
        for file in sorted(files):
            digest.update(f"{file.relative_to(home).as_posix()}\n{file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _stamp(path: Path) -> list[int]:
    """Size [bytes], modification time and change time [ns] of a file."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def file_facts(kind: str, folder: Path, files: list[Path], examine: Callable[[Path], dict]) -> list[dict]:
    """``examine(file)`` of every file, on all cores; called again only for files that changed since the last time."""
    code = hashlib.sha256(f"{folder.absolute()} {code_version('corpora')}".encode())
    index, known = paths.cache_dir() / kind / f"{code.hexdigest()[:20]}.json", {}
    with contextlib.suppress(OSError, ValueError):  # absent or damaged: the same as never written
        known = json.loads(index.read_text(encoding="utf-8"))
    stamps = [f"{file.name} {_stamp(file)}" for file in files]
    with ThreadPoolExecutor(paths.cores()) as pool:
        facts = list(pool.map(lambda file, stamp: known.get(stamp) or examine(file), files, stamps))
    if not known.keys() >= set(stamps):
        known |= dict(zip(stamps, facts, strict=True))
        with contextlib.suppress(OSError):  # reading data needs no writable cache
            paths.write_atomically(index, lambda part: part.write_text(json.dumps(known), encoding="utf-8"))
    return facts


def cached_array(kind: str, key: dict, build: Callable, rows: int) -> np.ndarray:
    """A memory-mapped array from the cache; built on a miss, and again when the file is damaged.

    Two processes may race: each writes its own file and the last one wins whole; a mapped array stays valid.

    Parameters
    ----------
    kind : str
        Folder in the cache.
    key : dict
        Everything that the array depends on: data, parameters, code. Versions of the numeric libraries are added.
    build : callable
        Returns an iterable of the array's parts in order, written as they come, so that memory does not grow.
    rows : int
        Length of the whole array. CacheError if the parts do not add up to it, or the cache cannot be written.
    """
    key = key | {"libraries": [importlib.metadata.version(name) for name in LIBRARIES]}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:20]
    path = paths.cache_dir() / kind / f"{digest}.npy"
    if not _is_whole(path):
        try:
            paths.write_atomically(path, lambda part: _write(part, build(), rows))
        except OSError as error:
            raise CacheError(f"cannot write '{path}': {error.strerror}; free some space or set QLUNG_CACHE") from error
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _write(path: Path, parts: Iterable[np.ndarray], rows: int) -> None:
    """Write parts as one .npy, and behind it the SHA-256 of the whole."""
    count, digest = 0, hashlib.sha256()
    with path.open("wb") as file:
        for part in map(np.ascontiguousarray, parts):
            head = io.BytesIO()
            if not count:
                facts = {"descr": part.dtype.str, "fortran_order": False, "shape": (rows, *part.shape[1:])}
                np.lib.format.write_array_header_1_0(head, facts)
            for piece in (head.getvalue(), part.data):
                file.write(piece)
                digest.update(piece)
            count += len(part)
        file.write(digest.digest())
    if rows != count:
        raise CacheError(f"an array of {rows} rows was filled with {count}: a mistake in the code that builds it")


def _is_whole(path: Path) -> bool:
    """Whether an array is there and undamaged."""
    try:
        return _checksum_holds(path, *_stamp(path))
    except (OSError, ValueError):  # absent or empty
        return False


@functools.lru_cache(None)
def _checksum_holds(path: Path, *stamp: int) -> bool:
    """Whether a file ends with the SHA-256 of all before it; read once per process and ``stamp``."""
    content = np.memmap(path, np.uint8, "r")
    return hashlib.sha256(content[:-32]).digest() == content[-32:].tobytes()


def usage() -> pd.DataFrame:
    """What the cache holds: kind, files and size [MB] of each folder in it."""
    base = paths.cache_dir()
    files = [(path.relative_to(base).parts[0], path.stat().st_size) for path in base.rglob("*") if path.is_file()]
    sizes = pd.DataFrame(files, columns=["kind", "bytes"]).groupby("kind")["bytes"]
    return pd.DataFrame({"files": sizes.size(), "MB": sizes.sum() / 1e6}).reset_index()


def prune(days: float = 30.0) -> int:
    """Delete arrays that were last read or built over ``days`` ago; returns the bytes freed.

    What a killed process left half-written goes too, once it is a day old: before that it may still be growing.
    """
    freed = 0
    for path in paths.cache_dir().glob("*/*.npy"):
        status, least = path.stat(), max(days, 1) if path.name.startswith(".") else days
        if time.time() - max(status.st_mtime, status.st_atime) >= least * 86400:
            path.unlink()
            freed += status.st_size
    return freed
