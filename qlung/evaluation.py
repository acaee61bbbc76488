"""Scores from predictions alone, and the tables made of them."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from . import geometry
from .corpora import CLASSES
from .errors import ConfigError

STATISTICS = ("Score", "Sp", "Se", "Score 2", "Se 2", "separation")


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


def biocas(sp: float, se: float) -> float:
    """Score of SPRSound's BioCAS challenges: mean of the average score (AS) and of the harmonic score (HS).

    AS = (Sp + Se) / 2, HS = 2 Sp Se / (Sp + Se), Score = (AS + HS) / 2, with Se over exact classes where there are
    more than two. HS is 0 where either side is, so always answering "normal" scores 25 and not 50.

    Zhang et al., Grand Challenge on Respiratory Sound Classification, IEEE BioCAS 2022. The data's README names SE, SP,
    AS and HS; how they combine is as participants' public code computes it.

    Examples
    --------
    >>> biocas(90, 30)
    52.5
    """
    harmonic = 2 * sp * se / (sp + se) if sp + se else 0.0
    return ((sp + se) / 2 + harmonic) / 2


def measures(target, predicted, probability=None) -> dict[str, float]:
    """Every measure of a list of answers, in percent.

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
        Se 2, Score 2 : abnormal or not, so that any abnormal answer to an abnormal clip is right; Sp is the same.
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
        bins, p, abnormal = reliability(target, probability), np.asarray(probability, dtype=float), target > 0
        found["ECE"] = float(np.average((bins["accuracy"] - bins["confidence"]).abs(), weights=bins["n"]))
        odds = p[:, 1:].sum(1) / p[:, 0].clip(1e-38)  # where a network is sure, 1 - p0 has no digits left
        found["AUROC"] = 100 * float(roc_auc_score(abnormal, odds)) if len(set(abnormal)) == 2 else float("nan")
    return found


