"""Scores from predictions alone, and the tables made of them."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from .corpora import CLASSES
from .errors import ConfigError


class Score(NamedTuple):
    """Specificity, sensitivity and their mean, in percent."""

    sp: float
    se: float
    score: float


def confusion(target, predicted) -> np.ndarray:
    """Confusion matrix [true, predicted] over the four classes."""
    target, predicted = np.asarray(target, dtype=int), np.asarray(predicted, dtype=int)
    if target.shape != predicted.shape or target.ndim != 1 or not len(target):
        raise ConfigError(f"scores want two equal lists of labels, not {target.shape} and {predicted.shape}")
    if min(target.min(), predicted.min()) < 0 or max(target.max(), predicted.max()) >= len(CLASSES):
        raise ConfigError("labels must lie in 0..3 (normal, crackle, wheeze, both)")
    matrix = np.zeros((4, 4), dtype=int)
    np.add.at(matrix, (target, predicted), 1)
    return matrix


def icbhi_score(target, predicted) -> Score:
    """ICBHI score: Sp = correct normals / normals, Se = abnormals given their exact class / abnormals, Score = mean.

    Parameters
    ----------
    target, predicted : array [shape=(n,)]
        Labels 0..3.

    Returns
    -------
    Score
        In percent; NaN where a side has no clip.

    Examples
    --------
    >>> icbhi_score([0, 0, 1, 2], [0, 1, 1, 1])
    Score(sp=50.0, se=50.0, score=50.0)
    """
    matrix = confusion(target, predicted)
    normals, abnormals = matrix[0].sum(), matrix[1:].sum()
    sp = 100 * float(matrix[0, 0] / normals) if normals else float("nan")
    se = 100 * float(np.trace(matrix[1:, 1:]) / abnormals) if abnormals else float("nan")
    return Score(sp, se, (sp + se) / 2)


def score_table(predictions: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row of n, Sp, Se, Score per group of predictions (columns label, predicted and ``by``)."""
    rows = []
    for key, group in predictions.groupby(by, sort=False):
        score = icbhi_score(group["label"], group["predicted"])
        rows.append((*key, len(group), *score))
    return pd.DataFrame(rows, columns=[*by, "n", "Sp", "Se", "Score"])


def over_seeds(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean and sample sd over seeds of a score table."""
    grouped = table.groupby(by, sort=False)[["Sp", "Se", "Score"]]
    out = grouped.agg(["mean", "std"])
    out.columns = [f"{name} {'mean' if kind == 'mean' else 'sd'}" for name, kind in out.columns]
    return out.assign(seeds=grouped.size()).reset_index()
