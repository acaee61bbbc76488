"""Fetch what data/registry.toml names: resumed, bounded, verified, unpacked safely, in its place only when whole.

A file is a row of an entry: ``name``, ``urls``, ``max_bytes``, ``checksum_from``, and where they are known ``bytes``,
``sha256`` or ``md5``, ``confirmed = false`` (a checksum to report, not to rely on), ``unpack`` (a zip).
"""

import contextlib
import hashlib
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import filelock
import pandas as pd

from .. import paths
from ..errors import ConfigError, QlungError, choices
from . import splits, verify
from .registry import entries as registry
from .registry import find, sources
from .tables import CLASSES, Corpus

TRIES, PAUSE_S, TIMEOUT_S, BLOCK = 5, 1.0, (10, 60), 1 << 18
ACCEPTED = ".accepted-sha256"  # beside a file with another checksum that the user accepted: that checksum


class DownloadError(QlungError):
    """A file could not be fetched, is not what the registry names, or cannot be put into its place."""


def card(name: str, corpus: Corpus | None = None) -> pd.DataFrame:
    """Data card of a corpus or of the weights: field and value; with a corpus, also what is counted in it."""
    source = None if name == "weights" else find(name)
    entry = source.entry if source else registry()[name]
    rows = {key: entry[key] for key in ("title", "home", "citation", "terms", "consent") if key in entry}
    for file in entry.get("files", []):
        rows[file["name"]] = f"{file.get('sha256', file.get('md5', 'no checksum'))} ({file['checksum_from']})"
    if source:
        rows["label mapping"] = ", ".join(f"{label} -> {kind}" for label, kind in source.labels.items())
    if corpus is not None:
        recordings, report = corpus.recordings, corpus.report["done"]
        rows |= {
            "recordings": f"{len(recordings)}, {recordings['duration_s'].sum() / 3600:.2f} h",
            "patients": f"{recordings['patient_id'].nunique()}, on both sides: {len(splits.shared_patients(corpus))}",
            "events": ", ".join(f"{c} {n}" for c, n in zip(CLASSES, corpus.counts(), strict=True)),
            "rates [Hz]": ", ".join(map(str, sorted(recordings["sample_rate"].unique()))),
            "devices": ", ".join(sorted(recordings["device"].unique())),
            "left out": f"{(report == 'left out').sum()}, not here: {(report == 'absent').sum()}",
            "equal audio": str(len(corpus.duplicates())),
        }
    return pd.DataFrame(rows.items(), columns=["field", "value"])


def place(name: str, root: str | Path | None = None) -> Path:
    """Where an entry ends up: a corpus under the data folder, weights where the backbone looks for them."""
    if name == "weights":
        named = Path(root or os.environ.get("QLUNG_WEIGHTS") or paths.cache_dir() / "weights").expanduser()
        return named.parent if named.is_file() else named
    return Path(root or paths.data_dir()).expanduser() / name


def unpack(archive: Path, dest: Path, strip: int = 0, max_members: int = 20000, max_bytes: int = 8 * 10**9) -> None:
    """Unpack a zip into ``dest``, or nothing at all if it holds what an honest archive of recordings does not.

    Refused: absolute names and "..", links and devices, encryption, a name twice, more than ``max_members`` members or
    ``max_bytes`` bytes when unpacked. Each member's CRC is checked.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = [member for member in bundle.infolist() if not member.filename.endswith("/")]
            total = sum(member.file_size for member in members)
            if len(members) > max_members or total > max_bytes:
                raise DownloadError(f"'{archive.name}' unpacks to {len(members)} files of {total} bytes: refused")
            targets = {_target(member, strip): member for member in members}
            if len(targets) != len(members):
                raise DownloadError(f"'{archive.name}' holds a name twice: refused")
            for target, member in targets.items():
                (dest / target).parent.mkdir(parents=True, exist_ok=True)
                with bundle.open(member) as source, (dest / target).open("wb") as out:
                    shutil.copyfileobj(source, out, BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, FileExistsError) as error:
        raise DownloadError(f"'{archive.name}' is damaged: {error}. Fetch it again.") from error


def _target(member: zipfile.ZipInfo, strip: int) -> PurePosixPath:
    name, mode = PurePosixPath(member.filename), member.external_attr >> 16
    kind = stat.S_IFMT(mode)
    unsafe = name.is_absolute() or ".." in name.parts or "\\" in member.filename or len(name.parts) <= strip
    if unsafe or ":" in name.parts[0] or kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
        raise DownloadError(f"the archive's member {member.filename!r} is a link, is encrypted or leads out: refused")
    return PurePosixPath(*name.parts[strip:])


def digest(path: Path, kind: str = "sha256") -> str:
    """Hexadecimal checksum of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def agrees(file: dict, path: Path) -> bool:
    """Whether a file has every checksum that its row states, and the row states one."""
    stated = [kind for kind in ("sha256", "md5") if kind in file]
    return bool(stated) and all(digest(path, kind) == file[kind] for kind in stated)