def reliability(target, probability, bins: int = 15) -> pd.DataFrame:
    """How often answers of a given confidence are right: the numbers of a reliability diagram.

    Confidence is the largest probability; bins of equal width divide (0, 1], and those without a clip are left out. ECE
    is the mean distance of accuracy from confidence, weighted by n (Guo et al., ICML 2017, with 15 bins).

    Takes labels [shape=(n,)] and rows of probabilities that add up to 1 [shape=(n, 4)]; returns one row a bin: low,
    high, n, confidence, accuracy, all but n in percent.
    """
    target, probability = np.asarray(target, dtype=int), np.asarray(probability, dtype=float)
    if probability.shape != (len(target), 4) or not np.allclose(probability.sum(1), 1, atol=1e-3):
        raise ConfigError(f"calibration wants one row of four probabilities a clip, it got {probability.shape}")
    sure, right = probability.max(1).clip(max=1), probability.argmax(1) == target
    table = pd.DataFrame({"confidence": 100 * sure, "accuracy": 100.0 * right, "bin": np.ceil(sure * bins)})
    out = table.groupby("bin").agg(n=("bin", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean"))
    high = 100 * out.index.to_numpy() / bins
    return pd.DataFrame({"low": high - 100 / bins, "high": high}).join(out.reset_index(drop=True))


def measure_table(predictions: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row of n and `measures` per group of predictions; ECE and AUROC where p0..p3 are known."""
    names, rows = [f"p{k}" for k in range(4)], []
    for key, group in predictions.groupby(by, sort=False):
        told = set(names) <= set(group) and group[names].notna().all(axis=None)
        probability = group[names].to_numpy() if told else None
        found = measures(group["label"], group["predicted"], probability)
        rows.append(dict(zip(by, key, strict=True)) | {"n": len(group)} | found)
    return pd.DataFrame(rows)


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


def deaf_answers(target) -> dict[str, np.ndarray]:
    """Labels from two classifiers that listen to nothing: always normal, always the most frequent abnormal class."""
    target = np.asarray(target)
    frequent = 1 + int(np.bincount(target[target > 0], minlength=4)[1:].argmax())
    return {f"always {CLASSES[k]}": np.full(len(target), k) for k in (0, frequent)}


def floors(target) -> pd.DataFrame:
    """Scores of the two classifiers that listen to nothing."""
    rows = [(name, *icbhi_score(target, answer)) for name, answer in deaf_answers(target).items()]
    return pd.DataFrame(rows, columns=["method", "Sp", "Se", "Score"])


def _sums(predictions: pd.DataFrame, statistic: str) -> tuple[list, np.ndarray]:
    """(methods, sums [method, seed, ratio, numerator or denominator, patient]); a statistic is a mean of ratios."""
    if statistic not in STATISTICS:
        raise ConfigError(f"unknown statistic '{statistic}': choose from {', '.join(STATISTICS)}")
    normal, right = predictions["label"] == 0, predictions["label"] == predictions["predicted"]
    hit = right if statistic[-1] != "2" else normal == (predictions["predicted"] == 0)
    sp, se = (normal & hit, normal), (~normal & hit, ~normal)
    ratios = {"Sp": [sp], "Se": [se], "Se 2": [se]}.get(statistic, [sp, se])
    if statistic == "separation":
        ratios = [(geometry.separation(predictions), 1)]
    parts = {f"{i}{j}": values for i, pair in enumerate(ratios) for j, values in enumerate(pair)}
    keys = predictions[["method", "seed", "patient_id"]].assign(**parts)
    sums = keys.pivot_table(list(parts), ["method", "seed"], "patient_id", "sum", fill_value=0)
    methods, seeds = (sums.index.unique(level) for level in ("method", "seed"))
    if len(sums) != len(methods) * len(seeds):
        raise ConfigError(f"methods can be compared on the same seeds only, there are {sums.index.to_list()}")
    return list(methods), sums.to_numpy(float).reshape(len(methods), len(seeds), len(ratios), 2, -1)


def bootstrap(predictions: pd.DataFrame, statistic: str = "Score", draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A statistic of each method, as measured and with patients and seeds resampled with replacement.

    Patients are the unit because one patient's clips are alike. A draw is the same for every method, so that a
    difference of two columns is a paired one.

    Parameters
    ----------
    predictions : DataFrame
        Columns method, seed, patient_id, label, predicted (c0..c3 for "separation"); every method has the same seeds.
    statistic : one of ``STATISTICS``
        Averaged over seeds.
    draws, seed : int

    Returns
    -------
    DataFrame [shape=(1 + draws, methods)]
        Row 0 is the measured value; quantiles of the others are its interval.
    """
    methods, sums = _sums(predictions, statistic)
    rng, patients, n = np.random.default_rng(seed), sums.shape[-1], sums.shape[1]
    weight = np.vstack([np.ones(patients), rng.multinomial(patients, np.full(patients, 1 / patients), draws)])
    drawn = np.einsum("msrkp,dp->krdms", sums, weight)
    with np.errstate(invalid="ignore"):  # a draw without one side gives NaN, and quantiles leave it out
        value = (drawn[0] / drawn[1]).mean(0) * (1 if statistic == "separation" else 100)
    picked = np.vstack([np.arange(n), rng.integers(n, size=(draws, n))])[:, None]
    return pd.DataFrame(np.take_along_axis(value, picked, 2).mean(2), columns=methods)


def difference(predictions: pd.DataFrame, better: str, than: str, statistic: str = "Score") -> dict:
    """Measured ``better`` minus ``than`` and its 95 % interval over patients and seeds."""
    pair = predictions[predictions["method"].isin([better, than])]
    draws = bootstrap(pair, statistic).pipe(lambda d: d[better] - d[than])
    low, high = draws.iloc[1:].quantile([0.025, 0.975])
    return {"difference": draws.iloc[0], "low": low, "high": high, "seeds": pair["seed"].nunique()}


def permutation_p(table: pd.DataFrame, better: str, than: str, statistic: str = "Score", over="patients") -> float:
    """Two-sided p value of "which of the two methods answered doesn't matter", by swapping them patient by patient.

    Every statistic here is a sum over patients, so that swapping a patient's answers turns the sign of that patient's
    part in the difference. Seeds are averaged before: it is about patients, and speaks of the networks that were
    trained, not of others. ``over="seeds"`` swaps seed by seed, with patients summed, and speaks of other networks on
    these patients. All 2^n swaps up to n = 13, so that three seeds give no p below 2/8; beyond, 9,999 drawn at random,
    and p is never 0 (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9(1) 39).
    """
    methods, sums = _sums(table[table["method"].isin([better, than])], statistic)
    one, other = sums[methods.index(better)], sums[methods.index(than)]
    if over not in ("patients", "seeds") or not np.array_equal(one[:, :, 1], other[:, :, 1]):
        raise ConfigError(f"a test over '{over}': it wants patients or seeds, and the same clips for both methods")
    clips = other[:, :, 1].sum(-1, keepdims=True)
    if not clips.all():
        return float("nan")
    part = ((one[:, :, 0] - other[:, :, 0]) / clips).mean(1)  # [seed, patient]
    part = part.mean(0) if over == "patients" else part.sum(1)
    if len(part) < 2:
        return 1.0  # a single one can be swapped or not, and says nothing
    return float(stats.permutation_test((part,), np.sum, permutation_type="samples", n_resamples=9999, rng=0).pvalue)


def holm(p) -> np.ndarray:
    """Holm's adjusted p values of all comparisons that were made [shape=(n,)], also of those that will not be shown.

    Where nothing differs, any of them is below 0.05 in at most one such family of twenty (Holm 1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = p.argsort()
    steps = (len(p) - np.arange(len(p))) * p[order]
    return np.maximum.accumulate(steps).clip(max=1)[order.argsort()]
