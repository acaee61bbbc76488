"""Fetch what data/registry.toml names: resumed, limited in size, verified, and moved into place only when complete.

A file is a row of an entry: ``name``, ``urls``, ``max_bytes``, ``checksum_from``, and where they are known ``bytes``,
``sha256`` or ``md5``, ``confirmed = false`` (a checksum to report, not to rely on), ``unpack`` (a zip).
"""

import hashlib
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from .. import paths
from ..errors import ConfigError, QlungError
from . import verify
from .registry import entries as registry
from .registry import find

TRIES, PAUSE_S, TIMEOUT_S, BLOCK = 5, 1.0, (10, 60), 1 << 14
HELP = "Run the command again to continue, or name your own copy: --archive."


class DownloadError(QlungError):
    """A file could not be fetched, is not what the registry names, or cannot be put into its place."""


def place(name: str, root: str | Path | None = None) -> Path:
    """Where an entry ends up: a corpus under the data folder, weights where the backbone looks for them."""
    if name != "weights":
        return Path(root or paths.data_dir()).expanduser() / name
    folder = Path(root or os.environ.get("QLUNG_WEIGHTS") or paths.cache_dir() / "weights").expanduser()
    return folder.parent if folder.is_file() else folder


def unpack(archive: Path, dest: Path, strip: int = 0, max_bytes: int = 8 * 10**9) -> None:
    """Unpack a zip of at most ``max_bytes`` into ``dest``, without the first ``strip`` folders of each name.

    ``zipfile`` checks each member's CRC, writes nothing outside ``dest`` and makes no links, whatever the names are.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = [member for member in bundle.infolist() if not member.filename.endswith("/")]
            if (total := sum(member.file_size for member in members)) > max_bytes:
                raise DownloadError(f"'{archive.name}' unpacks to {total} bytes, more than {max_bytes}: refused")
            for member in members:
                member.filename = member.filename.split("/", strip)[-1]
                bundle.extract(member, dest)
    except (zipfile.BadZipFile, zlib.error, EOFError, IndexError, RuntimeError, ValueError) as error:  # 3.12: no name
        raise DownloadError(f"'{archive.name}' is damaged or encrypted: {error}. Fetch it again.") from error


def mismatch(file: dict, path: Path, unconfirmed: bool = False) -> str:
    """How a file differs from its row, or "". An unconfirmed checksum counts only if asked for."""
    found = {"bytes": path.stat().st_size}
    if found["bytes"] > file["max_bytes"]:
        return f"is larger than {file['max_bytes']} bytes"
    if file.get("unpack") and not zipfile.is_zipfile(path):
        return "is no zip archive"
    for kind in {"sha256", "md5"} & set(file):
        with path.open("rb") as content:
            found[kind] = hashlib.file_digest(content, kind).hexdigest()
    wrong = [f"has {k} {v}, expected {file[k]}" for k, v in found.items() if file.get(k) not in (v, None)]
    return "; ".join(wrong) if unconfirmed or file.get("confirmed", True) else ""


def receive(file: dict, part: Path, progress=lambda done, total: None) -> None:
    """Fetch one file of an entry, continuing where ``part`` stops: up to TRIES tries at each address."""
    import requests  # here, so that reading a corpus needs no network library

    failed = {}
    for url in file["urls"]:
        for attempt in range(TRIES):
            have = part.stat().st_size if part.exists() else 0
            try:
                _request(url, file, part, have, progress)
                failed[url] = mismatch(file, part)
                if not failed[url]:
                    return
                part.unlink()
                if not have:
                    break  # all of it came from here; what was continued is fetched once more, from its beginning
            except requests.RequestException as error:
                failed[url] = f"{error} (try {attempt + 1})"
            time.sleep(PAUSE_S * attempt)
    reasons = "".join(f"  {url}\n    {why}\n" for url, why in failed.items())
    source = f"  The checksum comes from: {file['checksum_from']}.\n"
    raise DownloadError(f"{file['name']}: no address gave the right file.\n{reasons}{source}  {HELP}")


def _request(url: str, file: dict, part: Path, have: int, progress) -> None:
    """Add to ``part``, of ``have`` bytes, what is missing; write it anew where the server cannot continue there."""
    import requests

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        code, sent = answer.status_code, answer.headers.get("Content-Range", "")
        if have and code == 416:
            return  # nothing is left to send
        if code not in (200, 206):
            raise requests.HTTPError(f"status {code}")
        if code == 206 and not sent.startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError(f"sends '{sent}' instead of what follows byte {have}")
        have = have if code == 206 else 0
        with paths.naming(part), part.open("ab" if have else "wb") as out:
            for block in answer.iter_content(BLOCK):
                out.write(block)
                have += len(block)
                progress(have, file.get("bytes") or file.get("about_bytes", 0))
                if have > file["max_bytes"]:
                    return


def fetch(
    name: str, root: str | Path | None = None, archive: str | Path | None = None,
    log: Callable[[str], None] = print, progress: Callable[[int, int], None] = lambda done, total: None,
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
    log, progress : callable
        Receive lines about what was checked, and (bytes done, bytes of the file or 0 where that is not known).

    Raises
    ------
    ConfigError, DownloadError
        If the name is unknown; if no address gives the right file, or the content is not the corpus.
    """
    weights, final = name == "weights", place(name, root)
    entry = registry()["weights"] if weights else find(name).entry
    files = entry.get("files", []) if weights or entry.get("expect") else []
    if not files:
        raise ConfigError(f"{name}: no files are registered to download and check; put them into '{final}' yourself.")
    if weights:
        final = final / files[0]["name"]
    if final.exists():
        fault = mismatch(files[0], final) if weights else verify.fault(verify.examine(name, final))
        if fault:
            raise DownloadError(f"'{final}' is there but {fault}. Move it away and fetch again; it was not touched.")
        log(f"{name}: '{final}' is complete, nothing to do")
        return final
    stage = final.with_name(f".{final.name}.fetch")  # a stopped fetch leaves it behind, to be continued
    with paths.lock(stage / "lock", timeout=0):
        own = Path(archive).expanduser() if archive else None  # the user's archive is used as the first file
        parts = [_bring(file, stage, None if i else own, log, progress) for i, file in enumerate(files)]
        whole = stage / "whole"
        if weights:
            shutil.copyfile(parts[0], whole)
        else:
            log(_assemble(name, files, parts, whole))
        os.replace(whole, final)
        shutil.rmtree(stage)
    return final


