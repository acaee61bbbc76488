"""Profiles: which corpora, backbones, methods and seeds make a study."""

import dataclasses
import itertools
import tomllib
from pathlib import Path

from .. import paths
from ..corpora import Corpus, find, load_corpus
from ..corpora.splits import grouped_folds, official_disjoint
from ..errors import ConfigError, choices
from .config import Config

FOLDS = 5
SETTINGS = [f.name for f in dataclasses.fields(Config) if f.name not in ("backbone", "method", "seed")]
RUNS = ["methods", "seeds", "variants"]


@dataclasses.dataclass(frozen=True)
class Profile:
    """One profile of experiments.toml: which corpora, and per backbone the methods, seeds and training settings.

    Attributes
    ----------
    corpora : list of str
        Names of registered corpora, a subset behind a colon: ["icbhi:sc", "sprsound"]. Every one is tested on.
    train_on : str
        The corpus whose training split is trained on; default the first.
    split : str
        "official"; "official_disjoint", where no patient is on both sides; or "folds", where nothing is tested on but
        each fifth of the training patients in turn, by runs that were not trained on them: settings are chosen there.
    """

    name: str
    corpora: list
    backbones: dict
    train_on: str = ""
    split: str = "official"

    def __post_init__(self):
        if not isinstance(self.corpora, list) or not self.corpora or not all(isinstance(c, str) for c in self.corpora):
            raise ConfigError(f"profile {self.name}: corpora should be a list of names, it is {self.corpora!r}")
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"profile {self.name}: each corpus can be named once: {', '.join(self.corpora)}")
        object.__setattr__(self, "train_on", self.train_on or self.names[0])
        known = {"train_on": self.names, "split": ("official", "official_disjoint", "folds")}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"profile {self.name}: {name} is '{getattr(self, name)}', not {' or '.join(values)}")

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

        The label is the method; a variant's names what it changes, too: "qlung lam=0.8".
        """
        out = []
        for name, row in self.backbones.items():
            _check_keys(f"profile {self.name}, backbone {name}", row, [*SETTINGS, *RUNS], ("methods", "seeds"))
            settings = {key: value for key, value in row.items() if key not in RUNS}
            rows = [(method, {"method": method}) for method in row["methods"]]
            rows += [pair for variant in row.get("variants", []) for pair in _expand(variant)]
            for label, own in rows:
                _check_keys(f"profile {self.name}, variant '{label}'", own, ["method", *SETTINGS])
                out += [(label, Config(backbone=name, seed=seed, **settings | own)) for seed in row["seeds"]]
        chosen = [
            (label, c) for label, c in out
            if backbone in ("", c.backbone) and method in ("", c.method) and seed in (-1, c.seed)
        ]  # fmt: skip
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
    return [(" ".join([v.get("method", "?"), *(f"{k}={x}" for k, x in v.items() if k != "method")]), v) for v in each]


def _check_keys(where: str, given: dict, known: list[str], needed: tuple[str, ...] = ()) -> None:
    """Refuse a key that is not known, and a list or table that is needed and absent or empty."""
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: should be a table with {', '.join(needed)}, it is {given!r}")
    for key in [*given, *needed]:
        if key not in known or (key in needed and not isinstance(given.get(key) or None, list | dict)):
            raise ConfigError(f"{where}: '{key}' is unknown or missing: {choices(key, known)}")


def load_profile(name: str, table: str = "") -> Profile:
    """Read one profile of experiments.toml, or of another such table; ConfigError names what is wrong in it."""
    path = Path(table).expanduser() if table else paths.EXPERIMENTS
    try:
        rows = dict(tomllib.loads(path.read_text(encoding="utf-8"))["profiles"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"'{path}' is no table of profiles: {error!r}. experiments.toml shows the form.") from error
    if name not in rows:
        raise ConfigError(f"unknown profile '{name}': {choices(name, rows)}")
    keys = [field.name for field in dataclasses.fields(Profile)][1:]
    _check_keys(f"profile {name}", rows[name], keys, ("corpora", "backbones"))
    return Profile(name, **rows[name])


def open_corpora(profile: str, data: str = "", table: str = "") -> dict[str, Corpus]:
    """The profile's corpora by name, in its order; recordings are read under ``data`` (default ``data/``)."""
    row = load_profile(profile, table)
    if data and not row.recorded:
        raise ConfigError(f"profile '{profile}' uses synthetic corpora; DATA='{data}' goes with PROFILE=sc")
    named = (corpus.partition(":") for corpus in row.corpora)
    roots = {True: data or None, False: None}  # recorded, or made by this package
    return {name: load_corpus(name, roots[find(name).recorded], subset or None) for name, _, subset in named}


def parts(profile: str, data: str = "", table: str = "") -> list[tuple[Corpus, dict[str, Corpus]]]:
    """(training corpus, test corpora by name) of a profile: one pair, or one for each fold."""
    row, corpora = load_profile(profile, table), open_corpora(profile, data, table)
    if row.split == "official_disjoint":
        corpora[row.train_on] = official_disjoint(corpora[row.train_on])
    train = corpora[row.train_on].select("train")
    if row.split == "folds":
        return [(c.select("train"), {"validation": c.select("test")}) for c in grouped_folds(train, FOLDS)]
    return [(train, {name: corpus.select("test") for name, corpus in corpora.items()})]
