"""Fetch what data/registry.toml names: verified, unpacked safely, and seen at its place only when whole."""

import contextlib
import fcntl
import os
import shutil
import stat
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pandas as pd

from .. import paths
from ..errors import ConfigError
from . import splits, verify
from .tables import CLASSES, Corpus
from .transfer import BLOCK, DownloadError, agrees, mismatch, receive

REGISTRY = paths.ROOT / "data" / "registry.toml"
ACCEPTED = ".accepted-sha256"  # beside a file that the user took knowingly: its checksum


def registry() -> dict:
    """Entries of data/registry.toml: icbhi, sprsound, weights."""
    return tomllib.loads(REGISTRY.read_text(encoding="utf-8"))


def card(name: str, corpus: Corpus | None = None) -> pd.DataFrame:
    """Data card of a registry entry: field and value; with a corpus, also what is counted in it."""
    entry = registry()[name]
    rows = {key: entry[key] for key in ("title", "home", "citation", "terms", "consent")}
    for file in entry["files"]:
        checksum = file.get("sha256") or file.get("md5") or "no checksum"
        rows[file["name"]] = f"{checksum} ({file['checksum_from']})"
    if corpus is not None:
        recordings, report = corpus.recordings, corpus.report["done"]
        rows |= {
            "recordings": f"{len(recordings)}, {recordings['duration_s'].sum() / 3600:.2f} h",
            "patients": f"{recordings['patient_id'].nunique()}, on both sides: {len(splits.shared_patients(corpus))}",
            "events": ", ".join(f"{c} {n}" for c, n in zip(CLASSES, corpus.counts(), strict=True)),
            "rates [Hz]": ", ".join(map(str, sorted(recordings["sample_rate"].unique()))),
            "devices": ", ".join(sorted(recordings["device"].unique())),
            "set aside": f"{(report == 'left out').sum()}, not here: {(report == 'absent').sum()}",
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


@contextlib.contextmanager
def _staging(final: Path):
    """A folder beside ``final`` that a stopped fetch leaves behind to continue in; one process at a time."""
    stage = final.with_name(f".{final.name}.fetch")
    try:
        stage.mkdir(parents=True, exist_ok=True)
        with (stage / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield stage
    except BlockingIOError as error:
        raise DownloadError(f"another fetch into '{final}' is running; wait for it or stop it") from error
    except OSError as error:
        raise DownloadError(f"cannot write into '{final.parent}': {error.strerror or error}") from error


def fetch(
    name: str, root: str | Path | None = None, archive: str | Path | None = None, accept_sha256: str = "",
    log: Callable[[str], None] = print, progress: Callable[[int, int], None] = lambda done, total: None,
    entry: dict | None = None,
) -> Path:  # fmt: skip
    """Bring an entry of the registry to its place; a second call finds it there and does nothing.

    Parameters
    ----------
    name : {"icbhi", "sprsound", "weights"}
    root : path, optional
        Data folder (for weights: their folder) instead of the default one.
    archive : path, optional
        Your own copy of the entry's first file; it is checked like a download.
    accept_sha256 : str
        Take weights with this sha256, knowing that the registry states another one.
    log, progress : callable
        Receive lines about what was checked, and (bytes done, bytes announced).
    entry : dict, optional
        An entry that is not in the registry.

    Raises
    ------
    ConfigError
        If no such entry is known.
    DownloadError
        If no address gives the right file, the content is not the corpus, or the folder cannot be written.
    """
    known = {name: entry} if entry else registry()
    if name not in known:
        raise ConfigError(f"nothing to fetch is called '{name}': choose from {', '.join(known)}")
    entry, final = known[name], place(name, root)
    if "expect" in entry:
        return _fetch_corpus(name, entry, final, archive, log, progress)
    return _fetch_file(entry["files"][0], final, archive, accept_sha256.lower(), log, progress)


def _bring(file: dict, stage: Path, archive, log, progress) -> Path:
    """The file, downloaded into ``stage`` or taken from ``archive``, checked; says what its checksum says."""
    path = Path(archive).expanduser() if archive else stage / f"{file['name']}.part"
    if not archive:
        receive(file, path, progress)
    elif not path.is_file() or mismatch(file, path):
        raise DownloadError(f"'{path}' {mismatch(file, path) if path.is_file() else 'is not there'}")
    stated = {"sha256", "md5"} & set(file)
    said = "agrees" if agrees(file, path) else "DIFFERS" if stated else "is not stated"
    log(f"{file['name']}: the checksum {said} (source: {file['checksum_from']})")
    return path


def _fetch_corpus(name: str, entry: dict, final: Path, archive, log, progress) -> Path:
    if final.exists():
        found = verify.examine(name, final, entry["expect"])
        if found["verdict"] != "complete":
            why = "; ".join(found["differs"][:2]) or next(iter(found["damaged"].values()), "recordings are missing")
            raise DownloadError(
                f"'{final}' is there but {found['verdict']} ({why}). Move it away and fetch again; it was not touched."
            )
        log(f"{name}: '{final}' is complete, nothing to do")
        return final
    with _staging(final) as stage:
        own = [archive] + [None] * len(entry["files"])  # the user's archive stands for the first file
        files = [_bring(file, stage, mine, log, progress) for file, mine in zip(entry["files"], own, strict=False)]
        whole = stage / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        try:
            found = _assemble(name, entry, files, whole)
        except DownloadError:
            for part in stage.glob("*.part"):  # they came whole and are wrong: continuing would not mend them
                part.unlink()
            raise
        log(f"{name}: the content check agrees: {found['recordings']} recordings and {found['events']} events")
        os.replace(whole, final)
        shutil.rmtree(stage)
    return final


def _assemble(name: str, entry: dict, files: list[Path], whole: Path) -> dict:
    """Unpack and copy an entry's files into ``whole``, and read it as the corpus that it must be."""
    for file, path in zip(entry["files"], files, strict=True):
        if file.get("unpack"):
            unpack(path, whole, file.get("strip", 0), entry["max_members"], entry["max_bytes"])
        else:
            shutil.copyfile(path, whole / file["name"])
    found = verify.examine(name, whole, entry["expect"])
    if found["verdict"] != "complete":
        why = [*found["differs"], *(": ".join(row) for row in (found["damaged"] | found["missing"]).items())]
        raise DownloadError(f"{name}: the content check finds it {found['verdict']}: {'; '.join(why[:4])}")
    return found


def _fetch_file(file: dict, folder: Path, archive, accepted: str, log, progress) -> Path:
    final = folder / file["name"]
    if accepted:
        knowing = f"--accept-sha256; the registry states {file['sha256']}"
        file = {k: v for k, v in file.items() if k != "bytes"} | {"sha256": accepted, "checksum_from": knowing}
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
            final.with_name(final.name + ACCEPTED).write_text(accepted)
        os.replace(stage / file["name"], final)
        shutil.rmtree(stage)
    return final