def _bring(file: dict, stage: Path, own: Path | None, log, progress) -> Path:
    """The file, downloaded into ``stage`` or the user's own, checked; logs how its checksum compares."""
    path = own or stage / f"{file['name']}.part"
    if not own:
        receive(file, path, progress)
    elif why := mismatch(file, path) if path.is_file() else "is not there":
        raise DownloadError(f"'{path}' {why}. {HELP}")
    stated = "sha256" in file or "md5" in file
    result = "is not stated" if not stated else "DIFFERS" if mismatch(file, path, unconfirmed=True) else "agrees"
    log(f"{file['name']}: the checksum {result} (source: {file['checksum_from']})")
    return path


def _assemble(name: str, files: list[dict], parts: list[Path], whole: Path) -> str:
    """Make the corpus's folder of its files and check what it holds; parts that are complete but wrong are deleted."""
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    try:
        for file, path in zip(files, parts, strict=True):
            if file.get("unpack"):
                unpack(path, whole, file.get("strip", 0))
                for inner in [*whole.rglob("*.zip")]:
                    unpack(inner, inner.parent)
            else:
                shutil.copyfile(path, whole / file["name"])
        found = verify.examine(name, whole)
        if fault := verify.fault(found):
            raise DownloadError(f"{name}: the content check finds it {fault}")
    except DownloadError:
        shutil.rmtree(whole.parent)
        raise
    return f"{name}: the content check agrees: {found['recordings']} recordings and {found['events']} events"
