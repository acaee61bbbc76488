"""Tables of scores, made from predictions alone."""

import numpy as np
import pandas as pd

from ..corpora import CLASSES
from .intervals import difference, holm, permutation_p
from .metrics import icbhi_score, measures


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


def trivial_baselines(target) -> dict[str, np.ndarray]:
    """Labels from two classifiers that listen to nothing: always normal, always the most frequent abnormal class."""
    target = np.asarray(target)
    frequent = 1 + int(np.bincount(target[target > 0], minlength=4)[1:].argmax())
    return {f"always {CLASSES[k]}": np.full(len(target), k) for k in (0, frequent)}


def trivial_scores(target) -> pd.DataFrame:
    """Scores of the two classifiers that listen to nothing."""
    rows = [(name, *icbhi_score(target, answer)) for name, answer in trivial_baselines(target).items()]
    return pd.DataFrame(rows, columns=["method", "Sp", "Se", "Score"])


def scores(predictions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(Sp, Se, Score of every run; mean and sd over seeds beside the trivial baselines), by corpus and backbone."""
    by = ["corpus", "backbone", "method"]
    runs = score_table(predictions, [*by, "seed", "run"])
    table = over_seeds(runs, by)
    for corpus, part in predictions.groupby("corpus", sort=False):
        floor = trivial_scores(part.drop_duplicates("event_id")["label"])
        floor.columns = ["method", "Sp mean", "Se mean", "Score mean"]
        table = pd.concat([table, floor.assign(corpus=corpus, backbone="none", seeds=1)], ignore_index=True)
    return runs, table


def every_measure(predictions: pd.DataFrame) -> pd.DataFrame:
    """`measures` of each corpus, backbone and method, mean over seeds; and of what listens to nothing."""
    by = ["corpus", "backbone", "method"]
    table = measure_table(predictions, [*by, "seed"]).drop(columns="seed")
    out = [table.groupby(by, sort=False).mean().reset_index()]
    for corpus, part in predictions.groupby("corpus", sort=False):
        truth = part.drop_duplicates("event_id")["label"]
        for name, answer in trivial_baselines(truth).items():
            deaf = measures(truth, answer, np.eye(4)[answer])
            out.append(pd.DataFrame([{"corpus": corpus, "backbone": "none", "method": name, "n": len(truth)} | deaf]))
    return pd.concat(out, ignore_index=True).astype({"n": int})


UNITS = ("patients", "seeds")


def contrasts(predictions: pd.DataFrame) -> pd.DataFrame:
    """Every method against "ce", and every variant ("qlung lam=0.8") against its method, with the same seeds.

    Returns
    -------
    DataFrame
        Columns corpus, backbone, row, against, difference, low, high (95 % over patients and seeds), seeds, p patients,
        p seeds (`permutation_p`) and p Holm: the larger of the two, corrected for all rows of this table.
    """
    out = []
    for (corpus, backbone), part in predictions.groupby(["corpus", "backbone"], sort=False):
        methods = dict(iter(part.groupby("method", sort=False)))
        for row in methods:
            against = row.split()[0] if " " in row else "ce"
            if row != against and against in methods:
                pair = pd.concat([methods[row], methods[against]])
                found = difference(pair, row, against)
                p = {f"p {unit}": permutation_p(pair, row, against, over=unit) for unit in UNITS}
                out.append({"corpus": corpus, "backbone": backbone, "row": row, "against": against, **found, **p})
    columns = ["corpus", "backbone", "row", "against", "difference", "low", "high", "seeds", *(f"p {u}" for u in UNITS)]
    table = pd.DataFrame(out, columns=columns)
    return table.assign(**{"p Holm": holm(table[[f"p {unit}" for unit in UNITS]].max(axis=1))})
