"""The cache on disk: arrays and facts about files, keyed on content, checked against damage, safe to delete.

A file counts as unchanged while its size, modification time and change time are what they were when it was last read in
full. A file younger than two seconds at that moment is read again, since a clock tick can hide a later write; and an
array is read again after a week whatever its times say, so that a fault of the disk does not live on.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from . import paths
from .errors import QlungError

SETTLED_NS, WEEK_NS = 2 * 10**9, 7 * 86400 * 10**9
LIBRARIES = ("numpy", "torch", "torchaudio", "soxr", "soundfile")  # their releases change arrays in the last digits


class CacheError(QlungError):
    """The cache cannot be written, or an array was filled with the wrong number of rows."""


def code_version(*rooms: str) -> str:
    """Hash of every source file and model of the named rooms, so that no result outlives the code that made it.

    Parameters
    ----------
    *rooms : str
        Folders or modules of the package: ``code_version("audio", "backbones")``.

    Returns
    -------
    str
        Twelve hexadecimal digits.
    """
    home, found = Path(__file__).parent, hashlib.sha256()
    for room in sorted(rooms):
        files = [home / f"{room}.py"] if (home / f"{room}.py").is_file() else sorted((home / room).rglob("*.*"))
        files = [file for file in files if file.suffix in (".py", ".json")]
        if not files:
            raise CacheError(f"there is no code in room '{room}': name a folder or module of the package")
        for file in files:
            found.update(f"{file.relative_to(home).as_posix()}\n{file.stat().st_size}\n".encode())
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def stamp(path: Path) -> list[int]:
    """Size [bytes], modification time and change time [ns] of a file."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def unchanged(path: Path, known: list[int], checked_ns: int) -> bool:
    """Whether a file is still what was read at ``checked_ns``, as far as its stamp can tell."""
    return known == stamp(path) and checked_ns - max(known[1:]) > SETTLED_NS


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):  # absent or damaged: the same as never written
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _published(path: Path):
    """A file object to write; it becomes ``path`` in one step at the end, and never shows up half-written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise CacheError(f"cannot write to the cache '{path.parent}': {error.strerror}; set QLUNG_CACHE") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def file_facts(kind: str, folder: Path, files: list[Path], examine: Callable[[Path], dict]) -> list[dict]:
    """``examine(file)`` of every file, on all cores; asked again only of files that changed since the last time."""
    code = hashlib.sha256(f"{folder.absolute()} {code_version('corpora')}".encode())
    index = paths.cache_dir() / kind / f"{code.hexdigest()[:20]}.json"
    known, now = _read_json(index), time.time_ns()

    def facts(file: Path) -> list:
        old = known.get(file.name)
        if old and unchanged(file, old[0], old[1]):
            return old
        return [stamp(file), now, examine(file)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        fresh = dict(zip([file.name for file in files], pool.map(facts, files), strict=True))
    if any(known.get(name) != value for name, value in fresh.items()):
        with contextlib.suppress(CacheError), _published(index) as file:  # reading data needs no writable cache
            file.write(json.dumps(known | fresh).encode())
    return [fresh[file.name][2] for file in files]


def cached_array(kind: str, key: dict, build: Callable, rows: int | None = None) -> np.ndarray:
    """A memory-mapped array from the cache; built on a miss, and again when the file is damaged.

    Two processes may race: each writes its own file and the last one wins whole; a mapped array stays valid.

    Parameters
    ----------
    kind : str
        Folder in the cache.
    key : dict
        Everything that the array depends on: data, parameters, code. Versions of the numeric libraries are added.
    build : callable
        Returns the array; or, where ``rows`` is given, an iterable of its parts in order, written as they come, so that
        memory does not grow with the array.
    rows : int, optional
        Length of the whole array when it comes in parts.

    Raises
    ------
    CacheError
        If the cache cannot be written, or the parts do not add up to ``rows``.
    """
    key = key | {"libraries": [importlib.metadata.version(name) for name in LIBRARIES]}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:20]
    path = paths.cache_dir() / kind / f"{digest}.npy"
    if not _sound(path):
        parts = [build()] if rows is None else build()
        try:
            with _published(path) as file:
                sha256 = _write(file, parts, rows)
        except OSError as error:
            raise CacheError(f"cannot write '{path}': {error.strerror}; free some space or set QLUNG_CACHE") from error
        with _published(path.with_suffix(".json")) as file:
            record = {"sha256": sha256, "stamp": stamp(path), "checked_ns": time.time_ns(), "key": key}
            file.write(json.dumps(record, default=str).encode())
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _write(file, parts: Iterable[np.ndarray], rows: int | None) -> str:
    """Write parts as one .npy, hashing on the way; returns the file's sha256."""
    digest, count = hashlib.sha256(), 0

    def put(block) -> None:
        file.write(block)
        digest.update(block)

    for part in map(np.ascontiguousarray, parts):
        if not count:
            header, shape = io.BytesIO(), part.shape if rows is None else (rows, *part.shape[1:])
            description = {"descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, description)
            put(header.getvalue())
        put(part.data)
        count += len(part)
    if rows not in (None, count):
        raise CacheError(f"an array of {rows} rows was filled with {count}: a mistake in the code that builds it")
    return digest.hexdigest()


def _sound(path: Path) -> bool:
    """Whether an array is whole: by its stamp, or else by its sha256, which is read at most once a week."""
    beside, now = path.with_suffix(".json"), time.time_ns()
    record = _read_json(beside)
    try:
        trusted = unchanged(path, record["stamp"], record["checked_ns"]) and now - record["checked_ns"] < WEEK_NS
        if not trusted:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != record["sha256"]:
                    return False
            with contextlib.suppress(CacheError), _published(beside) as file:
                file.write(json.dumps(record | {"stamp": stamp(path), "checked_ns": now}).encode())
        return True
    except (OSError, KeyError, TypeError, ValueError):  # no array, or a record that is absent or damaged
        return False


def usage() -> pd.DataFrame:
    """What the cache holds: kind, files and size [MB] of each folder in it."""
    base, rows = paths.cache_dir(), []
    for folder in sorted(path for path in base.glob("*") if path.is_dir()):
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        rows.append((folder.name, len(sizes), sum(sizes) / 1e6))
    return pd.DataFrame(rows, columns=["kind", "files", "MB"])


def prune(days: float = 30.0) -> int:
    """Delete arrays that were last built or read in full over ``days`` ago; returns the bytes freed.

    What a killed process left half-written goes too, once it is a day old: before that it may still be growing.
    """
    freed, now = 0, time.time()
    for path in [*paths.cache_dir().glob("*/*.npy"), *paths.cache_dir().glob("*/.*.part")]:
        files = [file for file in (path, path.with_suffix(".json")) if file.exists()]
        limit = days if path.suffix == ".npy" else max(days, 1)
        if all(now - file.stat().st_mtime >= limit * 86400 for file in files):
            freed += sum(file.stat().st_size for file in files)
            for file in files:
                file.unlink(missing_ok=True)
    return freed
