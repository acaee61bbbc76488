"""Fetch what data/registry.toml names: resumed, bounded, verified, unpacked safely, in its place only when whole.

A file is a row of an entry: ``name``, ``urls``, ``max_bytes``, ``checksum_from``, and where they are known ``bytes``,
``sha256`` or ``md5``, ``confirmed = false`` (a checksum to report, not to rely on), ``unpack`` (a zip).
"""

import hashlib
import os
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

TRIES, PAUSE_S, TIMEOUT_S, BLOCK = 5, 1.0, (10, 60), 1 << 14
ACCEPTED = ".accepted-sha256"  # beside a file with another checksum that the user accepted: that checksum
HELP = (
    "Run the command again to continue, or download it yourself and name it with --archive. "
    "Weights that you trust though they differ: --accept-sha256 SHA256."
)


class DownloadError(QlungError):
    """A file could not be fetched, is not what the registry names, or cannot be put into its place."""


def card(name: str, corpus: Corpus | None = None) -> pd.DataFrame:
    """Data card of a corpus or of the weights: field and value; with a corpus, also what is counted in it."""
    entry = registry()[name] if name == "weights" else find(name).entry
    rows = {key: entry[key] for key in ("title", "home", "citation", "terms", "consent") if key in entry}
    for file in entry.get("files", []):
        rows[file["name"]] = f"{file.get('sha256', file.get('md5', 'no checksum'))} ({file['checksum_from']})"
    if name != "weights":
        rows["label mapping"] = ", ".join(f"{label} -> {kind}" for label, kind in find(name).labels.items())
    if corpus is not None:
        recordings, done = corpus.recordings, corpus.report["done"]
        rows |= {
            "recordings": f"{len(recordings)}, {recordings['duration_s'].sum() / 3600:.2f} h",
            "patients": f"{recordings['patient_id'].nunique()}, on both sides: {len(splits.shared_patients(corpus))}",
            "events": ", ".join(f"{c} {n}" for c, n in zip(CLASSES, corpus.counts(), strict=True)),
            "rates [Hz]": ", ".join(map(str, sorted(recordings["sample_rate"].unique()))),
            "devices": ", ".join(sorted(recordings["device"].unique())),
            "left out": f"{(done == 'left out').sum()}, not here: {(done == 'absent').sum()}",
            "equal audio": str(len(corpus.duplicates())),
        }
    return pd.DataFrame(rows.items(), columns=["field", "value"])


def place(name: str, root: str | Path | None = None) -> Path:
    """Where an entry ends up: a corpus under the data folder, weights where the backbone looks for them."""
    if name != "weights":
        return Path(root or paths.data_dir()).expanduser() / name
    folder = Path(root or os.environ.get("QLUNG_WEIGHTS") or paths.cache_dir() / "weights").expanduser()
    return folder.parent if folder.is_file() else folder


def unpack(archive: Path, dest: Path, strip: int = 0, max_members: int = 20000, max_bytes: int = 8 * 10**9) -> None:
    """Unpack a zip into ``dest``, or nothing at all if it holds what an honest archive of recordings does not.

    Refused: absolute names and "..", links and devices, encryption, more than ``max_members`` members or ``max_bytes``
    bytes when unpacked. Each member's CRC is checked. ``strip`` leading folders of every name are left off.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = [member for member in bundle.infolist() if not member.filename.endswith("/")]
            total = sum(member.file_size for member in members)
            if len(members) > max_members or total > max_bytes:
                raise DownloadError(f"'{archive.name}' unpacks to {len(members)} files of {total} bytes: refused")
            for member in members:
                member.filename = _safe_name(member, strip)
            bundle.extractall(dest, members)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, FileExistsError) as error:
        raise DownloadError(f"'{archive.name}' is damaged: {error}. Fetch it again.") from error


def _safe_name(member: zipfile.ZipInfo, strip: int) -> str:
    name, kind = PurePosixPath(member.filename), stat.S_IFMT(member.external_attr >> 16)
    unsafe = name.is_absolute() or ".." in name.parts or "\\" in member.filename or len(name.parts) <= strip
    if unsafe or ":" in name.parts[0] or kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
        raise DownloadError(f"the archive's member {member.filename!r} is a link, is encrypted or leads out: refused")
    return str(PurePosixPath(*name.parts[strip:]))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def differences(file: dict, path: Path) -> str:
    """Size and checksums that a file's row states and the file does not have, or ""."""
    found = {"bytes": _size(path)}
    for kind in {"sha256", "md5"} & set(file):
        with path.open("rb") as content:
            found[kind] = hashlib.file_digest(content, kind).hexdigest()
    return "; ".join(f"has {k} {v}, expected {file[k]}" for k, v in found.items() if file.get(k) not in (v, None))


def mismatch(file: dict, path: Path) -> str:
    """Why a file is not its row's, or "". An unconfirmed checksum does not count: the content check decides."""
    if file.get("unpack") and not zipfile.is_zipfile(path):
        return "is no zip archive"
    return differences(file, path) if file.get("confirmed", True) else ""


