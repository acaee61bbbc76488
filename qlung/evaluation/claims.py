"""The paper's claims against what was measured."""

import tomllib
from typing import Annotated

import pandas as pd
import pydantic
from pydantic import Field

from .. import paths
from ..errors import ConfigError
from .intervals import difference


class Claim(pydantic.BaseModel, strict=True, extra="forbid"):
    """A claim of claims.toml: what the paper says, which two methods it compares, and what would decide it."""

    id: str
    text: str
    source: str
    paper: str
    judged_on: list[str]
    better: str = ""
    than: str = ""
    corpus: str = ""
    statistic: str = "Score"
    lowest_aqs: Annotated[float, Field(gt=0, le=1)] = 1.0
    confirmed_if: str = ""
    contradicted_if: str = ""
    measured_in: str = ""


class Choice(pydantic.BaseModel, strict=True, extra="forbid"):
    """An entry of the interpretation ledger: what the paper leaves open, and what is chosen here."""

    open: str
    ours: str
    others: str
    why: str
    tried: str = ""


def load(table: str = "claims") -> list[dict]:
    """The entries of claims.toml: its "claims", or its interpretation "ledger"; ConfigError names what is wrong."""
    kind = {"claims": Claim, "ledger": Choice}[table]
    try:
        rows = tomllib.loads(paths.CLAIMS.read_text(encoding="utf-8"))[table]
        return [kind(**row).model_dump(exclude_unset=True) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:  # a ValidationError is a ValueError, and names the key
        raise ConfigError(f"'{paths.CLAIMS}', table {table}: {error}") from error


def measure(claim: dict, predictions: pd.DataFrame) -> pd.DataFrame:
    """Per backbone and corpus: difference, low, high, seeds and whether the interval supports or contradicts the claim.

    Synthetic corpora stand in for the claim's real one and keep their name. Empty if there is nothing to compare.
    """
    rows = []
    if "better" not in claim:
        return pd.DataFrame(rows)
    chosen = predictions[predictions["corpus"].str.removeprefix("synthetic-") == claim["corpus"]]
    if "lowest_aqs" in claim:
        chosen = chosen[chosen["aqs"] <= chosen.drop_duplicates("event_id")["aqs"].quantile(claim["lowest_aqs"])]
    for (backbone, corpus), part in chosen.groupby(["backbone", "corpus"], sort=False):
        if {claim["better"], claim["than"]} <= set(part["method"]):
            row = difference(part, claim["better"], claim["than"], claim.get("statistic", "Score"))
            shows = "for" if row["low"] > 0 else "against" if row["high"] < 0 else "undecided"
            rows.append({"backbone": backbone, "corpus": corpus, **row, "shows": shows})
    return pd.DataFrame(rows)


def _text(row, unit: str) -> str:
    """One measured difference in words; a synthetic corpus is named, so that nobody takes it for the real one."""
    where = f"{row.backbone} on {row.corpus}" if row.corpus.startswith("synthetic-") else row.backbone
    return f"{where}: {row.difference:+.2f}{unit} [{row.low:+.2f}, {row.high:+.2f}], {row.seeds} seeds: {row.shows}"


def judge(profile: str, predictions: pd.DataFrame) -> pd.DataFrame:
    """Every claim: the paper's number, the measured difference on this profile, and the verdict it allows.

    Returns
    -------
    DataFrame
        Columns claim, text, paper ("-" where it has no number), here, verdict. Verdicts: confirmed (interval above 0
        with every backbone), contradicted (below 0 with every one), not confirmed, measured, or not testable here.
    """
    rows = []
    for claim in load():
        measured = measure(claim, predictions)
        unit = "°" if claim.get("statistic") == "separation" else ""
        here = "; ".join(_text(row, unit) for row in measured.itertuples())
        if profile not in claim["judged_on"]:
            needs = "PROFILE=" + " or ".join(claim["judged_on"]) if claim["judged_on"] else "other corpora"
            verdict = f"not testable here: needs {needs}"
        elif "measured_in" in claim:
            verdict = f"measured: see {claim['measured_in']}"
        elif not len(measured):
            verdict = "not measured yet"
        else:
            verdicts = {("for",): "confirmed", ("against",): "contradicted"}
            verdict = verdicts.get(tuple(measured["shows"].unique()), "not confirmed")
        paper = claim["paper"] if any(map(str.isdigit, claim["paper"])) else "-"
        rows.append((claim["id"], claim["text"], paper, here or "-", verdict))
    return pd.DataFrame(rows, columns=["claim", "text", "paper", "here", "verdict"])
