"""Sensitivity to degradation: does a quality score fall as known degradations of a recording become more severe?"""

import numpy as np
import pandas as pd
import torch

from ..audio import batches
from ..audio.degrade import SEVERITIES, Degradation, levels
from ..cache import cached_array, code_version
from ..evaluation.intervals import interval, resample
from . import indicators
from .aqs import DEFAULT_DEFINITION, RATE, rms_dbfs, spectral_entropy


def severity_table(corpus, severities: dict = SEVERITIES) -> pd.DataFrame:
    """Quality measures of every clip, clean ("none", severity 0) and at every level of each degradation; cached.

    Returns
    -------
    DataFrame
        Per clip and level: kind, severity (0 to 5), amount, event_id, H, R [dBFS], then ``indicators.FEATURES`` and
        ``indicators.DIRECTION``.
    """
    steps = levels(severities)
    key = {"corpus": corpus.fingerprint(), "levels": steps, "code": code_version("audio", "quality")}

    def measured(high, low, kind, amount) -> torch.Tensor:
        if kind != "none":
            degrade = Degradation(kind, amount)
            high, low = degrade(high, RATE), degrade(low, indicators.RATE)
        h = spectral_entropy(high, RATE, **DEFAULT_DEFINITION)
        return torch.cat([torch.stack([h, rms_dbfs(high)], 1), indicators.all_indicators(low)], 1)

    def parts():
        for high, low in zip(*(batches(corpus, rate, 8.0) for rate in (RATE, indicators.RATE)), strict=True):
            yield torch.stack([measured(high, low, kind, a) for kind, _, a in steps], 1).double().numpy()

    values = cached_array("severity", key, parts, rows=len(corpus.events))  # [clips, levels, columns]
    columns = ["H", "R", *indicators.FEATURES, *indicators.DIRECTION]
    tables = []
    for (kind, severity, amount), measures in zip(steps, values.swapaxes(0, 1), strict=True):
        keys = {"kind": kind, "severity": severity, "amount": amount, "event_id": corpus.events["event_id"]}
        tables.append(pd.DataFrame(keys).join(pd.DataFrame(measures, corpus.events.index, columns)))
    return pd.concat(tables, ignore_index=True)


def monotonicity(
    table: pd.DataFrame, column: str, kinds=tuple(SEVERITIES), draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Monotonicity in severity: Spearman's rho between severity and score within each clip, averaged over clips.

    Values that differ by less than a hundredth of the clean clips' sd count as equal: processors round differently,
    and a change of that size has no meaning.

    Parameters
    ----------
    table : DataFrame
        From `severity_table`, with ``column`` added where it is not there.
    column : str

    Returns
    -------
    DataFrame
        kind, clips, rho (mean over clips; -1: falls at every level), low, high (95 %, clips resampled), change (mean of
        the most severe level minus clean, in clean sds) and monotone: share of clips that never rise.
    """
    rng, rows = np.random.default_rng(seed), []
    clean = table[table["kind"] == "none"].set_index("event_id")[column]
    spread = clean.std()
    smallest = 1e-2 * spread if spread > 0 else 1.0
    for kind in kinds:
        degraded = table[table["kind"] == kind].pivot_table(index="event_id", columns="severity", values=column)
        values = pd.concat([clean.rename(0), degraded], axis=1).dropna().to_numpy()
        order = values.argsort(1)
        apart = np.diff(np.take_along_axis(values, order, 1)) > smallest  # neighbours that are closer tie
        tied = np.zeros_like(values)
        np.put_along_axis(tied, order[:, 1:], apart.cumsum(1), 1)
        ranks = pd.DataFrame(tied).rank(axis=1).to_numpy()
        ranks = ranks - ranks.mean(1, keepdims=True)
        severity = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
        length = np.sqrt((ranks**2).sum(1) * (severity**2).sum())
        rho = np.divide(ranks @ severity, length, out=np.zeros(len(ranks)), where=length > 0)  # 0: never changes
        low, high = interval(resample(rng, len(rho), draws) @ rho / len(rho))
        change = (values[:, -1] - values[:, 0]).mean() / spread if spread > 0 else np.nan
        rows.append((kind, len(rho), rho.mean(), low, high, change, (np.diff(tied) <= 0).all(1).mean()))
    return pd.DataFrame(rows, columns=["kind", "clips", "rho", "low", "high", "change", "monotone"])
