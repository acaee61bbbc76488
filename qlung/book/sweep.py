"""Every run of a profile through Dask: one papermill run of notebook 04 each, on one machine or a cluster."""

import time
from pathlib import Path

import pandas as pd
from distributed import as_completed

from .. import paths
from ..errors import ConfigError, QlungError
from ..training import profiles, runs
from . import engine, notebooks


def plan(profile: str, data: str = "", table: str = "") -> list[tuple[str, Path, dict]]:
    """(name, folder, checked parameters of notebook 04) of every run, so that a wrong row stops a sweep at once."""
    rows = profiles.load_profile(profile, table).rows()
    (train, tests), *more = profiles.parts(profile, data, table)
    if more or any(label != c.method for label, c in rows):
        raise ConfigError(f"profile '{profile}' has folds or variants, which notebook 04 can't take: use `qlung train`")
    given = {name: str(Path(value).expanduser().resolve()) if value else "" for name, value in
             (("data", data), ("table", table))}  # fmt: skip
    out = []
    for _, c in rows:
        parameters = {"profile": profile, **given, "backbone": c.backbone, "method": c.method, "seed": c.seed}
        notebooks.check_parameters(paths.NOTEBOOKS / "04_train.ipynb", parameters)
        out.append((c.name, runs.run_folder(profile, c, train, tests), parameters))
    return out


def is_done(folder: Path) -> bool:
    """Whether a row has both its run and its executed notebook."""
    return runs.is_finished(folder) and (folder / "train.ipynb").is_file()


def run_row(notebook: Path, folder: Path, parameters: dict) -> str:
    """Execute one row in a worker; "" or what went wrong, which is also left in error.txt."""
    if is_done(folder):  # Dask asks again when the worker that held the answer died
        return ""
    try:
        notebooks.run_notebook(notebook, folder / "train.ipynb", parameters)
    except QlungError as error:
        message = str(error)
        paths.write_atomically(folder / "error.txt", lambda part: part.write_text(message, encoding="utf-8"))
        return message
    (folder / "error.txt").unlink(missing_ok=True)
    return ""


def sweep(profile: str, data: str = "", table: str = "", scheduler: str = "", jobs: int = 0, progress=lambda *_: None):
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
        Receives the share of rows done, 0 to 1, and a line, after every row.

    Returns
    -------
    DataFrame
        One row per run: run, what ("ran", "reused" or "failed"), seconds since the start, error. Also in sweep.csv.
    """
    started, rows = time.perf_counter(), []

    def note(name: str, what: str, error: str = "") -> None:
        rows.append((name, what, round(time.perf_counter() - started, 1), error))
        frame = pd.DataFrame(rows, columns=["run", "what", "seconds", "error"])
        paths.write_atomically(paths.runs_dir(profile) / "sweep.csv", lambda part: frame.to_csv(part, index=False))
        failed = sum(row[1] == "failed" for row in rows)
        progress(len(rows) / len(planned), f"{len(rows)} of {len(planned)} done, {failed} failed; {name}: {what}")

    planned, notebook = plan(profile, data, table), paths.NOTEBOOKS / "04_train.ipynb"
    for name, folder, _ in planned:
        if is_done(folder):
            note(name, "reused")
    if todo := [row for row in planned if not is_done(row[1])]:
        with engine.connect(scheduler, jobs, len(todo)) as client:
            resources, futures = engine.needs(client), {}
            for name, folder, parameters in todo:
                key = f"qlung-{folder.name}"  # the same for everybody: two sweeps share a row
                row = client.submit(run_row, notebook, folder, parameters, key=key, retries=2, resources=resources)
                futures[row] = name
            for future in as_completed(futures):
                error = str(future.exception() or "") or future.result()
                note(futures.pop(future), "failed" if error else "ran", error)
    return pd.DataFrame(rows, columns=["run", "what", "seconds", "error"])
