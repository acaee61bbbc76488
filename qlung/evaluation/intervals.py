"""Confidence intervals over patients and seeds, tests made of them, and Holm's correction."""

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import ConfigError
from . import geometry, operating
from .metrics import auroc

WITHIN = "AUROC within length"
STATISTICS = ("Score", "Sp", "Se", "Score 2", "Se 2", "AUROC", WITHIN, "macro-AUROC", "area", "separation")
UNIT = dict.fromkeys(STATISTICS, 100) | {"separation": 1}
MEASURED = ["difference", "low", "high", "within", "p", "seeds", "patients"]  # of `difference`


def resample(rng: np.random.Generator, units: int, draws: int) -> np.ndarray:
    """How often each unit (patient, clip) counts. Row 0: every unit once. Other rows: bootstrap counts.

    Returns
    -------
    weight : array [shape=(1 + draws, units)]
        Every row adds up to ``units``.
    """
    return np.vstack([np.ones(units), rng.multinomial(units, np.full(units, 1 / units), draws)])


def interval(values, level: float = 0.95) -> tuple:
    """Percentile interval (low, high) of a bootstrap: ``values[0]`` is as measured, the others are draws.

    A draw that is NaN (it holds no patient of one side) is left out.
    """
    return tuple(np.nanquantile(np.asarray(values)[1:], [(1 - level) / 2, (1 + level) / 2], axis=0))


def _ratios(predictions: pd.DataFrame, statistic: str) -> list[tuple]:
    """(numerator, denominator) per clip [each shape=(n,)]; a statistic is the mean of the ratios of their sums."""
    normal, exact = predictions["label"] == 0, predictions["label"] == predictions["predicted"]
    if statistic == "separation":
        values = geometry.standardised_separation(predictions)
        classes = [predictions["label"] == k for k in predictions["label"].unique()]
        return [(values * side, side) for side in classes]
    if statistic == "macro-AUROC":
        pairs = [_ratios(one, "AUROC") for one in operating.one_against_rest(predictions)]
        return [pair for both in pairs for pair in both]
    if statistic in ("AUROC", WITHIN, "area"):
        values = operating.placements(predictions, exact=statistic == "area", within_length=statistic == WITHIN)
        return [(values * side, side) for side in (normal, ~normal)]
    hit = normal == (predictions["predicted"] == 0) if statistic.endswith("2") else exact
    sides = {"Sp": [normal], "Se": [~normal], "Se 2": [~normal]}.get(statistic, [normal, ~normal])
    return [(hit & side, side) for side in sides]


def _sums(predictions: pd.DataFrame, statistic: str) -> tuple[list, np.ndarray]:
    """(methods, each patient's numerators and denominators [method, seed, ratio, 2, patient])."""
    if statistic not in STATISTICS:
        raise ConfigError(f"unknown statistic '{statistic}': choose from {', '.join(STATISTICS)}")
    ratios = _ratios(predictions, statistic)
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
        Columns method, seed, patient_id, label, predicted (also c0..c3 for "separation", p0..p3 for areas,
        seconds for "AUROC within length"); every method has the same seeds.
    statistic : one of ``STATISTICS``
        Averaged over seeds. Areas as in `operating.placements`, "separation" as in `geometry`; "macro-AUROC" is the
        mean, over the classes that occur, of AUROC of a class against the rest.
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
        value = (drawn[0] / drawn[1]).mean(0) * UNIT[statistic]
    picked = np.vstack([np.arange(n), rng.integers(n, size=(draws, n))])[:, None]
    return pd.DataFrame(np.take_along_axis(value, picked, 2).mean(2), columns=methods)


