"""Sensitivity to degradation: does a quality score fall as known degradations of a recording become more severe?"""

import numpy as np
import pandas as pd
import torch

from ..audio import batches
from ..audio.degrade import SEVERITIES, degraded, levels
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
        high, low = degraded(high, RATE, kind, amount), degraded(low, indicators.RATE, kind, amount)
        h = spectral_entropy(high, RATE, **DEFAULT_DEFINITION)
        return torch.cat([torch.stack([h, rms_dbfs(high)], 1), indicators.all_indicators(low)], 1)

    def parts():
        for high, low in zip(*(batches(corpus, rate, 8.0) for rate in (RATE, indicators.RATE)), strict=True):
            yield torch.stack([measured(high, low, kind, a) for kind, _, a in steps], 1).double().numpy()

    values = cached_array("severity", key, parts, rows=len(corpus.events))  # [clips, levels, columns]
    columns = ["H", "R", *indicators.FEATURES, *indicators.DIRECTION]
    keys = pd.DataFrame(steps, columns=["kind", "severity", "amount"]).merge(corpus.events[["event_id"]], how="cross")
    return keys.join(pd.DataFrame(values.swapaxes(0, 1).reshape(len(keys), -1), columns=columns))


def monotonicity(table: pd.DataFrame, column: str) -> pd.DataFrame:
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
    rng, rows = np.random.default_rng(0), []
    clean = table[table["kind"] == "none"].set_index("event_id")[column]
    spread = clean.std()
    smallest = 1e-2 * spread if spread > 0 else 1.0
    for kind in SEVERITIES:
        part = table[table["kind"].isin(("none", kind))].sort_values(column)
        apart = part.groupby("event_id")[column].diff() > smallest  # neighbours that are closer tie
        part = part.assign(tied=apart.groupby(part["event_id"]).cumsum())
        wide = part.pivot_table([column, "tied"], "event_id", "severity").reindex(clean.index).dropna()
        values, tied = wide[column], wide["tied"]
        rho = tied.rank(axis=1).corrwith(tied.columns.to_series(), axis=1).fillna(0).to_numpy()  # 0: never changes
        low, high = interval(resample(rng, len(rho), 1000) @ rho / len(rho))
        change = (values.iloc[:, -1] - values[0]).mean() / spread if spread > 0 else np.nan
        monotone = (np.diff(tied) <= 0).all(1).mean()
        rows.append((kind, len(rho), rho.mean(), low, high, change, monotone))
    return pd.DataFrame(rows, columns=["kind", "clips", "rho", "low", "high", "change", "monotone"])
