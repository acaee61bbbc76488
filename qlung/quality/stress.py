"""Known damage in graded amounts: does a quality score fall as a recording gets worse, and how far does a method?"""

import numpy as np
import pandas as pd
import torch

from ..audio import batches
from ..audio.degrade import SEVERITIES, Degradation
from ..cache import cached_array, code_version
from . import indicators
from .aqs import DEFAULT_DEFINITION, RATE, rms_dbfs, spectral_entropy


def severity_table(corpus, ladders: dict = SEVERITIES) -> pd.DataFrame:
    """Every clip undamaged ("none", step 0) and on every rung of the ladders, measured; cached.

    Returns
    -------
    DataFrame
        One row a clip and rung: event_id, kind, step (0 to 5), amount, H, R [dBFS], then ``indicators.FEATURES`` and
        ``indicators.DIRECTION``.
    """
    rungs = [("none", 0, np.nan)]
    rungs += [(kind, step, a) for kind, (_, amounts) in ladders.items() for step, a in enumerate(amounts, 1)]
    key = {"corpus": corpus.fingerprint(), "rungs": rungs[1:]}
    key["code"] = code_version("audio", "quality")
    columns = ["H", "R", *indicators.FEATURES, *indicators.DIRECTION]

    def build() -> np.ndarray:
        out = []
        for high, low in zip(*(batches(corpus, rate, 8.0) for rate in (RATE, indicators.RATE)), strict=True):
            for kind, _, amount in rungs:
                a, b = high, low
                if kind != "none":
                    a, b = (Degradation(kind, amount)(x, r) for x, r in ((high, RATE), (low, indicators.RATE)))
                h = spectral_entropy(a, RATE, **DEFAULT_DEFINITION)
                told = torch.stack(list(indicators.signal_scores(b).values()), 1)
                out.append(torch.cat([torch.stack([h, rms_dbfs(a)], 1), indicators.band_features(b), told], 1))
        batches = [torch.stack(out[i : i + len(rungs)], 1) for i in range(0, len(out), len(rungs))]
        return torch.cat(batches).double().numpy()  # [clips, rungs, columns]

    values = cached_array("ladder", key, build)
    index = pd.MultiIndex.from_product([corpus.events["event_id"], range(len(rungs))], names=["event_id", "rung"])
    table = pd.DataFrame(values.reshape(-1, len(columns)), index=index, columns=columns).reset_index()
    named = pd.DataFrame(rungs, columns=["kind", "step", "amount"]).rename_axis("rung").reset_index()
    return named.merge(table, on="rung").drop(columns="rung")


def monotonicity(
    table: pd.DataFrame, column: str, kinds=tuple(SEVERITIES), draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Does a score fall as damage grows? Spearman's rho between step and score, within each clip, averaged.

    Steps that differ by less than a hundredth of the undamaged clips' sd count as equal: processors round differently,
    and what only rounding moves follows nothing.

    Parameters
    ----------
    table : DataFrame
        From ``ladder``, with ``column`` added where it is not there.
    column : str

    Returns
    -------
    DataFrame
        kind, clips, rho (mean over clips; -1: falls at every step), low, high (95 %, clips resampled), change (mean of
        the last step minus undamaged, in undamaged sds) and monotone: share of clips that never rise.
    """
    rng, rows = np.random.default_rng(seed), []
    clean = table[table["kind"] == "none"].set_index("event_id")[column]
    spread = clean.std()
    grain = 1e-2 * spread if spread > 0 else 1.0
    for kind in kinds:
        steps = table[table["kind"] == kind].pivot_table(index="event_id", columns="step", values=column)
        values = pd.concat([clean.rename(0), steps], axis=1).dropna().to_numpy()
        order = values.argsort(1)
        apart = np.diff(np.take_along_axis(values, order, 1)) > grain  # neighbours closer than a grain are one level
        levels = np.zeros_like(values)
        np.put_along_axis(levels, order[:, 1:], apart.cumsum(1), 1)
        ranks = pd.DataFrame(levels).rank(axis=1).to_numpy()
        ranks = ranks - ranks.mean(1, keepdims=True)
        wanted = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
        length = np.sqrt((ranks**2).sum(1) * (wanted**2).sum())
        rho = np.where(length > 0, ranks @ wanted / np.where(length > 0, length, 1), 0)  # never moves: follows nothing
        means = rho[rng.integers(len(rho), size=(draws, len(rho)))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        change = (values[:, -1] - values[:, 0]).mean() / spread if spread > 0 else np.nan
        never = (np.diff(levels) <= 0).all(1).mean()
        rows.append((kind, len(rho), rho.mean(), low, high, change, never))
    return pd.DataFrame(rows, columns=["kind", "clips", "rho", "low", "high", "change", "monotone"])
