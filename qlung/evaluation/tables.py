"""Tables of scores, made from predictions alone."""

import numpy as np
import pandas as pd

from ..corpora import CLASSES
from .intervals import difference, holm, permutation_p
from .metrics import icbhi_score, measures


def measure_table(predictions: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """n and `measures` per group of predictions; ECE and AUROC where p0..p3 are known."""
    names, rows = [f"p{k}" for k in range(4)], []
    for key, group in predictions.groupby(by, sort=False):
        complete = set(names) <= set(group) and group[names].notna().all(axis=None)
        found = measures(group["label"], group["predicted"], group[names].to_numpy() if complete else None)
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


def trivial_scores(target) -> pd.DataFrame:
    """Sp, Se and Score of the two trivial baselines."""
    rows = [(name, *icbhi_score(target, answer)) for name, answer in trivial_baselines(target).items()]
    return pd.DataFrame(rows, columns=["method", "Sp", "Se", "Score"])


def scores(predictions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(Sp, Se, Score of every run; mean and sd over seeds beside the trivial baselines), by corpus and backbone."""
    by = ["corpus", "backbone", "method"]
    runs = score_table(predictions, [*by, "seed", "run"])
    table = over_seeds(runs, by)
    for corpus, part in predictions.groupby("corpus", sort=False):
        trivial = trivial_scores(part.drop_duplicates("event_id")["label"])
        trivial.columns = ["method", "Sp mean", "Se mean", "Score mean"]
        table = pd.concat([table, trivial.assign(corpus=corpus, backbone="none", seeds=1)], ignore_index=True)
    return runs, table


def every_measure(predictions: pd.DataFrame) -> pd.DataFrame:
    """`measures` of each corpus, backbone and method, mean over seeds; and of the trivial baselines."""
    by = ["corpus", "backbone", "method"]
    table = measure_table(predictions, [*by, "seed"]).drop(columns="seed")
    out = [table.groupby(by, sort=False).mean().reset_index()]
    for corpus, part in predictions.groupby("corpus", sort=False):
        truth = part.drop_duplicates("event_id")["label"]
        for name, answer in trivial_baselines(truth).items():
            trivial = {"corpus": corpus, "backbone": "none", "method": name, "n": len(truth)}
            out.append(pd.DataFrame([trivial | measures(truth, answer, np.eye(4)[answer])]))
    return pd.concat(out, ignore_index=True).astype({"n": int})


def contrasts(predictions: pd.DataFrame) -> pd.DataFrame:
    """Every method against "ce", and every variant ("qlung lam=0.8") against its method, with the same seeds.

    Returns
    -------
    DataFrame
        Columns corpus, backbone, row, against, difference, low, high (95 % over patients and seeds), seeds, p patients,
        p seeds (`permutation_p`) and p Holm: the larger of the two, corrected for all rows of this table.
    """
    units, out = ("patients", "seeds"), []
    for (corpus, backbone), part in predictions.groupby(["corpus", "backbone"], sort=False):
        methods = dict(iter(part.groupby("method", sort=False)))
        for row in methods:
            against = row.split()[0] if " " in row else "ce"
            if row != against and against in methods:
                pair = pd.concat([methods[row], methods[against]])
                p = [permutation_p(pair, row, against, over=unit) for unit in units]
                out.append((corpus, backbone, row, against, *difference(pair, row, against).values(), *p, max(p)))
    columns = ["corpus", "backbone", "row", "against", "difference", "low", "high", "seeds", "p patients", "p seeds"]
    table = pd.DataFrame(out, columns=[*columns, "p Holm"])
    return table.assign(**{"p Holm": holm(table["p Holm"])})
