"""Operating points: how well a network orders clips, apart from where it draws the line between normal and abnormal.

Clips are ordered by their odds (p1 + p2 + p3) / p0. What lies above a line on the odds is called abnormal; which class
it gets is the most probable of the three, wherever the line is. Two methods' Scores can differ because one orders
better, or because its line lies elsewhere on the same curve.
"""

import numpy as np
import pandas as pd

from ..errors import ConfigError, choices
from .metrics import PROBABILITIES, odds

NETWORK = ["method", "seed"]
LINES = ("argmax", "prior", "cross-fitted")
FOLDS = 5


def _ordered(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(label, odds of abnormal, most probable abnormal class) of each clip."""
    p = predictions[PROBABILITIES].to_numpy(float)
    if np.isnan(p).any():
        raise ConfigError("some predictions have no probabilities (committed variants keep none): leave them out")
    return predictions["label"].to_numpy(), odds(p), 1 + p[:, 1:].argmax(1)


def curve(predictions: pd.DataFrame) -> pd.DataFrame:
    """Sp, Se and Score [%] of one network at every line on the odds, from "all abnormal" to "all normal".

    Se counts exact classes, as the Score does: where all is called abnormal, it is the share of abnormal clips whose
    class is right, not 100.
    """
    label, value, kind = _ordered(predictions)
    order = value.argsort(kind="stable")
    last = np.r_[0, 1 + np.flatnonzero(np.r_[np.diff(value[order]) > 0, True])]  # clips of equal odds fall together
    normal, right = (np.r_[0, side[order].cumsum()][last] for side in (label == 0, (label > 0) & (kind == label)))
    sp, se = 100 * normal / (label == 0).sum(), 100 * (right[-1] - right) / (label > 0).sum()
    return pd.DataFrame({"line": np.r_[-np.inf, value[order]][last], "Sp": sp, "Se": se, "Score": (sp + se) / 2})


def placements(predictions: pd.DataFrame, exact: bool = False, within_length: bool = False) -> pd.Series:
    """A value per clip whose means over the normal and over the abnormal clips, averaged, are an area in [0, 1].

    The area is AUROC: the chance that an abnormal clip has higher odds than a normal one, ties counting half. With
    ``exact`` the abnormal clip's class must also be right, which gives the area under the Sp-Se `curve`. With
    ``within_length`` only pairs count whose two clips are in the same eighth by ``seconds``: what is left can't come
    from length. A clip's value is the area plus twice what its pairs add: resampled means then move as the area does,
    to first order (DeLong et al., Biometrics 1988). NaN where no pair counts.
    """
    out = pd.Series(np.nan, predictions.index)
    for _, part in predictions.groupby(NETWORK, sort=False):
        label, value, kind = _ordered(part)
        abnormal = label > 0
        ordered = np.heaviside(value[abnormal, None] - value[~abnormal], 0.5)
        if exact:
            ordered *= (kind == label)[abnormal, None]
        eighth, added = np.zeros(len(part)), np.empty(len(part))
        if within_length:  # NaN: all clips are equally long
            eighth = np.nan_to_num(pd.qcut(part["seconds"], 8, labels=False, duplicates="drop"))
        pairs = np.equal.outer(eighth[abnormal], eighth[~abnormal])
        with np.errstate(invalid="ignore"):
            area = ordered[pairs].sum() / pairs.sum()
            excess = pairs * (ordered - area) / pairs.mean()
        added[abnormal], added[~abnormal] = excess.mean(1), excess.mean(0)
        out[part.index] = area + 2 * added
    return out


def one_against_rest(predictions: pd.DataFrame) -> list[pd.DataFrame]:
    """The predictions once for each class that occurs, with two labels: 1 is that class, 0 the rest."""
    probability = {k: predictions[PROBABILITIES[k]] for k in sorted(predictions["label"].unique())}
    return [predictions.assign(label=(predictions["label"] == k).astype(int), p0=1 - p, p1=p, p2=0.0, p3=0.0)
            for k, p in probability.items()]  # fmt: skip


def at_line(predictions: pd.DataFrame, line: str) -> pd.DataFrame:
    """The predictions with each network's line drawn anew; methods then differ in how they order, not in their line.

    Parameters
    ----------
    predictions : DataFrame
        Columns method, seed, patient_id, label, predicted, p0..p3, of one corpus and backbone.
    line : {"argmax", "prior", "cross-fitted"}
        "argmax": as predicted. "prior": as many clips are called abnormal as there are abnormal ones, which uses the
        test's prevalence. "cross-fitted": patients are dealt into fifths, and a fifth's line is the one with the best
        Score on the others, which uses their labels. The last two compare methods; nobody could have drawn them without
        the test's labels.
    """
    if line not in LINES:
        raise ConfigError(f"unknown line '{line}': {choices(line, LINES)}")
    if line == "argmax":
        return predictions
    drawn = []
    for _, part in predictions.groupby(NETWORK, sort=False):
        label, value, kind = _ordered(part)
        limit = np.full(len(part), np.r_[-np.inf, np.sort(value)][(label == 0).sum()])
        if line == "cross-fitted":
            fold = part["patient_id"].map(_fifths(part)).to_numpy()
            for k in set(fold):
                table = curve(part[fold != k])
                limit[fold == k] = table["line"][table["Score"].argmax()]
        drawn.append(part.assign(predicted=np.where(value > limit, kind, 0)))
    return pd.concat(drawn)


def _fifths(predictions: pd.DataFrame) -> pd.Series:
    """Which fifth each patient belongs to: dealt in the order of abnormal, then of all clips."""
    clips = predictions.assign(abnormal=predictions["label"] > 0).groupby("patient_id")["abnormal"].agg(["sum", "size"])
    order = clips.sort_values(["sum", "size"], ascending=False, kind="stable").index
    return pd.Series(np.arange(len(order)) % FOLDS, order)
