"""Profiles, typed notebook execution, and the book as one batch."""

import ast
import dataclasses
import hashlib
import json
import time
import tomllib
from pathlib import Path

import nbformat
import pandas as pd

from . import paths
from .corpora import Corpus, load_corpus
from .errors import ConfigError, CorpusError, QlungError
from .training import Config, fit


@dataclasses.dataclass(frozen=True)
class Profile:
    """One row of experiments.toml: which corpora, backbones, methods, seeds and epochs."""

    name: str
    corpora: str
    subset: str
    backbones: list
    methods: list
    seeds: list
    training: dict

    def configs(self) -> list[Config]:
        """Every run of the profile, backbones outermost, seeds innermost."""
        return [
            Config(method=method, backbone=backbone, seed=seed, **self.training[backbone])
            for backbone in self.backbones
            for method in self.methods
            for seed in self.seeds
        ]


def load_profile(name: str) -> Profile:
    """Read one profile of experiments.toml."""
    rows = tomllib.loads(paths.EXPERIMENTS.read_text())["profiles"]
    if name not in rows:
        raise ConfigError(f"unknown profile '{name}': choose from {', '.join(rows)}")
    return Profile(name=name, **rows[name])


def open_corpora(profile: str, data: str = "") -> tuple[Corpus, Corpus]:
    """The profile's ICBHI and SPRSound corpora: synthetic for demo, else read under ``data`` (default ``data/``)."""
    row = load_profile(profile)
    if row.corpora == "synthetic":
        if data:
            raise ConfigError(f"profile '{profile}' uses synthetic corpora; DATA='{data}' goes with PROFILE=sc")
        return load_corpus("synthetic"), load_corpus("synthetic", subset="sprsound")
    root = Path(data).expanduser() if data else paths.data_dir()
    if not root.is_dir():
        raise CorpusError(f"there is no folder '{root}'. Give the folder that holds icbhi/ and sprsound/: DATA=DIR")
    return load_corpus("icbhi", root, row.subset or None), load_corpus("sprsound", root)


def train_all(profile: str, data: str = "", say=print) -> pd.DataFrame:
    """Train (or reuse) every run of a profile; all predictions, with backbone, method, seed and corpus."""
    icbhi, sprsound = open_corpora(profile, data)
    tests = {"icbhi": icbhi.select("test"), "sprsound": sprsound.select("test")}
    out = []
    for config in load_profile(profile).configs():
        run = fit(config, icbhi.select("train"), tests, profile, say)
        out.append(
            run.predictions().assign(
                backbone=config.backbone, method=config.method, seed=config.seed, run=run.folder.name
            )
        )
    return pd.concat(out, ignore_index=True)


def parameters_of(notebook: Path) -> dict:
    """Names and default values of a notebook's cell tagged "parameters"."""
    cells = [c for c in nbformat.read(notebook, 4).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ConfigError(f"{notebook.name} has {len(cells)} cells tagged 'parameters', expected one")
    values = {}
    for node in ast.parse(cells[0].source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            values[target.id] = ast.literal_eval(node.value)
    return values


def check_parameters(notebook: Path, given: dict) -> dict:
    """Refuse a misspelt or ill-typed parameter before anything runs (papermill would pass it on)."""
    known = parameters_of(notebook)
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{notebook.name} has no parameter '{name}': it takes {', '.join(known)}")
        if type(value) is not type(known[name]):
            want = type(known[name]).__name__
            raise ConfigError(f"{notebook.name}: {name} should be {want}, it is {value!r} ({type(value).__name__})")
    return given


def run_notebook(notebook: Path, output: Path, parameters: dict) -> Path:
    """Execute one notebook headless; a failed one is kept as ``*.failed.ipynb`` beside where it would have gone."""
    import papermill

    check_parameters(notebook, parameters)
    part = output.with_suffix(".failed.ipynb")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(notebook, part, parameters, progress_bar=False, kernel_name="python3")
    except papermill.PapermillExecutionError as error:
        raise QlungError(f"{notebook.name} stopped: {error.ename}: {error.evalue}. See '{part}'.") from error
    part.replace(output)
    return output


def _key(notebook: Path, parameters: dict, corpora) -> str:
    """Hash of everything a notebook's result depends on: its source, qlung's code, the profile and the data."""
    code = [notebook, paths.EXPERIMENTS, *sorted((paths.ROOT / "qlung").rglob("*.py"))]
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for path in code:
        digest.update(path.read_bytes())
    for corpus in corpora:
        digest.update(corpus.fingerprint().encode())
    return digest.hexdigest()


def reproduce(profile: str, data: str = "", force: bool = False, say=print) -> pd.DataFrame:
    """Run the book in order on one profile, reusing what has not changed.

    Returns
    -------
    DataFrame
        One row a notebook: notebook, what ("ran" or "reused"), seconds.
    """
    corpora = open_corpora(profile, data)
    out = paths.runs_dir(profile)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write results to '{out}': {error.strerror}; set QLUNG_RUNS to another folder"
        ) from error
    parameters = {"profile": profile, "data": str(Path(data).expanduser().resolve()) if data else ""}
    rows = []
    for notebook in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb")):
        started, output = time.perf_counter(), out / "notebooks" / notebook.name
        stamp, key = output.with_suffix(".key"), _key(notebook, parameters, corpora)
        fresh = output.is_file() and stamp.is_file() and stamp.read_text() == key
        if force or not fresh:
            say(f"{notebook.stem} ...")
            stamp.unlink(missing_ok=True)
            run_notebook(notebook, output, parameters)
            stamp.write_text(key)
        rows.append((notebook.stem, "reused" if fresh and not force else "ran", time.perf_counter() - started))
    return pd.DataFrame(rows, columns=["notebook", "what", "seconds"])
