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
    steps, rates = levels(severities), (RATE, indicators.RATE)
    key = {"corpus": corpus.fingerprint(), "levels": steps, "code": code_version("audio", "quality")}

    def measured(high, low, kind, amount) -> torch.Tensor:
        if kind != "none":
            high, low = (Degradation(kind, amount)(x, rate) for x, rate in zip((high, low), rates, strict=True))
        h = spectral_entropy(high, RATE, **DEFAULT_DEFINITION)
        return torch.cat([torch.stack([h, rms_dbfs(high)], 1), indicators.all_indicators(low)], 1)

    def parts():
        for high, low in zip(*(batches(corpus, rate, 8.0) for rate in rates), strict=True):
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
        degraded = table[table["kind"] == kind].pivot_table(index="event_id", columns="severity", values=column)
        values = pd.concat([clean.rename(0), degraded], axis=1).dropna().to_numpy()
        order = values.argsort(1)
        apart = np.diff(np.take_along_axis(values, order, 1)) > smallest  # neighbours that are closer tie
        tied = np.zeros_like(values)
        np.put_along_axis(tied, order[:, 1:], apart.cumsum(1), 1)
        ranks, severity = pd.DataFrame(tied).rank(axis=1), pd.Series(range(values.shape[1]))
        rho = ranks.corrwith(severity, axis=1).fillna(0).to_numpy()  # 0: never changes
        low, high = interval(resample(rng, len(rho), 1000) @ rho / len(rho))
        change = (values[:, -1] - values[:, 0]).mean() / spread if spread > 0 else np.nan
        rows.append((kind, len(rho), rho.mean(), low, high, change, (np.diff(tied) <= 0).all(1).mean()))
    return pd.DataFrame(rows, columns=["kind", "clips", "rho", "low", "high", "change", "monotone"])
