"""The command line: qlung reproduce | train | sweep | check | listen | data."""

import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress
from rich.table import Table

from .. import cache, paths
from ..corpora import fetch as fetching
from ..corpora import verify
from ..errors import QlungError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
data = typer.Typer(no_args_is_help=True, help="Get, check and look after the corpora, the weights and the cache.")
app.add_typer(data, name="data")
console = Console(soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 160)


def show(frame, title: str) -> None:
    """Print a DataFrame as a table."""
    table = Table(*map(str, frame.columns), title=title, title_justify="left")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row))
    console.print(table)


@app.callback()
def needs() -> None:
    """What every command needs is checked first."""
    if sys.platform == "win32":
        raise QlungError("Windows is not supported: use WSL 2, and the same commands inside it")
    if not paths.EXPERIMENTS.is_file():
        raise QlungError("run this from a checkout, which holds the experiments and notebooks: see README.md")


@app.command()
def reproduce(profile: str = "demo", data: str = "", force: bool = False) -> None:
    """Run the whole book on one profile; results go under runs/PROFILE/."""
    from . import reproduce as book  # commands import what they need: `qlung data` should not wait for torch

    steps, means = book.reproduce(profile, data, force)
    show(steps, f"the book on profile {profile}")
    show(means, "mean ± sd over seeds, percent")
    console.print(f"results page, figures and executed notebooks: {paths.runs_dir(profile)}")


@app.command()
def train(
    profile: str = "demo", data: str = "", backbone: str = "", method: str = "", seed: int = -1, rest: bool = False
) -> None:
    """Train (or reuse) the runs of a profile, or of one backbone, method or seed, without the notebooks.

    With --rest, train only the rows that are not committed in figures/PROFILE: a long study goes on, on any machine.
    """
    from .. import evaluation
    from . import notebooks, reproduce, results

    if rest:
        done = results.committed(profile)
        with notebooks.progress_bar("training") as progress:
            reproduce.train_rest(profile, data, progress, done, backbone=backbone, method=method, seed=seed)
        return console.print(f"{len(done)} rows are committed, the rest is in {paths.runs_dir(profile)}")
    with notebooks.progress_bar("training") as progress:
        found = reproduce.train_all(profile, data, progress, backbone=backbone, method=method, seed=seed)
    show(results.pretty(evaluation.scores(found)[1]), f"{found['run'].nunique()} runs, mean ± sd over seeds")


@app.command()
def sweep(
    table: str = typer.Argument(""), profile: str = "demo", data: str = "", scheduler: str = "", jobs: int = 0,
    slurm: str = "", dry_run: bool = False,
) -> None:  # fmt: skip
    """Run notebook 04 once for every run of a profile, in parallel; stop it at any time and call it again.

    TABLE is another experiments.toml, --scheduler the address of a Dask scheduler, --jobs the number of processes here.
    --slurm names a TOML file that says what jobs to submit to Slurm; with --dry-run their script is printed.
    """
    from . import notebooks
    from .slurm import cluster, load
    from .sweep import sweep as run

    if dry_run:
        with cluster(load(slurm), paths.runs_dir(profile) / "slurm") as jobs_of_slurm:
            return console.print(jobs_of_slurm.job_script())
    if slurm:
        console.print(f"submitting jobs: squeue shows them, and they print into {paths.runs_dir(profile) / 'slurm'}")
    with notebooks.progress_bar("sweep") as progress:
        rows = run(profile, data, table, scheduler, jobs, progress, slurm)
    show(rows, f"sweep of {profile}: {rows['what'].value_counts().to_dict()}")
    raise typer.Exit(int((rows["what"] == "failed").any()))


@app.command()
def check(
    profile: str = "demo", data: str = "", committed: bool = False, retrain: int = 0, backbone: str = "",
    method: str = "", seed: int = -1,
) -> None:  # fmt: skip
    """Judge the paper's claims from a profile's finished runs, and write its results page.

    With --committed the claims are judged from the studies in figures/, without data. With --retrain N, N committed
    rows of a study (of one backbone, method or seed) are trained again, and their mean Score is compared; exits 1 where
    it lies outside of the band.
    """
    from ..training import experiments
    from . import notebooks, results

    if retrain:
        with notebooks.progress_bar("training again") as progress:
            found = results.retrained(profile, data, retrain, progress, backbone=backbone, method=method, seed=seed)
        show(found, f"{profile}: rows trained again, mean Score")
        raise typer.Exit(int(not found["agrees"].all()))
    if committed:
        return show(results.committed_verdicts(), "claims, judged on the committed studies of real recordings")
    predictions = experiments.load_predictions(profile, data)
    results.write_results(profile, predictions)
    show(results.verdicts(profile, predictions), f"claims, judged on profile {profile}")


