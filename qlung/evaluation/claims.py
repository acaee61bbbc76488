"""The paper's claims against what was measured."""

import math
import tomllib
from typing import Annotated

import pandas as pd
import pydantic
from pydantic import Field

from .. import paths
from ..errors import ConfigError
from .intervals import MEASURED, difference, holm


class Claim(pydantic.BaseModel, strict=True, extra="forbid"):
    """A claim of claims.toml: what the paper says, which two methods it compares, and what would decide it.

    ``effect`` is the paper's difference, where it has a number. Half of it is the size below which a difference counts
    as negligible.
    """

    id: str
    text: str
    source: str
    paper: str
    judged_on: Annotated[list[str], Field(min_length=1)]
    better: str = ""
    than: str = ""
    corpus: str = ""
    statistic: str = "Score"
    effect: Annotated[float, Field(gt=0)] = math.inf
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


def shows(row: dict, effect: float = math.inf) -> str:
    """What a `difference` says: "negligible" (within half of ``effect``), "supported", "contradicted", "undecided"."""
    if row["within"] < effect / 2 < math.inf:
        return "negligible"
    return "supported" if row["low"] > 0 else "contradicted" if row["high"] < 0 else "undecided"


def primary(predictions: pd.DataFrame, trained_on: str = "icbhi") -> pd.DataFrame:
    """The comparisons that claims.toml fixed beforehand, measured: one row per claim, corpus and backbone.

    The claims are about networks trained on ICBHI. For those ``trained_on`` "sprsound" the two corpora change places.

    Returns
    -------
    DataFrame
        Columns claim, corpus, backbone, statistic, those of `difference`, p Holm (corrected for all rows here) and
        shows. Synthetic corpora stand in for the claim's real one and keep their name.
    """
    rows = []
    for claim in [claim for claim in load() if "better" in claim]:
        corpus = claim["corpus"] if trained_on == "icbhi" else ({"icbhi", "sprsound"} - {claim["corpus"]}).pop()
        chosen = predictions[predictions["corpus"].str.removeprefix("synthetic-") == corpus]
        if "lowest_aqs" in claim:
            chosen = chosen[chosen["aqs"] <= chosen.drop_duplicates("event_id")["aqs"].quantile(claim["lowest_aqs"])]
        statistic = claim.get("statistic", "Score")
        for (backbone, corpus), part in chosen.groupby(["backbone", "corpus"], sort=False):
            if {claim["better"], claim["than"]} <= set(part["method"]):
                row = {"claim": claim["id"], "corpus": corpus, "backbone": backbone, "statistic": statistic}
                row |= difference(part, claim["better"], claim["than"], statistic)
                rows.append(row | {"shows": shows(row, claim.get("effect", math.inf))})
    table = pd.DataFrame(rows, columns=["claim", "corpus", "backbone", "statistic", *MEASURED, "shows"])
    table.insert(len(table.columns) - 1, "p Holm", holm(table["p"]))
    return table


def _text(row) -> str:
    """One measured difference in words; a synthetic corpus is named, so that nobody takes it for the real one."""
    where = f"{row.backbone} on {row.corpus}" if row.corpus.startswith("synthetic-") else row.backbone
    unit = " sd" if row.statistic == "separation" else ""
    found = f"{row.difference:+.2f}{unit} [{row.low:+.2f}, {row.high:+.2f}]"
    return f"{where}: {found}, {row.seeds} seeds, {row.patients:.0f} patient{'s'[row.patients < 1.5:]}: {row.shows}"


def judge(profile: str, predictions: pd.DataFrame, trained_on: str = "icbhi") -> pd.DataFrame:
    """Every claim: the paper's number, the measured difference on this profile (`primary`), and the verdict it allows.

    Returns
    -------
    DataFrame
        Columns claim, text, paper ("-" where it has no number), here, verdict. Verdicts: confirmed (interval above 0
        with every backbone), contradicted (below 0 with every one), not confirmed, measured, or not testable here.
    """
    rows, table = [], primary(predictions, trained_on)
    verdicts = {(): "not measured yet", ("supported",): "confirmed", ("contradicted",): "contradicted"}
    for claim in load():
        measured = table[table["claim"] == claim["id"]]
        here = "; ".join(_text(row) for row in measured.itertuples())
        if profile not in claim["judged_on"]:
            verdict = f"not testable here: needs PROFILE={' or '.join(claim['judged_on'])}"
        elif "measured_in" in claim:
            verdict = f"measured: see {claim['measured_in']}"
        else:
            verdict = verdicts.get(tuple(measured["shows"].unique()), "not confirmed")
        paper = claim["paper"] if any(map(str.isdigit, claim["paper"])) else "-"
        rows.append((claim["id"], claim["text"], paper, here or "-", verdict))
    return pd.DataFrame(rows, columns=["claim", "text", "paper", "here", "verdict"])
