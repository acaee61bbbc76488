"""The whole book on one profile: its runs, its notebooks and its results page, as many at once as there are cores."""

import functools
import hashlib
import json
import os
import time
from pathlib import Path

import pandas as pd

from .. import evaluation, paths
from ..errors import ConfigError
from ..training import experiments, fit, profiles, runs
from . import engine, notebooks, results

FIRST_WITH_RUNS = "04_train"  # notebooks before this one read no runs, so they need not wait for them


@functools.lru_cache(maxsize=1)  # a worker trains many runs of one profile, and opens its corpora once
def _parts(profile: str, data: str, table: str) -> list:
    return profiles.parts(profile, data, table)


def _train_run(profile: str, data: str, table: str, part: int, config) -> None:
    """Train one run, in a worker."""
    train, tests = _parts(profile, data, table)[part]
    fit(config, train, tests, profile, lambda epoch, line: engine.report(epoch / config.epochs, line))


def _run_notebook(notebook: Path, output: Path, parameters: dict, key: str, _runs: list) -> float:
    """Execute one notebook in a worker, after ``_runs``; returns seconds. ``key`` says later what it was made from."""
    started, stamp = time.perf_counter(), output.with_suffix(".key")
    stamp.unlink(missing_ok=True)
    notebooks.run_notebook(notebook, output, parameters)
    stamp.write_text(key, encoding="utf-8")
    return time.perf_counter() - started


def _unfinished(profile: str, data: str, **which) -> dict[str, tuple]:
    """Arguments of `_train_run` for every run that is not finished, by the name of its folder."""
    out, table = {}, str(paths.EXPERIMENTS)
    for part, pair in enumerate(profiles.parts(profile, data)):
        for _, config in profiles.load_profile(profile).rows(**which):
            folder = runs.run_folder(profile, config, *pair)
            if not runs.is_finished(folder):
                out[folder.name] = (profile, data, table, part, config)
    return out


def _submit_runs(client, unfinished: dict[str, tuple]) -> dict:
    """Future -> name of every run."""
    resources = engine.needs(client)
    return {
        client.submit(_train_run, *given, key=f"train-{folder}", resources=resources): given[-1].name
        for folder, given in unfinished.items()
    }


def train_all(profile: str, data: str = "", progress=lambda share, line: None, **which) -> pd.DataFrame:
    """Train (or reuse) the runs of a profile, or of one ``backbone``, ``method`` or ``seed``, several at once.

    Returns
    -------
    DataFrame
        As `experiments.load_predictions` gives it.
    """
    if "WORLD_SIZE" in os.environ:  # under torchrun every process takes its share of every batch instead
        return experiments.train_all(profile, data, progress, **which)
    if unfinished := _unfinished(profile, data, **which):
        with engine.connect(tasks=len(unfinished)) as client:
            for name, future in engine.as_they_end(client, _submit_runs(client, unfinished), progress):
                engine.result(name, future)
    return experiments.load_predictions(profile, data, **which)


def _key(notebook: Path, parameters: dict, corpora) -> str:
    """Hash of all a notebook's result depends on: its source, qlung, profiles, claims, committed studies and data."""
    code = [notebook, paths.EXPERIMENTS, paths.CLAIMS, *sorted((paths.ROOT / "qlung").rglob("*.py"))]
    code += sorted(paths.ROOT.glob("figures/*/*.parquet"))
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for path in code:
        digest.update(path.read_bytes())
    for corpus in corpora:
        digest.update(corpus.fingerprint().encode())
    return digest.hexdigest()


def reproduce(profile: str, data: str = "", force: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a profile's runs, run the book and write the results page, reusing what has not changed.

    Returns
    -------
    steps, means : DataFrame
        One row per step: step, what ("ran" or "reused"), seconds; and mean ± sd over seeds, for people.
    """
    corpora = profiles.open_corpora(profile, data).values()
    out = paths.runs_dir(profile)
    try:
        (out / "notebooks").mkdir(parents=True, exist_ok=True)
        (out / "notebooks" / ".writable").touch()
    except OSError as error:
        what = f"cannot write results to '{out}': {error.strerror}"
        raise ConfigError(f"{what}. Make it writable, or set QLUNG_RUNS to another folder.") from error
    parameters = {"profile": profile, "data": str(Path(data).expanduser().resolve()) if data else ""}
    steps, stale, started = {"train every run": ("reused", 0.0)}, [], time.perf_counter()
    for notebook in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb")):
        output, key = out / "notebooks" / notebook.name, _key(notebook, parameters, corpora)
        stamp, steps[notebook.stem] = output.with_suffix(".key"), ("reused", 0.0)
        if force or not (output.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == key):
            stale.append((notebook, output, parameters, key))
    unfinished = _unfinished(profile, data)
    if unfinished or stale:
        with (
            engine.connect(tasks=len(unfinished) + len(stale)) as client,
            notebooks.progress_bar("the book") as progress,
        ):
            trained, resources = _submit_runs(client, unfinished), engine.needs(client)
            futures = dict(trained)
            for notebook, *given in stale:
                wait = list(trained) if notebook.stem >= FIRST_WITH_RUNS else []
                future = client.submit(_run_notebook, notebook, *given, wait, pure=False, resources=resources)
                futures[future] = notebook.stem
            for name, future in engine.as_they_end(client, futures, progress):
                seconds = engine.result(name, future)
                if future in trained:
                    name, seconds = "train every run", time.perf_counter() - started
                steps[name] = ("ran", seconds)
    predictions = experiments.load_predictions(profile, data)
    results.write_results(profile, predictions)
    table = pd.DataFrame([(step, *row) for step, row in steps.items()], columns=["step", "what", "seconds"])
    return table, results.pretty(evaluation.scores(predictions)[1])
