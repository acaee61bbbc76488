"""The paper's claims against what was measured."""

import tomllib

import pandas as pd

from .. import paths
from .intervals import difference


def load(table: str = "claims") -> list[dict]:
    """The rows of claims.toml: its "claims", or its interpretation "ledger"."""
    return tomllib.loads(paths.CLAIMS.read_text())[table]


def measure(claim: dict, predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a backbone: difference, low, high, seeds and, in a word, what that shows. Empty if nothing compares."""
    rows = []
    if "better" not in claim:
        return pd.DataFrame(rows)
    chosen = predictions[predictions["corpus"].str.removeprefix("synthetic-") == claim["corpus"]]
    if "lowest_aqs" in claim:
        chosen = chosen[chosen["aqs"] <= chosen.drop_duplicates("event_id")["aqs"].quantile(claim["lowest_aqs"])]
    for backbone, part in chosen.groupby("backbone", sort=False):
        if {claim["better"], claim["than"]} <= set(part["method"]):
            row = difference(part, claim["better"], claim["than"], claim.get("statistic", "Score"))
            shows = "for" if row["low"] > 0 else "against" if row["high"] < 0 else "undecided"
            rows.append({"backbone": backbone, **row, "shows": shows})
    return pd.DataFrame(rows)


def judge(profile: str, predictions: pd.DataFrame) -> pd.DataFrame:
    """Every claim: what the paper says, what this profile measured, and the verdict it allows.

    Returns
    -------
    DataFrame
        Columns claim, text, paper, here, verdict. Verdicts: confirmed (interval above 0 with every backbone),
        contradicted (below 0 with every one), not confirmed, measured, or not testable here.
    """
    rows = []
    for claim in load():
        measured = measure(claim, predictions)
        unit = "°" if claim.get("statistic") == "separation" else ""
        here = "; ".join(
            f"{r.backbone}: {r.difference:+.2f}{unit} [{r.low:+.2f}, {r.high:+.2f}], {r.seeds} seeds: {r.shows}"
            for r in measured.itertuples()
        )
        if profile not in claim["judged_on"]:
            needs = "other corpora" if not claim["judged_on"] else "PROFILE=" + " or ".join(claim["judged_on"])
            verdict = f"not testable here: needs {needs}"
        elif "measured_in" in claim:
            verdict = f"measured: see {claim['measured_in']}"
        elif not len(measured):
            verdict = "not measured yet"
        else:
            verdicts = {("for",): "confirmed", ("against",): "contradicted"}
            verdict = verdicts.get(tuple(measured["shows"].unique()), "not confirmed")
        rows.append((claim["id"], claim["text"], claim["paper"], here or "-", verdict))
    return pd.DataFrame(rows, columns=["claim", "text", "paper", "here", "verdict"])