@app.command()
def listen(files: list[str], profile: str = "", data: str = "", network: str = "", html: str = "", json: str = ""):
    """Classify recordings of your own, window by window, and say how unlike the training recordings they are.

    FILES are WAV, FLAC, OGG or MP3, folders of them, or CORPUS:RECORDING. Not a medical device. --network names a
    folder; else the committed network answers, or the --profile's run of QLung. --html and --json name the page and
    the file to write.
    """
    import pandas as pd

    from . import display, notebooks
    from . import listen as own

    known, found, rows = own.load(profile, data, network), own.find(files, data), []
    with notebooks.progress_bar("listening") as progress:
        for one in own.listen_all(found, known, json, progress):
            if "error" in one:
                print(one["error"], file=sys.stderr)
                continue
            rows.append(own.summary(one))
            if len(found) == 1:
                show(display.readable(own.table(one)[:20].drop(columns=["nearest", "cosine"]), 2), one["name"])
                console.print(*one["remarks"], f"nearest training clips: {', '.join(one['nearest'])}", sep="\n")
    if rows:
        show(display.readable(pd.DataFrame(rows), 2), known.about)
    if html:
        parameters = {"path": "\n".join(files), "profile": profile, "data": data, "network": str(known.folder)}
        own.write_page(Path(html), parameters)
    raise typer.Exit(int(len(rows) < len(found)))


@data.command()
def fetch(name: str, root: str = "", archive: str = "") -> None:
    """Download and verify icbhi, sprsound or weights; resumes, and does nothing when all is there."""
    columns = [*Progress.get_default_columns(), DownloadColumn()]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        at = fetching.fetch(name, root or None, archive or None, console.print,
                            lambda done, total: bar.update(task, completed=done, total=total))  # fmt: skip
    console.print(f"{name}: {at}")


@data.command("verify")
def verify_(root: Path, json: bool = False) -> None:
    """Say what DIR holds of each corpus, what is missing or damaged; exits 1 unless all that is there is complete."""
    found = verify.examine_all(root)
    if json:
        console.print_json(data=found, indent=1)
    else:
        show(verify.summary(found), str(root))
        for one in found:
            for what in [*one["differs"], *(": ".join(row) for row in [*one["damaged"].items()][:10])]:
                console.print(f"{one['corpus']}: {what}")
    raise typer.Exit(int(not verify.all_complete(found)))


@data.command()
def status() -> None:
    """Say where the corpora, the weights and the cache lie, and how much is there."""
    show(verify.summary(verify.examine_all(paths.data_dir())), f"corpora in {paths.data_dir()}")
    for file in fetching.registry()["weights"]["files"]:
        at = fetching.place("weights") / file["name"]
        console.print(f"weights: {at}: {'there' if at.is_file() else 'not there'}")
    show(cache.usage(), f"cache in {paths.cache_dir()}; `qlung data prune` shrinks it")


@data.command()
def prune(days: float = 30.0) -> None:
    """Delete cached arrays that nothing has read for DAYS days; they are rebuilt when needed."""
    console.print(f"freed {cache.prune(days) / 1e6:.1f} MB of {paths.cache_dir()}")


def main() -> None:
    """Entry point: known errors are printed in one line, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a locale without ± must not stop a command that has done its work
    where = "QLUNG_CACHE, QLUNG_RUNS and QLUNG_DATA name other folders for derived files, results and corpora."
    try:
        app()
    except (QlungError, OSError) as error:
        answer = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError):
            answer = f"cannot use '{error.filename}': {error.strerror or error}. {where}"
        print(answer, file=sys.stderr)
        raise SystemExit(2) from error
    except SystemExit as stop:
        if stop.code == 130:  # Ctrl-C
            print("stopped. What is finished stays; the same command goes on from there.", file=sys.stderr)
        raise
