"""Profiles: which corpora, backbones, methods and seeds make a study."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from .. import paths
from ..corpora import Corpus, find, load_corpus
from ..corpora.splits import all_seen, device_folds, grouped_folds
from ..errors import ConfigError, choices
from .config import STRICT, Config, Settings

FOLDS, TUNE_FOLDS = 5, 3  # three cost half as much as five, and settings are many


class Runs(pydantic.BaseModel, strict=True, extra="allow"):
    """One backbone's methods and variants, each with every seed; what else it holds are settings of `Config`."""

    methods: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    variants: list[dict] = []


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Profile(Settings):
    """One profile of experiments.toml: which corpora, and per backbone the methods, seeds and training settings.

    Attributes
    ----------
    corpora : list of str
        Names of registered corpora, a subset behind a colon: ["icbhi:sc", "sprsound"]. Every one is tested on.
    train_on : str
        The corpus whose training split is trained on; default the first.
    split : str
        "official"; "folds", where each fifth of all patients of ``train_on`` is tested in turn, by runs that were
        trained on the others; or "tune", where settings are chosen: tests are each third of the training patients
        ("patients"), each listed device ("devices"), and, by the first three runs, the split "dev" of every corpus
        that has one. No event of a test split is there.
    """

    name: str
    corpora: Annotated[list[str], Field(min_length=1)]
    backbones: dict[str, Runs]
    train_on: str = ""
    split: Literal["official", "folds", "tune"] = "official"

    def __post_init__(self):
        if not re.fullmatch(r"\w[\w-]*", self.name):
            raise ConfigError(f"a profile can't be named '{self.name}': use letters, digits, - and _")
        if wrong := [v for row in self.backbones.values() for v in row.variants if "method" not in v]:
            raise ConfigError(f"profile {self.name}: the variant {wrong[0]} names no method")
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"each corpus can be named once: {', '.join(self.corpora)}")
        object.__setattr__(self, "train_on", self.train_on or self.names[0])
        if self.train_on not in self.names:
            raise ConfigError(f"unknown train_on '{self.train_on}': {choices(self.train_on, self.names)}")

    @property
    def names(self) -> list[str]:
        """Names of the corpora, without their subsets."""
        return [corpus.partition(":")[0] for corpus in self.corpora]

    @property
    def recorded(self) -> bool:
        """Whether the corpora are recordings that a user must have; False where this package makes them."""
        return any(find(name).recorded for name in self.names)

    def rows(self, backbone: str = "", method: str = "", seed: int = -1) -> list[tuple[str, Config]]:
        """(label, run) of every run, backbones outermost, seeds innermost; or of one backbone, method or seed.

        The label is the method; a variant's names what it changes, too: "qlung lam=0.8". ``method`` is a label, or a
        method with all its variants.
        """
        out = []
        for name, row in self.backbones.items():
            variants = [pair for variant in row.variants for pair in _expand(variant)]
            for label, own in [(one, {"method": one}) for one in row.methods] + variants:
                try:
                    out += [(label, Config(backbone=name, seed=n, **row.model_extra | own)) for n in row.seeds]
                except (ConfigError, TypeError) as error:  # TypeError: backbone or seed is given twice
                    raise ConfigError(f"profile {self.name}, backbone {name}, '{label}': {error}") from error
        chosen = [(label, c) for label, c in out if backbone in ("", c.backbone) and seed in (-1, c.seed)]
        chosen = [(label, c) for label, c in chosen if method in ("", label, c.method)]
        if not chosen:
            raise ConfigError(f"profile {self.name} has no run with {backbone=}, {method=}, {seed=}")
        return chosen

    def configs(self, backbone: str = "", method: str = "", seed: int = -1) -> list[Config]:
        """The runs of `rows`, without their labels."""
        return [config for _, config in self.rows(backbone, method, seed)]


def _expand(variant: dict) -> list[tuple[str, dict]]:
    """{method = "qlung", lam = [0, 1]} means two variants; several lists mean all their combinations."""
    lists = [value if isinstance(value, list) else [value] for value in variant.values()]
    each = [dict(zip(variant, values, strict=True)) for values in itertools.product(*lists)]
    return [(" ".join([v["method"], *(f"{k}={x}" for k, x in v.items() if k != "method")]), v) for v in each]


def load_profile(name: str, table: str = "") -> Profile:
    """Read one profile of experiments.toml, or of another such table; ConfigError names what is wrong in it."""
    path = Path(table).expanduser() if table else paths.EXPERIMENTS
    try:
        rows = dict(tomllib.loads(path.read_text(encoding="utf-8"))["profiles"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"'{path}' is no table of profiles: {error!r}. experiments.toml shows the form.") from error
    if name not in rows:
        raise ConfigError(f"unknown profile '{name}': {choices(name, rows)}")
    try:
        return Profile(name, **rows[name])
    except (ConfigError, TypeError) as error:  # TypeError: it is no table
        raise ConfigError(f"profile {name}: {error}") from error


def open_corpora(profile: str, data: str = "", table: str = "") -> dict[str, Corpus]:
    """The profile's corpora by name, in its order; recordings are read under ``data`` (default ``data/``)."""
    row = load_profile(profile, table)
    if data and not row.recorded:
        raise ConfigError(f"profile '{profile}' uses synthetic corpora; DATA='{data}' goes with PROFILE=sc")
    named = (corpus.partition(":") for corpus in row.corpora)
    roots = {True: data or None, False: None}  # recorded, or made by this package
    return {name: load_corpus(name, roots[find(name).recorded], subset or None) for name, _, subset in named}


def parts(profile: str, data: str = "", table: str = "") -> list[tuple[Corpus, dict[str, Corpus]]]:
    """(training corpus, test corpora by name) of a profile: one pair, or one for each fold.

    The first test of a corpus has the corpus' name, another one its split's name, too: "sprsound", "sprsound-intra". A
    test all of whose patients are in the training corpus is left out: it is no test on new patients.
    """
    row, corpora = load_profile(profile, table), open_corpora(profile, data, table)
    if row.split == "tune":
        return _development(corpora.pop(row.train_on).select("train"), corpora)
    if row.split == "folds":
        folds = grouped_folds(corpora[row.train_on], FOLDS, by_device=True)
        return [(fold.select("train"), {row.train_on: fold.select("test")}) for fold in folds]
    train = corpora[row.train_on].select("train")
    for name, part in [(row.train_on, train), *((name, corpus.select("test")) for name, corpus in corpora.items())]:
        if not len(part.events):
            side = "training" if part is train else "test"
            raise ConfigError(f"profile {profile}: corpus '{name}' has no {side} recordings here; `qlung data verify`")
    tests = {}
    for name, corpus in corpora.items():
        for split in sorted(set(corpus.recordings["split"]) - {"train", "dev"}):
            test = corpus.select(split)
            if not (name == row.train_on and all_seen(train, test)):
                tests[f"{name}{split.removeprefix('test').replace('_', '-')}" if name in tests else name] = test
    return [(train, tests)]


def _development(train: Corpus, others: dict[str, Corpus]) -> list[tuple[Corpus, dict[str, Corpus]]]:
    """The pairs of split "tune", in which no test split is opened."""
    dev = {name: c.select("dev") for name, c in others.items() if "dev" in set(c.recordings["split"])}
    folds = [("patients", c, dev) for c in grouped_folds(train, TUNE_FOLDS, by_device=True)]
    folds += [("devices", c, {}) for c in device_folds(train)]
    return [(c.select("train"), {name: c.select("test")} | more) for name, c, more in folds]
