"""Every run of a profile through Dask: one papermill run of notebook 04 each, on one machine or a cluster."""

import contextlib
import functools
import time
from pathlib import Path

import pandas as pd

from .. import paths
from ..errors import ConfigError
from ..training import profiles, runs
from . import engine, notebooks, slurm


def plan(profile: str, data: str = "", table: str = "") -> list[tuple[str, Path, dict]]:
    """(name, folder, parameters of notebook 04) of every run; a wrong row stops a sweep at once."""
    rows = profiles.load_profile(profile, table).rows()
    pair, *more = profiles.parts(profile, data, table)
    if more:
        raise ConfigError(f"profile '{profile}' has folds, which notebook 04 can't take: use `qlung train`")
    data, table = (str(Path(value).expanduser().resolve()) if value else "" for value in (data, table))
    out = []
    for label, c in rows:
        parameters = {"profile": profile, "data": data, "table": table, "backbone": c.backbone, "method": label}
        folder = runs.run_folder(profile, c, *pair)
        out.append((f"{c.name} {folder.name}", folder, parameters | {"seed": c.seed}))
    return out


def run_row(notebook: Path, folder: Path, parameters: dict) -> None:
    """Execute one row in a worker; what goes wrong is also left in error.txt."""
    try:
        notebooks.run_notebook(notebook, folder / "train.ipynb", parameters)
    except Exception as error:
        (folder / "error.txt").write_text(str(error), encoding="utf-8")
        raise
    (folder / "error.txt").unlink(missing_ok=True)


def sweep(
    profile: str, data: str = "", table: str = "", scheduler: str = "", jobs: int = 0, progress=lambda *_: None,
    cluster: str = "",
) -> pd.DataFrame:  # fmt: skip
    """Run what is not done yet of a profile; stop it at any time and call it again to go on.

    A row whose worker dies goes to another one, three times at most, and resumes its checkpoint there. A row that
    fails leaves error.txt and train.failed.ipynb in its folder, and the rest goes on.

    Parameters
    ----------
    table : str
        Another experiments.toml; "" is the repository's.
    scheduler : str
        Address of a Dask scheduler whose workers see the same files; "" starts ``jobs`` processes here. If a worker
        offers the resource GPU, every row takes one.
    progress : callable
        Receives the share of the rows to run that are done, 0 to 1, and a line, after every row.
    cluster : str
        A TOML file whose table [slurm] says what jobs to submit (`slurm.Jobs`); they are the workers.

    Returns
    -------
    DataFrame
        One row per run: run, what ("ran", "reused", "failed", or "waiting"), seconds since the start, error. It is
        written to sweep.csv after every row.
    """
    started, notebook, planned = time.perf_counter(), paths.NOTEBOOKS / "04_train.ipynb", plan(profile, data, table)
    tasks = {
        name: functools.partial(run_row, notebook, folder, parameters) for name, folder, parameters in planned
        if not (runs.is_finished(folder) and (folder / "train.ipynb").is_file())
    }  # fmt: skip
    rows = {name: ("waiting" if name in tasks else "reused", 0.0, "") for name, *_ in planned}

    def write() -> pd.DataFrame:
        table = pd.DataFrame([(name, *row) for name, row in rows.items()], columns=["run", "what", "seconds", "error"])
        paths.write_atomically(paths.runs_dir(profile) / "sweep.csv", lambda part: table.to_csv(part, index=False))
        return table

    if tasks:
        submitted = slurm.submitted(cluster, len(tasks), paths.runs_dir(profile) / "slurm") if cluster else None
        with submitted or contextlib.nullcontext(scheduler) as at, engine.connect(len(tasks), at, jobs) as client:
            for name, future in engine.run(client, tasks, progress):
                error = str(future.exception() or "")
                rows[name] = ("failed" if error else "ran", round(time.perf_counter() - started, 1), error)
                write()
    return write()