def mismatch(file: dict, path: Path) -> str:
    """How a file differs from its row, or "". An unconfirmed checksum does not count: the content check decides."""
    if file.get("unpack") and not zipfile.is_zipfile(path):
        return "is no zip archive"
    for kind in ("bytes", "sha256", "md5") if file.get("confirmed", True) else ():
        value = _size(path) if kind == "bytes" else digest(path, kind) if kind in file else None
        if kind in file and value != file[kind]:
            return f"has {kind} {value}, expected {file[kind]}"
    return ""


def _receive(url: str, part: Path, file: dict, progress: Callable[[int, int], None]) -> None:
    """Bring ``part`` to what ``url`` serves, continuing where it stops.

    Raises DownloadError if only another address can help, an error of requests or urllib3 if another try can.
    """
    import requests  # here, so that reading a corpus needs no network library

    have, validator, headers = _size(part), part.with_name(f"{part.name}.validator"), {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and validator.exists():
        headers["If-Range"] = validator.read_text(encoding="utf-8")
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        code, sent = answer.status_code, answer.headers
        where = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", sent.get("Content-Range", ""))
        if code == 416 and where and where[2] == str(have):
            return  # nothing is left to send
        if code == 416 or (code == 206 and not (where and where[1] == str(have))):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError(f"cannot continue at byte {have} (status {code})")
        if code in (408, 425, 429) or code >= 500:
            raise requests.ConnectionError(f"status {code}")
        if code not in (200, 206):
            raise DownloadError(f"status {code}")
        have = have if code == 206 else 0
        tag = sent.get("ETag", "")
        tag = tag if tag and not tag.startswith("W/") else sent.get("Last-Modified", "")
        validator.write_text(tag, encoding="utf-8") if tag else validator.unlink(missing_ok=True)
        with part.open("ab" if code == 206 else "wb") as out:
            while block := answer.raw.read1(BLOCK):  # what came before a broken connection is kept to the last byte
                have += len(block)
                if have > file["max_bytes"]:
                    part.unlink()
                    raise DownloadError(f"sends more than {file['max_bytes']} bytes")
                out.write(block)
                progress(have, file.get("bytes", file.get("about_bytes", 0)))


def _from(url: str, file: dict, part: Path, progress) -> None:
    """Fetch one address into ``part``; DownloadError holds the reason why this address failed.

    It stops after TRIES tries in a row that bring no new bytes.
    """
    import requests
    import urllib3

    known = requests.exceptions
    hopeless = (known.SSLError, known.TooManyRedirects, known.InvalidURL, known.InvalidSchema)
    tries, best, why = 0, _size(part), ""
    while tries < TRIES:
        resumed = _size(part) > 0
        try:
            _receive(url, part, file, progress)
            why = mismatch(file, part)
            if not why:
                return
            if _size(part) >= file.get("bytes", 0):  # not merely short
                part.unlink()
                if not resumed:
                    raise DownloadError(why)
        except hopeless as error:
            raise DownloadError(str(error)) from error
        except (known.RequestException, urllib3.exceptions.HTTPError) as error:
            why = str(error)
            if _size(part) and agrees(file, part):
                return  # the server announced more than there is
        tries, best = 0 if _size(part) > best else tries + 1, max(best, _size(part))
        time.sleep(PAUSE_S * tries)
    raise DownloadError(f"{why} ({TRIES} tries)")


def receive(file: dict, part: Path, progress=lambda done, total: None) -> None:
    """Fetch one file of an entry from the first address that gives the right one."""
    part.parent.mkdir(parents=True, exist_ok=True)
    failed = ""
    for url in file["urls"]:
        try:
            return _from(url, file, part, progress)
        except DownloadError as error:
            failed += f"  {url}\n    {error}\n"
    raise DownloadError(
        f"{file['name']}: no address gave the right file.\n{failed}"
        f"  The checksum comes from: {file['checksum_from']}.\n"
        "  Run the command again to continue, or download it yourself and name it with --archive."
    )


@contextlib.contextmanager
def _staging(final: Path):
    """A folder beside ``final`` that a stopped fetch leaves behind to continue in; one process at a time."""
    stage = final.with_name(f".{final.name}.fetch")
    try:
        stage.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(stage / "lock", timeout=0):
            yield stage
            shutil.rmtree(stage)
    except filelock.Timeout as error:
        raise DownloadError(f"another fetch into '{final}' is running; wait for it or stop it") from error
    except OSError as error:
        raise DownloadError(f"cannot write into '{final.parent}': {error.strerror or error}") from error


def fetch(
    name: str, root: str | Path | None = None, archive: str | Path | None = None, accept_sha256: str = "",
    log: Callable[[str], None] = print, progress: Callable[[int, int], None] = lambda done, total: None,
    entry: dict | None = None,
) -> Path:  # fmt: skip
    """Bring a corpus or the weights to their place; a second call finds them there and does nothing.

    Parameters
    ----------
    name : str
        "icbhi", "sprsound", "weights", or another registered corpus whose ``about`` has files to download.
    root : path, optional
        Data folder (for weights: their folder) instead of the default one.
    archive : path, optional
        Your own copy of the entry's first file; it is checked like a download.
    accept_sha256 : str
        Take weights with this sha256, knowing that the registry states another one.
    log, progress : callable
        Receive lines about what was checked, and (bytes done, bytes of the file or 0 where that is not known).
    entry : dict, optional
        Take this entry instead of the one that is known under the name.

    Raises
    ------
    ConfigError, DownloadError
        If the name is unknown; if no address gives the right file, the content is not the corpus, or the folder cannot
        be written.
    """
    known = registry() | {key: source.entry for key, source in sources().items()} | ({name: entry} if entry else {})
    if name not in known:
        raise ConfigError(f"nothing to fetch is called '{name}': {choices(name, known)}")
    entry, final = known[name], place(name, root)
    if not entry.get("files") or not (entry.get("expect") or name == "weights"):
        raise ConfigError(f"{name}: no files are registered to download and check; put them into '{final}' yourself.")
    if name == "weights":
        return _fetch_file(entry["files"][0], final, archive, accept_sha256.lower(), log, progress)
    return _fetch_corpus(name, entry, final, archive, log, progress)


def _bring(file: dict, stage: Path, archive, log, progress) -> Path:
    """The file, downloaded into ``stage`` or taken from ``archive``, checked; logs how its checksum compares."""
    path = Path(archive).expanduser() if archive else stage / f"{file['name']}.part"
    if not archive:
        receive(file, path, progress)
    elif not path.is_file() or mismatch(file, path):
        raise DownloadError(f"'{path}' {mismatch(file, path) if path.is_file() else 'is not there'}")
    result = "agrees" if agrees(file, path) else "DIFFERS" if {"sha256", "md5"} & set(file) else "is not stated"
    log(f"{file['name']}: the checksum {result} (source: {file['checksum_from']})")
    return path


def _fetch_corpus(name: str, entry: dict, final: Path, archive, log, progress) -> Path:
    if final.exists():
        if fault := verify.fault(verify.examine(name, final, entry["expect"])):
            raise DownloadError(f"'{final}' is there but {fault}. Move it away and fetch again; it was not touched.")
        log(f"{name}: '{final}' is complete, nothing to do")
        return final
    with _staging(final) as stage:
        whole, first = stage / "whole", entry["files"][0]  # the user's archive is used as the first file
        files = [_bring(f, stage, archive if f is first else None, log, progress) for f in entry["files"]]
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        try:
            limits = {key: entry[key] for key in ("max_members", "max_bytes") if key in entry}
            for file, path in zip(entry["files"], files, strict=True):
                if file.get("unpack"):
                    unpack(path, whole, file.get("strip", 0), **limits)
                else:
                    shutil.copyfile(path, whole / file["name"])
            found = verify.examine(name, whole, entry["expect"])
            if fault := verify.fault(found):
                raise DownloadError(f"{name}: the content check finds it {fault}")
        except DownloadError:
            for part in stage.glob("*.part"):  # complete but wrong: continuing would not help
                part.unlink()
            raise
        log(f"{name}: the content check agrees: {found['recordings']} recordings and {found['events']} events")
        os.replace(whole, final)
    return final


def _fetch_file(file: dict, folder: Path, archive, accepted: str, log, progress) -> Path:
    final = folder / file["name"]
    if accepted:
        source = f"--accept-sha256; the registry states {file['sha256']}"
        file = {k: v for k, v in file.items() if k != "bytes"} | {"sha256": accepted, "checksum_from": source}
    if final.is_file() and not mismatch(file, final):
        log(f"{file['name']}: '{final}' is complete, nothing to do")
        return final
    with _staging(final) as stage:
        try:
            path = _bring(file, stage, archive, log, progress)
        except DownloadError as error:
            raise DownloadError(f"{error}\n  If you trust what it has, name it: --accept-sha256 SHA256") from error
        shutil.copyfile(path, stage / file["name"])
        if accepted:
            final.with_name(final.name + ACCEPTED).write_text(accepted, encoding="utf-8")
        os.replace(stage / file["name"], final)
    return final
