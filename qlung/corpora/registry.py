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

ENTRIES = paths.ROOT / "data" / "registry.toml"


@dataclasses.dataclass(frozen=True)
class Source:
    """One corpus: how it is read, and what is known about it.

    Attributes
    ----------
    name : str
        Its name in `load_corpus` and in the profiles of experiments.toml, and its folder's name in the data folder:
        lower-case letters, digits, "-" and "_".
    read : callable
        (folder, subset or None) -> Corpus.
    subsets : tuple of str
        Parts that can be asked for, "NAME:SUBSET" in a profile.
    recorded : bool
        Whether these are recordings that a user must have. False: made by this package, no data folder is needed.
    labels : dict of str -> str
        Label mapping: the owners' label -> one of ``CLASSES``.
    about : dict
        As an entry of data/registry.toml, which is taken where this is empty: title, home, citation, terms (licence),
        consent; ``expect``: recordings, patients, and events per class in train and test, of the whole corpus;
        ``files`` to download. Every key may be left out.

    Raises
    ------
    ConfigError
        If the name or the label mapping has another form.
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


def entries() -> dict[str, dict]:
    """Entries of data/registry.toml: the corpora that come with the package, and "weights"."""
    return tomllib.loads(ENTRIES.read_text(encoding="utf-8"))


def register(source: Source) -> None:
    """Make a corpus known under its name; a later registration of that name replaces the earlier one."""
    SOURCES[source.name] = source


def sources() -> dict[str, Source]:
    """Every registered corpus by name, those of this room's files included."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f".{module.name}", __package__)
    return dict(sorted(SOURCES.items()))


def find(name: str) -> Source:
    """The corpus of that name: registered, or in the file of this room that has its name.

    "synthetic" is short for "synthetic-icbhi"; what stands before a "-" is looked for as a file, too.
    """
    name = "synthetic-icbhi" if name == "synthetic" else name
    for module in (name, name.partition("-")[0]):
        if name not in SOURCES and (Path(__file__).parent / f"{module}.py").is_file():
            importlib.import_module(f".{module}", __package__)
    if name not in SOURCES:
        raise ConfigError(f"unknown corpus '{name}': {choices(name, sources())}")
    return SOURCES[name]


def load_corpus(name: str, root: str | Path | None = None, subset: str | None = None) -> Corpus:
    """Read a corpus in its owners' layout.

    Parameters
    ----------
    name : str
        "icbhi", "sprsound", this package's own "synthetic-icbhi" and "synthetic-sprsound", which are written in the
        owners' layouts on first use and read back by the same loaders, or any other registered corpus. "synthetic" is
        short for "synthetic-icbhi".
    root : path, optional
        Folder that holds ``icbhi/`` and ``sprsound/`` (or is itself the corpus); default ``$QLUNG_DATA`` or ``data/``.
    subset : str, optional
        icbhi: "sc", the single-channel recordings by file name. sprsound: "train" or "inter".

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
    base = Path(root).expanduser() if root else paths.data_dir()
    if not base.is_dir():
        raise CorpusError(
            f"{name}: there is no folder '{base}'. Give the folder that holds {name}/ (DATA=..., or root)."
        )
    folder = base / name if (base / name).is_dir() else base
    try:
        return source.read(folder, subset)
    except (OSError, ValueError, KeyError) as error:
        raise CorpusError(f"{name}: cannot read '{folder}': {type(error).__name__}: {error}") from error
