"""Profiles: which corpora, backbones, methods and seeds make a study, and training all of it."""

import dataclasses
import itertools
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_model

from . import paths, quality
from .corpora import Corpus, load_corpus
from .corpora.splits import grouped_folds, official_disjoint
from .errors import ConfigError, CorpusError
from .model import Model
from .training import Config, fit

FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Profile:
    """One profile of experiments.toml: which corpora, and per backbone the methods, seeds and training settings.

    Notes
    -----
    train_on : "icbhi" or "sprsound".
    split : "official"; "official_disjoint", where no patient is on both sides; or "folds", where nothing is tested on
        but each fifth of the training patients in turn, by runs that never heard them: there settings are chosen.
    """

    name: str
    corpora: str
    subset: str
    backbones: dict
    train_on: str = "icbhi"
    split: str = "official"

    def __post_init__(self):
        known = {"train_on": ("icbhi", "sprsound"), "split": ("official", "official_disjoint", "folds")}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"profile {self.name}: {name} is '{getattr(self, name)}', not {' or '.join(values)}")

    def rows(self, backbone: str = "", method: str = "", seed: int = -1) -> list[tuple[str, Config]]:
        """(label, run) of every run, backbones outermost, seeds innermost; or of one backbone, method or seed.

        The label is the method; a variant's names what it changes, too: "qlung lam=0.8".
        """
        out, known = [], {field.name for field in dataclasses.fields(Config)}
        for name, row in self.backbones.items():
            settings = {k: v for k, v in row.items() if k not in ("methods", "seeds", "variants")}
            if wrong := sorted(set(settings) - known) or [k for k in ("methods", "seeds") if not row.get(k)]:
                raise ConfigError(f"profile {self.name}, backbone {name}: '{wrong[0]}' is unknown or missing")
            rows = [(m, {"method": m}) for m in row["methods"]]
            rows += [pair for variant in row.get("variants", []) for pair in _expand(variant)]
            for label, own in rows:
                if wrong := sorted(set(own) - known):
                    raise ConfigError(f"profile {self.name}, variant '{label}': '{wrong[0]}' is no setting of a run")
                out += [(label, Config(backbone=name, seed=n, **settings | own)) for n in row["seeds"]]
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
    """{method = "qlung", lam = [0, 1]} stands for two variants; several lists for all their combinations."""
    lists = [value if isinstance(value, list) else [value] for value in variant.values()]
    each = [dict(zip(variant, values, strict=True)) for values in itertools.product(*lists)]
    return [(" ".join([v.get("method", "?"), *(f"{k}={x}" for k, x in v.items() if k != "method")]), v) for v in each]


def load_profile(name: str, table: str = "") -> Profile:
    """Read one profile of experiments.toml, or of another such table."""
    path = Path(table).expanduser() if table else paths.EXPERIMENTS
    try:
        rows = {key: Profile(key, **row) for key, row in tomllib.loads(path.read_text())["profiles"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"'{path}' is no table of profiles: {error!r}. experiments.toml shows the form.") from error
    if name not in rows:
        raise ConfigError(f"unknown profile '{name}': choose from {', '.join(rows)}")
    return rows[name]


def open_corpora(profile: str, data: str = "", table: str = "") -> tuple[Corpus, Corpus]:
    """The profile's ICBHI and SPRSound corpora: synthetic for demo, else read under ``data`` (default ``data/``)."""
    row = load_profile(profile, table)
    if row.corpora == "synthetic":
        if data:
            raise ConfigError(f"profile '{profile}' uses synthetic corpora; DATA='{data}' goes with PROFILE=sc")
        return load_corpus("synthetic"), load_corpus("synthetic", subset="sprsound")
    root = Path(data).expanduser() if data else paths.data_dir()
    if not root.is_dir():
        raise CorpusError(f"there is no folder '{root}'. Give the folder that holds icbhi/ and sprsound/: DATA=DIR")
    return load_corpus("icbhi", root, row.subset or None), load_corpus("sprsound", root)


def parts(profile: str, data: str = "", table: str = "") -> list[tuple[Corpus, dict[str, Corpus]]]:
    """(training corpus, test corpora by name) of a profile: one pair, or one for each fold."""
    row, (icbhi, sprsound) = load_profile(profile, table), open_corpora(profile, data, table)
    icbhi = official_disjoint(icbhi) if row.split == "official_disjoint" else icbhi
    train = (icbhi if row.train_on == "icbhi" else sprsound).select("train")
    if row.split == "folds":
        return [(c.select("train"), {"validation": c.select("test")}) for c in grouped_folds(train, FOLDS)]
    return [(train, {"icbhi": icbhi.select("test"), "sprsound": sprsound.select("test")})]


def train_all(profile: str, data: str = "", say=lambda share, line: None, **which) -> pd.DataFrame:
    """Train (or reuse) every run of a profile, or those of one ``backbone``, ``method`` or ``seed``, stacked.

    Parameters
    ----------
    say : callable
        Receives the share of epochs done, 0 to 1, and a line, after every epoch.

    Returns
    -------
    DataFrame
        ``Run.predictions`` with backbone, method (the label of `Profile.rows`), seed, run (its folder's name),
        patient_id, device and aqs (of each test clip, scorer fitted on the training clips; NaN where it cannot be
        computed).
    """
    out, done, rows, pairs = [], 0, load_profile(profile).rows(**which), parts(profile, data)
    total = len(pairs) * sum(config.epochs for _, config in rows)
    for train, tests in pairs:
        clips = _clips(train, tests)
        for label, config in rows:
            run = fit(config, train, tests, profile, lambda n, line, before=done: say((before + n) / total, line))
            done += config.epochs
            told = {"backbone": config.backbone, "method": label, "seed": config.seed, "run": run.folder.name}
            out.append(run.predictions().assign(**told).merge(clips, on="event_id", validate="many_to_one"))
    return pd.concat(out, ignore_index=True)


def networks(profile: str, predictions: pd.DataFrame, backbone: str) -> dict[tuple[str, int], Model]:
    """The finished networks of one backbone behind a table of predictions, ready to be asked again.

    Parameters
    ----------
    predictions : DataFrame
        From `train_all`, or some of its rows: columns backbone, method, seed, run.

    Returns
    -------
    dict of (method, seed) -> Model
        In the order of the profile.
    """
    own = predictions[predictions["backbone"] == backbone].groupby(["method", "seed"])["run"].first()
    out = {}
    for label, config in load_profile(profile).rows(backbone):
        if (label, config.seed) in own:
            folder = paths.runs_dir(profile) / f"{backbone}-{config.method}" / own[label, config.seed]
            out[label, config.seed] = Model(config)
            load_model(out[label, config.seed], folder / "model.safetensors")
    return out


def _clips(train: Corpus, tests: dict[str, Corpus]) -> pd.DataFrame:
    """event_id, patient_id, device and AQS of every test clip."""
    scorer = quality.QualityScorer().fit(*quality.measure(train).T)
    out = []
    for test in tests.values():
        h, r = quality.measure(test).T
        known = np.where(np.isfinite(h) & np.isfinite(r), scorer.score(h, r), np.nan)
        told = test.events[["event_id", "recording_id"]].assign(aqs=known)
        out.append(told.merge(test.recordings[["recording_id", "patient_id", "device"]]).drop(columns="recording_id"))
    return pd.concat(out)
