"""The command line: qlung reproduce | data | train | check | notebooks."""

import sys

import typer
from rich.console import Console
from rich.table import Table

from . import experiments, paths
from .corpora import load_corpus
from .errors import QlungError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(soft_wrap=True)


def show(frame, title: str) -> None:
    """Print a DataFrame as a table."""
    table = Table(*map(str, frame.columns), title=title, title_justify="left")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row))
    console.print(table)


@app.command()
def reproduce(profile: str = "demo", data: str = "", force: bool = False) -> None:
    """Run the whole book on one profile; results go under runs/PROFILE/."""
    table = experiments.reproduce(profile, data, force, console.print)
    show(table, f"the book on profile {profile}")
    console.print(f"results: {paths.runs_dir(profile)}")


@app.command()
def train(profile: str = "demo", data: str = "") -> None:
    """Train (or reuse) every run of a profile without the notebooks."""
    predictions = experiments.train_all(profile, data, console.print)
    console.print(f"{predictions['run'].nunique()} runs under {paths.runs_dir(profile)}")


@app.command("data")
def data_(root: str = "") -> None:
    """Say what is there: recordings, labelled events and what was set aside, per corpus."""
    failed = False
    for name in ("icbhi", "sprsound"):
        try:
            corpus = load_corpus(name, root or None)
        except QlungError as error:
            failed = True
            console.print(f"{name}: {error}", markup=False)
            continue
        said = corpus.report["done"].value_counts().to_dict()
        console.print(f"{name}: {len(corpus.recordings)} recordings, {len(corpus.events)} events; {said or 'all read'}")
    raise typer.Exit(int(failed))


def main() -> None:
    """Entry point: our own errors in one line, without a traceback."""
    try:
        app()
    except QlungError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
