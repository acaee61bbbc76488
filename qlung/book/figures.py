"""One style for every figure, and one way to save it: picture, the numbers behind it, nothing else."""

import io

import matplotlib.pyplot as plt
import pandas as pd

from .. import paths
from ..corpora import CLASSES
from ..margins import METHODS

# Okabe & Ito's colour-blind safe palette; a class has the same colour in every figure.
CLASS_COLOURS = dict(zip(CLASSES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True))
METHOD_NAMES = {name: method.title for name, method in METHODS.items()}
GREY = "#666666"

STYLE = {
    "figure.dpi": 110, "figure.constrained_layout.use": True, "savefig.dpi": 200, "font.size": 9.5,
    "axes.titlesize": 10, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]),
    "axes.grid": True, "grid.color": "#E6E6E6", "grid.linewidth": 0.7, "axes.axisbelow": True, "legend.frameon": False,
    "image.cmap": "magma", "svg.hashsalt": "qlung", "svg.fonttype": "none",
}  # fmt: skip


def use_style() -> None:
    """Apply the book's style to every figure made from here on."""
    plt.rcParams.update(STYLE)


def save(fig: plt.Figure, name: str, profile: str, table: pd.DataFrame | None = None) -> None:
    """Write ``name`` as PNG and SVG, and as CSV the numbers drawn, under runs/<profile>/figures/.

    Parameters
    ----------
    fig : Figure
    name : str
        File name without suffix, the notebook's number first: "05-margins".
    profile : str
    table : DataFrame, optional
        One row a drawn point, bar or summary.
    """
    folder = paths.runs_dir(profile) / "figures"
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        fig.savefig(buffer, format=suffix, metadata=metadata)
        paths.write_atomically(folder / f"{name}.{suffix}", lambda part, b=buffer: part.write_bytes(b.getvalue()))
    if table is not None:
        paths.write_atomically(folder / f"{name}.csv", lambda part: table.to_csv(part, index=False))


def dots(ax: plt.Axes, table: pd.DataFrame, x: str, order: list[str], label: str | None = None, **style) -> None:
    """One row a group: every seed as a dot, mean and sample sd as a bar with whiskers, n at the axis label.

    Parameters
    ----------
    table : DataFrame
        Columns ``method`` and ``x``, one row a seed.
    order : list of str
        Methods from top to bottom.
    """
    for row, method in enumerate(order):
        values = table.loc[table["method"] == method, x]
        _ = ax.plot(values, [row] * len(values), "o", ms=4, alpha=0.45, mec="none", **style)
        shown = label if row == 0 else None
        _ = ax.errorbar(values.mean(), row, xerr=values.std(), fmt="|", ms=14, capsize=3, label=shown, **style)
    n = table.groupby("method")[x].size()
    ax.set_yticks(range(len(order)), [f"{METHOD_NAMES.get(m, m)} (n={n[m]})" for m in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
