"""The whole book on one profile: its runs, its notebooks and its results page, as many at once as there are cores."""

import functools
import hashlib
import os
import time
from pathlib import Path

import pandas as pd

from .. import evaluation, paths
from ..training import experiments, fit, profiles, runs
from . import engine, notebooks, results

FIRST_WITH_RUNS = "04_train"  # notebooks before this one read no runs: they run beside the training
TRAINING = "train every run"

# a worker trains many runs of one profile, and opens its corpora once
_parts = functools.lru_cache(maxsize=1)(profiles.parts)


def _train_run(profile: str, data: str, table: str, part: int, config) -> None:
    train, tests = _parts(profile, data, table)[part]
    fit(config, train, tests, profile, lambda epoch, line: engine.report(epoch / config.epochs, line))


def _run_notebook(notebook: Path, output: Path, parameters: dict, key: str) -> float:
    """Execute one notebook; returns seconds. ``key`` says later what it was made from."""
    started, stamp = time.perf_counter(), output.with_suffix(".key")
    stamp.unlink(missing_ok=True)
    notebooks.run_notebook(notebook, output, parameters)
    stamp.write_text(key, encoding="utf-8")
    return time.perf_counter() - started


def _unfinished(profile: str, data: str, committed=(), **which) -> dict:
    """A task of `engine.run` for every run that is not finished and whose configuration isn't among ``committed``."""
    tasks, table = {}, str(paths.EXPERIMENTS)
    pairs = profiles.parts(profile, data)
    for config in profiles.load_profile(profile).configs(**which):  # a row's parts one after the other
        for part, pair in enumerate(pairs if config not in committed else ()):
            folder = runs.run_folder(profile, config, *pair)
            if not runs.is_finished(folder):
                task = functools.partial(_train_run, profile, data, table, part, config)
                tasks[f"{config.name} {folder.name}"] = task
    return tasks


def train_rest(profile: str, data: str = "", progress=lambda share, line: None, committed=(), **which) -> None:
    """Train what `_unfinished` finds, several runs at once."""
    if tasks := _unfinished(profile, data, committed, **which):
        with engine.connect(len(tasks)) as client:
            for name, future in engine.run(client, tasks, progress):
                engine.result(name, future)


def train_all(profile: str, data: str = "", progress=lambda share, line: None, **which) -> pd.DataFrame:
    """Train (or reuse) the runs of a profile, or of one ``backbone``, ``method`` or ``seed``, several at once.

    Returns what `experiments.load_predictions` gives.
    """
    if "WORLD_SIZE" in os.environ:  # under torchrun every process takes its share of every batch instead
        return experiments.train_all(profile, data, progress, **which)
    train_rest(profile, data, progress, **which)
    return experiments.load_predictions(profile, data, **which)


def _key(notebook: Path, parameters: dict, corpora) -> str:
    """Hash of all a notebook's result depends on: its source, qlung, profiles, claims, committed studies and data."""
    code = sorted(path for path in (paths.ROOT / "qlung").rglob("*.*") if path.suffix != ".pyc")
    files = [notebook, paths.EXPERIMENTS, paths.CLAIMS, *code, *sorted(paths.ROOT.glob("figures/*/*.parquet"))]
    digest = hashlib.sha256(repr([parameters, [corpus.fingerprint() for corpus in corpora]]).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def reproduce(profile: str, data: str = "", force: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a profile's runs, run the book and write the results page, reusing what has not changed.

    Returns
    -------
    steps, means : DataFrame
        One row per step: step, what ("ran" or "reused"), seconds; and mean ± sd over seeds, for people.
    """
    corpora, started = profiles.open_corpora(profile, data).values(), time.perf_counter()
    home = paths.runs_dir(profile) / "notebooks"
    with paths.lock(home / ".lock", timeout=0):  # shows an unwritable place, too, before the training
        parameters = {"profile": profile, "data": str(Path(data).expanduser().resolve()) if data else ""}
        seconds, training, first, rest = {TRAINING: 0.0}, _unfinished(profile, data), {}, {}
        for notebook in sorted(notebooks.book()):
            output, key, name = home / notebook.name, _key(notebook, parameters, corpora), notebook.stem
            stamp, seconds[name] = output.with_suffix(".key"), 0.0
            if force or not (output.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == key):
                stage = rest if name >= FIRST_WITH_RUNS else first
                stage[name] = functools.partial(_run_notebook, notebook, output, parameters, key)
        if tasks := len(first) + len(training) + len(rest):
            with engine.connect(tasks) as client:
                for title, stage in (("runs", first | training), ("notebooks with runs", rest)):
                    with notebooks.progress_bar(title) as progress:
                        for name, future in engine.run(client, stage, progress):
                            took = engine.result(name, future)
                            seconds |= {TRAINING: time.perf_counter() - started} if name in training else {name: took}
        predictions = experiments.load_predictions(profile, data)
        results.write_results(profile, predictions)
        steps = pd.DataFrame(list(seconds.items()), columns=["step", "seconds"])
        steps.insert(1, "what", steps["seconds"].gt(0).map({True: "ran", False: "reused"}))
        return steps, results.pretty(evaluation.scores(predictions)[1])
