"""Which corpora there are: every loader registers what it reads, and nothing else has to name it."""

import dataclasses
import importlib
import pkgutil
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from .. import paths
from ..errors import ConfigError, CorpusError, choices
from .tables import CLASSES, Corpus


@dataclasses.dataclass(frozen=True)
class Source:
    """One corpus: how it is read, and what is known about it.

    Attributes
    ----------
    name : str
        In `load_corpus` and in profiles; also its folder in the data folder. Lower-case letters, digits, "-" and "_".
    read : callable
        (folder, subset or None) -> Corpus.
    subsets : tuple of str
        Parts that can be asked for, "NAME:SUBSET" in a profile.
    recorded : bool
        Whether a user must have the recordings; False: made by this package.
    labels : dict of str -> str
        Label mapping: the owners' label -> one of ``CLASSES``.
    about : dict
        An entry like those of data/registry.toml, which is read where this is empty. Every key may be left out: title,
        home, citation, terms (licence), consent; ``expect``: recordings, patients, and events per class in train and
        test, of the whole corpus; ``files`` to download.
    """

    name: str
    read: Callable[[Path, str | None], Corpus]
    subsets: tuple[str, ...] = ()
    recorded: bool = True
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    about: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ConfigError(f"a corpus can't be named '{self.name}': use lower-case letters, digits, - and _")
        if wrong := {label: kind for label, kind in self.labels.items() if kind not in CLASSES}:
            raise ConfigError(f"{self.name}: labels are mapped to {', '.join(CLASSES)}; given {wrong}")

    @property
    def entry(self) -> dict:
        """``about``, or the entry of data/registry.toml."""
        return self.about or entries().get(self.name, {})


SOURCES: dict[str, Source] = {}
UNREADABLE: dict[str, str] = {}  # files of this room that could not be imported, and why: the others can be used


def entries() -> dict[str, dict]:
    """Entries of data/registry.toml: the corpora that come with the package, and "weights"."""
    return tomllib.loads((paths.ROOT / "data" / "registry.toml").read_text(encoding="utf-8"))


def register(source: Source) -> None:
    """Make a corpus known under its name; a later registration of that name replaces the earlier one."""
    SOURCES[source.name] = source


def sources() -> dict[str, Source]:
    """Every registered corpus by name; each file of this room registers those it reads."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        try:
            importlib.import_module(f".{module.name}", __package__)
        except Exception as error:
            UNREADABLE[module.name] = f"{type(error).__name__}: {error}"
    return SOURCES


def find(name: str) -> Source:
    """The registered corpus of that name; "synthetic" is short for "synthetic-icbhi"."""
    name = "synthetic-icbhi" if name == "synthetic" else name
    if name not in SOURCES and name not in sources():
        faults = "".join(f". corpora/{file}.py can't be imported: {why}" for file, why in UNREADABLE.items())
        raise ConfigError(f"unknown corpus '{name}': {choices(name, sorted(SOURCES))}{faults}")
    return SOURCES[name]


def load_corpus(name: str, root: str | Path | None = None, subset: str | None = None) -> Corpus:
    """Read a corpus in its owners' layout.

    Parameters
    ----------
    name : str
        "icbhi", "sprsound", "kauh", or any registered corpus; or this package's "synthetic-icbhi" (short: "synthetic")
        and "synthetic-sprsound", which are written in the owners' layouts on first use and read by the same loaders.
    root : path, optional
        Folder that holds ``icbhi/`` and ``sprsound/`` (or is itself the corpus); default ``$QLUNG_DATA`` or ``data/``.
    subset : str, optional
        icbhi: "sc", the single-channel recordings by file name. sprsound: "train", "inter" or "intra".

    Raises
    ------
    CorpusError
        If the folder is missing, incomplete or not in a known layout.
    ConfigError
        If the corpus or the subset is unknown.
    """
    source = find(name)
    if subset not in (None, *source.subsets):
        raise ConfigError(f"{name} has no subset '{subset}': {choices(subset, source.subsets)}, or leave it out")
    if not source.recorded:
        return source.read(Path(root).expanduser() if root else None, subset)
    base = Path(root or paths.data_dir()).expanduser()
    if not base.is_dir():
        raise CorpusError(f"{name}: there is no folder '{base}'. Give the one that holds {name}/ (DATA=..., or root).")
    folder = base / name if (base / name).is_dir() else base
    try:
        return source.read(folder, subset)
    except (OSError, ValueError, KeyError) as error:
        raise CorpusError(f"{name}: cannot read '{folder}': {type(error).__name__}: {error}") from error