def receive(file: dict, part: Path, progress=lambda done, total: None) -> None:
    """Fetch one file of an entry from the first address that gives the right one, continuing where ``part`` stops."""
    part.parent.mkdir(parents=True, exist_ok=True)
    failed = ""
    for url in file["urls"]:
        why = _receive_from(url, file, part, progress)
        if not why:
            return
        failed += f"  {url}\n    {why}\n"
    source = f"  The checksum comes from: {file['checksum_from']}.\n"
    raise DownloadError(f"{file['name']}: no address gave the right file.\n{failed}{source}  {HELP}")


def _receive_from(url: str, file: dict, part: Path, progress) -> str:
    """Up to TRIES tries at one address; returns "" when ``part`` is the right file, else why it is not."""
    import requests  # here, so that reading a corpus needs no network library

    for attempt in range(TRIES):
        start = _size(part)
        try:
            _request(url, file, part, progress)
            why = mismatch(file, part)
            if not why:
                return ""
            part.unlink()
            if not start:
                return why  # all of it came from here; what was continued is fetched once more, from its beginning
        except DownloadError as error:  # another try would end the same way
            return str(error)
        except requests.RequestException as error:
            why = str(error)
        time.sleep(PAUSE_S * attempt)
    return f"{why} ({TRIES} tries)"


def _request(url: str, file: dict, part: Path, progress) -> None:
    """Add to ``part`` what is missing at its end; write it anew where the server cannot continue there."""
    import requests

    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        code, sent = answer.status_code, answer.headers.get("Content-Range", "")
        if have and code == 416:
            return  # nothing is left to send
        if code >= 500 or code in (408, 429):
            raise requests.ConnectionError(f"status {code}")
        if code not in (200, 206):
            raise DownloadError(f"status {code}")
        if code == 206 and not sent.startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError(f"sends '{sent}' instead of what follows byte {have}")
        have = have if code == 206 else 0
        with part.open("ab" if have else "wb") as out:
            for block in answer.iter_content(BLOCK):
                have += len(block)
                if have > file["max_bytes"]:
                    part.unlink()
                    raise DownloadError(f"sends more than {file['max_bytes']} bytes")
                out.write(block)
                progress(have, file.get("bytes") or file.get("about_bytes", 0))


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
    entry, final, weights = known[name], place(name, root), name == "weights"
    files, expect = entry.get("files"), entry.get("expect")
    if not files or not (expect or weights):
        raise ConfigError(f"{name}: no files are registered to download and check; put them into '{final}' yourself.")
    if weights:
        final = final / files[0]["name"]
    if accept_sha256:
        source = f"--accept-sha256; the registry states {files[0]['sha256']}"
        files = [files[0] | {"sha256": accept_sha256.lower(), "bytes": None, "checksum_from": source}]
    if final.exists():
        fault = mismatch(files[0], final) if weights else verify.fault(verify.examine(name, final, expect))
        if fault:
            raise DownloadError(f"'{final}' is there but {fault}. Move it away and fetch again; it was not touched.")
        log(f"{name}: '{final}' is complete, nothing to do")
        return final
    stage = final.with_name(f".{final.name}.fetch")  # a stopped fetch leaves it behind, to be continued
    try:
        with paths.lock(stage / "lock", timeout=0):
            own = Path(archive).expanduser() if archive else None  # the user's archive is used as the first file
            parts = [_bring(file, stage, None if i else own, log, progress) for i, file in enumerate(files)]
            whole = stage / "whole"
            if weights:
                shutil.copyfile(parts[0], whole)
            else:
                log(_assemble(name, entry, parts, whole))
            if accept_sha256:
                final.with_name(final.name + ACCEPTED).write_text(accept_sha256.lower(), encoding="utf-8")
            os.replace(whole, final)
            shutil.rmtree(stage)
    except filelock.Timeout as error:
        raise DownloadError(f"another fetch into '{final}' is running; wait for it or stop it") from error
    except OSError as error:
        raise DownloadError(f"cannot write into '{final.parent}': {error.strerror or error}") from error
    return final


def _bring(file: dict, stage: Path, own: Path | None, log, progress) -> Path:
    """The file, downloaded into ``stage`` or the user's own, checked; logs how its checksum compares."""
    path = own or stage / f"{file['name']}.part"
    if not own:
        receive(file, path, progress)
    elif why := mismatch(file, path) if path.is_file() else "is not there":
        raise DownloadError(f"'{path}' {why}. {HELP}")
    stated = "sha256" in file or "md5" in file
    result = "is not stated" if not stated else "DIFFERS" if differences(file, path) else "agrees"
    log(f"{file['name']}: the checksum {result} (source: {file['checksum_from']})")
    return path


def _assemble(name: str, entry: dict, parts: list[Path], whole: Path) -> str:
    """Make the corpus's folder of its files and check what it holds; parts that are complete but wrong are deleted."""
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    try:
        for file, path in zip(entry["files"], parts, strict=True):
            if file.get("unpack"):
                limits = {key: entry[key] for key in ("max_members", "max_bytes") if key in entry}
                unpack(path, whole, file.get("strip", 0), **limits)
            else:
                shutil.copyfile(path, whole / file["name"])
        found = verify.examine(name, whole, entry["expect"])
        if fault := verify.fault(found):
            raise DownloadError(f"{name}: the content check finds it {fault}")
    except DownloadError:
        shutil.rmtree(whole.parent)
        raise
    return f"{name}: the content check agrees: {found['recordings']} recordings and {found['events']} events"