def contributions(predictions: pd.DataFrame, better: str, than: str, statistic: str = "Score") -> np.ndarray:
    """What each patient adds to ``better`` minus ``than`` [shape=(S, P)], linearised; a row sums to a seed's gap."""
    methods, sums = _sums(predictions[predictions["method"].isin([better, than])], statistic)
    one, other = (sums[methods.index(name), :, :, 0] for name in (better, than))  # [seed, ratio, patient]
    clips = sums[0, 0, :, 1]
    if not (sums[..., 1, :] == clips).all():
        raise ConfigError(f"'{better}' and '{than}' can be compared on the same clips only, with every seed")
    with np.errstate(invalid="ignore"):  # a side without a clip gives NaN
        cells, shares = ((part / clips.sum(1)[:, None]) for part in (one - other, clips))
    beyond = shares - 1 / clips.shape[1]  # who answers as all do on average adds the mean, with any number of clips
    return UNIT[statistic] * (cells - cells.sum(2).mean(0)[:, None] * beyond).mean(1)


def difference(predictions: pd.DataFrame, better: str, than: str, statistic: str = "Score") -> dict:
    """Measured ``better`` minus ``than``, and what it says about other patients and other seeds.

    Returns
    -------
    dict
        difference, low, high (95 %: by `bootstrap`, or by `crossed` and Student's t, whichever is wider), within (the
        least margin that holds the 90 % interval: equivalence by two one-sided tests), p (by `crossed`, two-sided),
        seeds, and patients: the `effective_number` of those who have clips of the rarest side, or class.
    """
    pair = predictions[predictions["method"].isin([better, than])]
    draws = bootstrap(pair, statistic).pipe(lambda d: d[better] - d[than])
    measured, (se, df) = draws.iloc[0], crossed(contributions(pair, better, than, statistic))
    student = stats.t(df, measured, max(se, 1e-12))
    low, high = max(interval(draws), student.interval(0.95), key=np.ptp)
    within = np.abs([interval(draws, 0.9), student.interval(0.9)]).max()
    patients = min(map(effective_number, _sums(pair, statistic)[1][0, 0, :, 1]))
    p = 2 * min(student.cdf(0), student.sf(0))
    return {"difference": measured, "low": low, "high": high, "within": within, "p": p,
            "seeds": pair["seed"].nunique(), "patients": patients}  # fmt: skip


def crossed(parts) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum over patients and mean over seeds, where both are drawn at random.

    Parameters
    ----------
    parts : array [shape=(S, P)]
        What patient p adds to the statistic of seed s; every seed is tested on every patient.

    Returns
    -------
    se, df : float
        Two-way random effects without replication: the mean squares of patients, plus of seeds, minus of the rest, and
        Satterthwaite's degrees of freedom (Searle, Casella, McCulloch 1992, Variance Components, ch. 4).
    """
    parts = np.asarray(parts, dtype=float) * np.shape(parts)[1]
    seeds, patients = parts.shape
    by_seed, by_patient = parts.mean(1, keepdims=True), parts.mean(0, keepdims=True)
    rest = parts - by_seed - by_patient + parts.mean()
    df = np.array([patients - 1, seeds - 1, (patients - 1) * (seeds - 1)])
    squares = np.array([seeds * by_patient.var() * patients, patients * by_seed.var() * seeds, (rest**2).sum()])
    terms = squares / df.clip(1) / parts.size
    variance = max(terms[0] + terms[1] - terms[2], terms[:2].max())
    return float(variance**0.5), float(variance**2 / (terms**2 / df.clip(1)).sum()) if variance else 1.0


def effective_number(clips) -> float:
    """How many patients of equal weight tell as much as these (Kish): (sum n)^2 / sum n^2, for n clips of each.

    Examples
    --------
    >>> effective_number([10, 10, 0]), round(effective_number([10, 1, 1]), 2)
    (2.0, 1.41)
    """
    clips = np.asarray(clips, dtype=float)
    return float(clips.sum() ** 2 / max((clips**2).sum(), 1))


def sd_ratio(sd, other, n: int) -> tuple[float, float, float]:
    """Ratio of two sample sds of ``n`` values each, and its 95 % interval for normal values (F distribution)."""
    low, high = np.sqrt(stats.f.interval(0.95, n - 1, n - 1))
    return sd / other, sd / other / high, sd / other / low


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
