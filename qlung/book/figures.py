"""One style for every figure, one common plot, and one way to save them: picture, numbers behind it, origin."""

import functools
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from .. import paths
from ..corpora import CLASSES
from ..margins import METHODS
from ..training.runs import provenance

# Okabe & Ito's colour-blind safe palette; a class has the same colour in every figure.
CLASS_COLOURS = dict(zip(CLASSES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True))
METHOD_NAMES = {name: method.title for name, method in METHODS.items()}
GREY = "#666666"


def use_style() -> None:
    """Apply the book's style to every figure made from here on."""
    plt.style.use(Path(__file__).with_name("book.mplstyle"))


def save(fig: plt.Figure, name: str, profile: str, table: pd.DataFrame | None = None) -> None:
    """Write ``name`` as PNG and SVG, and as CSV the numbers drawn, under runs/<profile>/figures/.

    Both pictures carry their origin as metadata: commit, notebook, profile, and the runs where ``table`` names them.

    Parameters
    ----------
    fig : Figure
    name : str
        File name without suffix, the notebook's number first: "05-margins".
    profile : str
    table : DataFrame, optional
        One row per drawn point, bar or summary.
    """
    folder = paths.runs_dir(profile) / "figures"
    notebook = next((path.stem for path in paths.NOTEBOOKS.glob(f"{name[:2]}_*.py")), "none")
    code = provenance()
    commit = f"commit {code['commit']}{' with uncommitted changes' if code['dirty'] else ''}"
    origin = {"Title": name, "Source": f"{commit}, notebook {notebook}, profile {profile}"}
    if table is not None and "run" in table:
        origin["Description"] = "runs " + " ".join(sorted(set(table["run"].dropna().astype(str))))
    for suffix, changing in (("png", "Software"), ("svg", "Date")):
        draw = functools.partial(fig.savefig, metadata={changing: None} | origin)
        paths.write_atomically(folder / f"{name}.{suffix}", draw)
    if table is not None:
        paths.write_atomically(folder / f"{name}.csv", lambda part: table.to_csv(part, index=False, encoding="utf-8"))


def intervals(ax, table, labels, value="difference", reference=None, color=CLASS_COLOURS["normal"]) -> None:
    """One line per row of a table, the first on top: a dot at ``value`` on a line from "low" to "high".

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        Columns "low", "high", and those named by ``value`` and ``reference``.
    labels : sequence of str
        Names of the rows, at the axis.
    reference : str, optional
        Column of the paper's value, drawn as a diamond; its name is the legend's label. NaN draws none.
    color : colour, or list of colours
        One for all rows, or one per row.
    """
    rows = range(len(table))
    ax.hlines(rows, table["low"], table["high"], color=color, lw=2)
    ax.scatter(table[value], rows, color=color, s=36, label="95 % interval", zorder=2.5)
    if reference is not None:
        ax.scatter(table[reference], rows, color=CLASS_COLOURS["crackle"], marker="D", s=25, label=reference, zorder=3)
    ax.set_yticks(rows, list(labels))
    ax.set_ylim(len(table) - 0.5, -0.5)
