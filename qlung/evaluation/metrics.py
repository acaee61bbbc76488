"""Scores from predictions alone, and the tables made of them."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score

from ..corpora import CLASSES
from ..errors import ConfigError

PROBABILITIES = ["p0", "p1", "p2", "p3"]


class Score(NamedTuple):
    """Specificity, sensitivity and their mean, in percent."""

    sp: float
    se: float
    score: float


def confusion(target, predicted) -> np.ndarray:
    """Confusion matrix [true, predicted] over the four classes."""
    target, predicted = np.asarray(target, dtype=int), np.asarray(predicted, dtype=int)
    if target.shape != predicted.shape or target.ndim != 1 or not len(target):
        raise ConfigError(f"scores need two lists of labels of equal length, not {target.shape} and {predicted.shape}")
    if min(target.min(), predicted.min()) < 0 or max(target.max(), predicted.max()) >= len(CLASSES):
        raise ConfigError("labels must lie in 0..3 (normal, crackle, wheeze, both)")
    return confusion_matrix(target, predicted, labels=range(4))


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
    sp = 100 * float(matrix[0, 0] / normals) if normals else np.nan
    se = 100 * float(np.trace(matrix[1:, 1:]) / abnormals) if abnormals else np.nan
    return Score(sp, se, (sp + se) / 2)


def biocas(sp: float, se: float) -> float:
    """Score of SPRSound's BioCAS challenges: mean of the average score (AS) and of the harmonic score (HS).

    AS = (Sp + Se) / 2, HS = 2 Sp Se / (Sp + Se), Score = (AS + HS) / 2, with Se over exact classes where there are
    more than two. HS is 0 where either side is, so always predicting "normal" scores 25 and not 50.

    Zhang et al., Grand Challenge on Respiratory Sound Classification, IEEE BioCAS 2022. The data's README names SE, SP,
    AS and HS; how they combine is as participants' public code computes it.

    Examples
    --------
    >>> biocas(90, 30)
    52.5
    """
    harmonic = 2 * sp * se / (sp + se) if sp + se else 0.0
    return ((sp + se) / 2 + harmonic) / 2


def odds(probability) -> np.ndarray:
    """Odds of abnormal against normal, (p1 + p2 + p3) / p0, from [shape=(n, 4)]; 1 - p0 would have too few digits."""
    p = np.asarray(probability, dtype=float)
    return p[:, 1:].sum(1) / p[:, 0].clip(1e-38)


def auroc(positive, score, weight=1.0):
    """Area under the ROC curve: chance that a positive scores above a negative, where ties count half.

    Equal to ``sklearn.metrics.roc_auc_score(positive, score, sample_weight=weight)``, for many weightings at once.

    Parameters
    ----------
    positive : array of bool [shape=(n,)]
    score : array [shape=(n,)]
    weight : array [shape=(..., n)], optional
        How often each one counts; one row per bootstrap draw.

    Returns
    -------
    auroc : array [shape=(...), range 0..1]
        NaN where one side is missing.
    """
    order = np.argsort(score, kind="stable")
    score, positive = np.asarray(score)[order], np.asarray(positive, dtype=bool)[order]
    weight = np.broadcast_to(weight, (*np.shape(weight)[:-1], len(score)))[..., order]
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])  # groups of tied scores, ascending
    below, above = (np.add.reduceat(weight * side, starts, axis=-1) for side in (~positive, positive))
    pairs = (above * (below.cumsum(-1) - below / 2)).sum(-1)
    with np.errstate(invalid="ignore"):
        return pairs / (below.sum(-1) * above.sum(-1))


def measures(target, predicted, probability=None) -> dict[str, float]:
    """Every measure of a list of predictions, in percent.

    Parameters
    ----------
    target, predicted : array [shape=(n,)]
        Labels 0..3.
    probability : array [shape=(n, 4)], optional
        Adds ECE and AUROC.

    Returns
    -------
    dict
        Sp, Se, Score : four classes, as in `icbhi_score`.
        Se 2, Score 2 : abnormal or not, so that any abnormal class is right for an abnormal clip; Sp is the same.
        BioCAS, BioCAS 2 : `biocas` of four classes and of two.
        normal, crackle, wheeze, both : recall of each class.
        macro-F1 : mean over the classes that occur in ``target``.
        ECE : expected calibration error, see `reliability`.
        AUROC : abnormal against normal, by the odds (p1 + p2 + p3) / p0.
        NaN where a side or a class has no clip.
    """
    matrix = confusion(target, predicted)
    target, predicted = np.asarray(target, dtype=int), np.asarray(predicted, dtype=int)
    four, two = (icbhi_score(a, b) for a, b in ((target, predicted), (target > 0, predicted > 0)))
    found = dict(zip(("Sp", "Se", "Score", "Se 2", "Score 2"), (*four, *two[1:]), strict=True))
    found |= {"BioCAS": biocas(*four[:2]), "BioCAS 2": biocas(*two[:2])}
    recall = np.divide(np.diag(matrix), matrix.sum(1), out=np.full(4, np.nan), where=matrix.sum(1) > 0)
    found |= dict(zip(CLASSES, (100 * recall).tolist(), strict=True))
    found["macro-F1"] = 100 * float(f1_score(target, predicted, labels=np.unique(target), average="macro"))
    if probability is not None:
        bins = reliability(target, probability)
        found["ECE"] = float(np.average((bins["accuracy"] - bins["confidence"]).abs(), weights=bins["n"]))
        found["AUROC"] = 100 * float(auroc(target > 0, odds(probability)))
    return found


def reliability(target, probability, bins: int = 15) -> pd.DataFrame:
    """How often predictions of a given confidence are right: the numbers of a reliability diagram.

    Confidence is the largest probability; bins of equal width divide (0, 1], and those without a clip are left out. ECE
    is the mean distance of accuracy from confidence, weighted by n (Guo et al., ICML 2017, with 15 bins).

    Takes labels [shape=(n,)] and rows of probabilities that add up to 1 [shape=(n, 4)]; returns per bin: low, high, n,
    confidence, accuracy, all but n in percent.
    """
    target, probability = np.asarray(target, dtype=int), np.asarray(probability, dtype=float)
    if probability.shape != (len(target), 4) or not np.allclose(probability.sum(1), 1, atol=1e-3):
        raise ConfigError(f"calibration needs four probabilities per clip that add up to 1, not {probability.shape}")
    sure, right = probability.max(1).clip(max=1), probability.argmax(1) == target
    table = pd.DataFrame({"confidence": 100 * sure, "accuracy": 100.0 * right, "bin": np.ceil(sure * bins)})
    out = table.groupby("bin").agg(n=("bin", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean"))
    high = 100 * out.index.to_numpy() / bins
    return pd.DataFrame({"low": high - 100 / bins, "high": high}).join(out.reset_index(drop=True))
