"""Confidence intervals over patients and seeds, permutation tests, and Holm's correction."""

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import ConfigError
from . import geometry
from .metrics import auroc

STATISTICS = ("Score", "Sp", "Se", "Score 2", "Se 2", "separation")


def resample(rng: np.random.Generator, units: int, draws: int) -> np.ndarray:
    """How often each unit (patient, clip) counts. Row 0: every unit once. Other rows: bootstrap counts.

    Returns
    -------
    weight : array [shape=(1 + draws, units)]
        Every row adds up to ``units``.
    """
    return np.vstack([np.ones(units), rng.multinomial(units, np.full(units, 1 / units), draws)])


def interval(values) -> tuple:
    """95 % percentile interval (low, high) of a bootstrap: ``values[0]`` is as measured, the others are draws.

    A draw that is NaN (it holds no patient of one side) is left out.
    """
    return tuple(np.nanquantile(np.asarray(values)[1:], [0.025, 0.975], axis=0))


def _sums(predictions: pd.DataFrame, statistic: str) -> tuple[list, np.ndarray]:
    """(methods, each patient's numerators and denominators [method, seed, ratio, 2, patient]); a statistic is the mean
    of its ratios.
    """
    if statistic not in STATISTICS:
        raise ConfigError(f"unknown statistic '{statistic}': choose from {', '.join(STATISTICS)}")
    normal, exact = predictions["label"] == 0, predictions["label"] == predictions["predicted"]
    hit = normal == (predictions["predicted"] == 0) if statistic.endswith("2") else exact
    sides = {"Sp": [normal], "Se": [~normal], "Se 2": [~normal]}.get(statistic, [normal, ~normal])
    ratios = [(hit & side, side) for side in sides]
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
        Row 0 is the measured value; `interval` of a column is its interval.
    """
    methods, sums = _sums(predictions, statistic)
    rng, n = np.random.default_rng(seed), sums.shape[1]
    drawn = np.einsum("msrkp,dp->krdms", sums, resample(rng, sums.shape[-1], draws))
    with np.errstate(invalid="ignore"):  # a draw without one side gives NaN, and `interval` leaves it out
        value = (drawn[0] / drawn[1]).mean(0) * (1 if statistic == "separation" else 100)
    picked = np.vstack([np.arange(n), rng.integers(n, size=(draws, n))])[:, None]
    return pd.DataFrame(np.take_along_axis(value, picked, 2).mean(2), columns=methods)


def difference(predictions: pd.DataFrame, better: str, than: str, statistic: str = "Score") -> dict:
    """Measured ``better`` minus ``than`` and its 95 % interval over patients and seeds."""
    pair = predictions[predictions["method"].isin([better, than])]
    draws = bootstrap(pair, statistic).pipe(lambda d: d[better] - d[than])
    low, high = interval(draws)
    return {"difference": draws.iloc[0], "low": low, "high": high, "seeds": pair["seed"].nunique()}


def permutation_p(table: pd.DataFrame, better: str, than: str, statistic: str = "Score", over="patients") -> float:
    """Two-sided p value of the null hypothesis that the two methods can be exchanged, by swapping them per patient.

    Every statistic here is a sum over patients, so that swapping a patient's predictions turns the sign of that
    patient's part in the difference. Seeds are averaged before: the p value generalises to other patients, with these
    networks. ``over="seeds"`` swaps seed by seed, with patients summed, and generalises to other networks, on these
    patients. All 2^n swaps up to n = 13, so that three seeds give no p below 2/8; beyond, 9,999 drawn at random,
    and p is never 0 (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9(1) 39).
    """
    methods, sums = _sums(table[table["method"].isin([better, than])], statistic)
    one, other = sums[methods.index(better)], sums[methods.index(than)]
    if over not in ("patients", "seeds") or not np.array_equal(one[:, :, 1], other[:, :, 1]):
        raise ConfigError(f"a test over '{over}': it needs patients or seeds, and the same clips for both methods")
    clips = other[:, :, 1].sum(-1, keepdims=True)
    if not clips.all():
        return float("nan")
    part = ((one[:, :, 0] - other[:, :, 0]) / clips).mean(1)  # [seed, patient]
    part = part.mean(0) if over == "patients" else part.sum(1)
    if len(part) < 2:
        return 1.0  # both swaps of a single one give the same absolute difference
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


def auroc_interval(score, good, patient, draws: int = 2000, seed: int = 0) -> dict:
    """Chance that a good recording scores above a poor one (ties count half), with patients resampled.

    Parameters
    ----------
    score : array [shape=(n,)]
        More should mean better; recordings without a score (NaN) are left out and counted.
    good : array of bool [shape=(n,)]
    patient : array [shape=(n,)]

    Returns
    -------
    dict
        AUROC, low, high (95 % over patients), good, poor, poor_patients, missing (counts).
    """
    known = np.isfinite(np.asarray(score, dtype=float))
    score, good, patient = (np.asarray(x)[known] for x in (score, good, patient))
    good, (names, patient) = good.astype(bool), np.unique(patient, return_inverse=True)
    values = auroc(good, score, resample(np.random.default_rng(seed), len(names), draws)[:, patient])
    low, high = interval(values)
    counts = {"good": int(good.sum()), "poor": int((~good).sum()), "poor_patients": len(set(patient[~good]))}
    return {"AUROC": values[0], "low": low, "high": high, **counts, "missing": int((~known).sum())}
