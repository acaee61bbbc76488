"""Tables of scores, made from predictions alone."""

import numpy as np
import pandas as pd

from ..corpora import CLASSES
from .intervals import MEASURED, bootstrap, difference, interval
from .metrics import PROBABILITIES, icbhi_score, measures


def measure_table(predictions: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """n and `measures` per group of predictions; ECE and AUROC where p0..p3 are known."""
    rows = []
    for key, group in predictions.groupby(by, sort=False):
        p = group.reindex(columns=PROBABILITIES)
        found = measures(group["label"], group["predicted"], None if p.isna().any(axis=None) else p.to_numpy())
        rows.append(dict(zip(by, key, strict=True)) | {"n": len(group)} | found)
    return pd.DataFrame(rows)


def score_table(predictions: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """n, Sp, Se and Score per group of predictions (columns label, predicted and ``by``)."""
    groups = predictions.groupby(by, sort=False)
    rows = [(*key, len(group), *icbhi_score(group["label"], group["predicted"])) for key, group in groups]
    return pd.DataFrame(rows, columns=[*by, "n", "Sp", "Se", "Score"])


def over_seeds(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean and sample sd over seeds of a score table."""
    grouped = table.groupby(by, sort=False)[["Sp", "Se", "Score"]]
    out = grouped.agg(["mean", "std"]).rename(columns={"std": "sd"})
    return out.set_axis(out.columns.map(" ".join), axis=1).assign(seeds=grouped.size()).reset_index()


def trivial_baselines(target) -> dict[str, np.ndarray]:
    """Trivial baselines, which use no audio: always normal, and always the most frequent abnormal class."""
    target = np.asarray(target)
    frequent = 1 + int(np.bincount(target[target > 0], minlength=4)[1:].argmax())
    return {f"always {CLASSES[k]}": np.full(len(target), k) for k in (0, frequent)}


def _with_trivial_baselines(predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions and, as those of backbone "none", the trivial baselines' for the same clips."""
    tables = [predictions]
    for _, part in predictions.groupby("corpus", sort=False):
        clips = part.drop_duplicates("event_id").assign(backbone="none", seed=0, run="none")
        for name, answer in trivial_baselines(clips["label"]).items():
            sure = pd.DataFrame(np.eye(4)[answer], clips.index, PROBABILITIES)
            tables.append(clips.assign(method=name, predicted=answer, **sure))
    return pd.concat(tables)


def scores(predictions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(Sp, Se, Score of every run; mean and sd over seeds beside the trivial baselines), by corpus and backbone."""
    by = ["corpus", "backbone", "method"]
    table = score_table(_with_trivial_baselines(predictions), [*by, "seed", "run"])
    return table[table["backbone"] != "none"], over_seeds(table, by)


def every_measure(predictions: pd.DataFrame) -> pd.DataFrame:
    """`measures` of each corpus, backbone and method, mean over seeds; and of the trivial baselines."""
    by = ["corpus", "backbone", "method"]
    table = measure_table(_with_trivial_baselines(predictions), [*by, "seed"]).drop(columns="seed")
    return table.groupby(by, sort=False).mean().reset_index().astype({"n": int})


def contrasts(predictions: pd.DataFrame) -> pd.DataFrame:
    """Every method against "ce", and every variant ("qlung lam=0.8") against its method, with the same seeds.

    Returns
    -------
    DataFrame
        Columns corpus, backbone, row, against, and those of `difference`. The comparisons that were fixed beforehand
        are in claims.toml; these here are exploratory, and their p is not corrected.
    """
    rows = []
    for (corpus, backbone), part in predictions.groupby(["corpus", "backbone"], sort=False):
        methods = part["method"].unique().tolist()
        for row in methods:
            against = row.split()[0] if " " in row else "ce"
            if row != against and against in methods:
                keys = {"corpus": corpus, "backbone": backbone, "row": row, "against": against}
                rows.append(keys | difference(part, row, against))
    return pd.DataFrame(rows, columns=["corpus", "backbone", "row", "against", *MEASURED])


def ranking(predictions: pd.DataFrame) -> pd.DataFrame:
    """Settings of each backbone from best to worst by the mean of Score and macro-AUROC over the development sets.

    Parameters
    ----------
    predictions : DataFrame
        Of a profile whose split is "tune"; its corpora are the development sets. Every row of a backbone has the same
        seeds.

    Returns
    -------
    DataFrame
        Columns backbone, method ("ce", "ce lr=0.001", ...), Score and macro-AUROC of every set, mean, against (the row
        without the last setting, or without any), and the mean's difference to it with its 95 % interval over patients
        and seeds.
    """
    names = [(name, statistic) for name in predictions["corpus"].unique() for statistic in ("Score", "macro-AUROC")]
    rows = []
    for backbone, part in predictions.groupby("backbone", sort=False):
        draws = [bootstrap(part[part["corpus"] == name], statistic) for name, statistic in names]
        mean = sum(draws) / len(draws)
        for method in mean.iloc[0].sort_values(ascending=False).index:
            against = next(name for name in (method.rpartition(" ")[0], method.split()[0]) if name in mean)
            low, high = interval(gap := mean[method] - mean[against])
            measured = {" ".join(name): values[method].iloc[0] for name, values in zip(names, draws, strict=True)}
            found = {"mean": mean[method].iloc[0], "against": against, "difference": gap.iloc[0]}
            rows.append({"backbone": backbone, "method": method} | measured | found | {"low": low, "high": high})
    return pd.DataFrame(rows)
