"""Which corpora there are: each file of this room registers the one it reads."""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

from .. import paths
from ..errors import ConfigError, CorpusError
from .tables import Corpus


@dataclasses.dataclass(frozen=True)
class Source:
    """How one corpus is read.

    Attributes
    ----------
    name : str
        What `load_corpus` and the profiles of experiments.toml call it; also its folder's name in the data folder.
    read : callable
        (folder, subset or None) -> Corpus.
    subsets : tuple of str
        Parts that can be asked for.
    recorded : bool
        Whether these are recordings that a user must have. False: made by this package, no data folder is needed.
    """

    name: str
    read: Callable[[Path, str | None], Corpus]
    subsets: tuple[str, ...] = ()
    recorded: bool = True


SOURCES: dict[str, Source] = {}
BUILT_IN = ("icbhi", "sprsound", "synthetic")


def register(source: Source) -> None:
    """Make a corpus known under its name."""
    SOURCES[source.name] = source


def find(name: str) -> Source:
    """The source of a corpus; a name that is not registered yet is looked for as a file of this room."""
    for module in (*BUILT_IN, name):
        if name not in SOURCES and (Path(__file__).parent / f"{module}.py").is_file():
            importlib.import_module(f".{module}", __package__)
    if name not in SOURCES:
        raise ConfigError(f"unknown corpus '{name}': choose from {', '.join(SOURCES)}")
    return SOURCES[name]


def load_corpus(name: str, root: str | Path | None = None, subset: str | None = None) -> Corpus:
    """Read a corpus in its owners' layout.

    Parameters
    ----------
    name : str
        "icbhi", "sprsound", or this package's own "synthetic-icbhi" and "synthetic-sprsound", which are written in the
        owners' layouts on first use and read back by the same loaders. "synthetic" is short for "synthetic-icbhi".
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
    source = find("synthetic-icbhi" if name == "synthetic" else name)
    if subset not in (None, *source.subsets):
        raise ConfigError(f"{name} has no subset '{subset}': choose from {sorted(source.subsets)} or none")
    if not source.recorded:
        return source.read(Path(root).expanduser() if root else None, subset)
    base = Path(root).expanduser() if root else paths.data_dir()
    if not base.is_dir():
        raise CorpusError(
            f"{name}: there is no folder '{base}'. Give the folder that holds {name}/ (DATA=..., or root)."
        )
    return source.read(base / name if (base / name).is_dir() else base, subset)
