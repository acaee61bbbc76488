"""What a folder holds of each registered corpus: complete, partial, damaged, different or absent, and why."""

from pathlib import Path

import pandas as pd

from .. import paths
from ..errors import CorpusError
from .registry import find, load_corpus, sources
from .tables import ASIDE, Corpus


def counts(corpus: Corpus) -> dict:
    """recordings, patients, and events per class in every split."""
    patients = corpus.recordings["patient_id"].nunique()
    by_split = {split: corpus.select(split).counts() for split in sorted(corpus.recordings["split"].unique())}
    return {"recordings": len(corpus.recordings), "patients": patients} | by_split


def examine(name: str, root: Path | None = None) -> dict:
    """Read one corpus and compare it with what the whole one holds.

    Parameters
    ----------
    name : str
        A registered corpus.
    root : Path, optional
        As `load_corpus` takes it: folder that holds ``name``/, or is the corpus itself.

    Returns
    -------
    dict
        corpus, verdict, recordings, patients, events, events per class of each split, missing and damaged (recording:
        why), remarks (recording, what, what was done), duplicates, and ``differs``: what is not as expected. The
        verdict is

        - "complete": every recording is usable and every count as expected, events left out included;
        - "damaged": something is there and cannot be used;
        - "partial": what is there is usable, but recordings are missing;
        - "different": nothing is missing or damaged, yet the counts are not the release's;
        - "unchecked": nothing is missing or damaged, and no expected counts are registered;
        - "absent": nothing of this corpus is there.
    """
    expect = find(name).entry.get("expect", {})
    found = {"corpus": name, "recordings": 0, "events": 0, "missing": {}, "damaged": {}, "remarks": [],
             "duplicates": [], "differs": []}  # fmt: skip
    try:
        corpus = load_corpus(name, root)
    except CorpusError as error:
        there = any((Path(root or paths.data_dir()) / name).rglob("*.wav"))
        return found | {"verdict": "damaged" if there else "absent", "differs": [str(error)]}
    found |= counts(corpus) | {"events": len(corpus.events), "duplicates": corpus.duplicates().to_dict("records")}
    for recording, what, done in corpus.report.itertuples(index=False):
        if done in ("absent", "left out"):
            found["missing" if done == "absent" else "damaged"][recording] = what
        else:
            found["remarks"].append([recording, what, done])
    # An event that was left out is annotated, so part of the published counts, though not usable.
    aside = int((corpus.report["done"] == ASIDE).sum())
    splits = [key for key in expect if isinstance(expect[key], list)]
    accounted = aside and found["events"] + aside == sum(sum(expect[key]) for key in splits)
    for key in [key for key in expect if not (accounted and key in splits)]:
        if found.get(key) != expect[key]:
            found["differs"].append(f"{key}: {found.get(key, 'nothing')}, the whole corpus has {expect[key]}")
    partial = found["missing"] or found["recordings"] < expect.get("recordings", 0)
    verdicts = {"damaged": found["damaged"], "partial": partial, "different": found["differs"], "complete": expect}
    return found | {"verdict": next((verdict for verdict, holds in verdicts.items() if holds), "unchecked")}


def fault(found: dict) -> str:
    """The verdict of `examine` with its first four reasons; "" where the corpus is complete."""
    reasons = [*found["differs"], *(": ".join(row) for row in (found["damaged"] | found["missing"]).items())]
    return "" if found["verdict"] == "complete" else f"{found['verdict']}: {'; '.join(reasons[:4])}"


def examine_all(root: Path) -> list[dict]:
    """``examine`` of every registered corpus that is recorded, not made by this package."""
    return [examine(name, root) for name, source in sorted(sources().items()) if source.recorded]


def summary(verdicts: list[dict]) -> pd.DataFrame:
    """One row per corpus: verdict, and how much is there, missing, damaged, remarked upon or there twice."""
    columns = ["corpus", "verdict", "recordings", "events", "missing", "damaged", "remarks", "duplicates"]
    rows = [{c: len(v[c]) if isinstance(v[c], dict | list) else v[c] for c in columns} for v in verdicts]
    return pd.DataFrame(rows).rename(columns={"recordings": "files", "remarks": "notes", "duplicates": "twice"})


def all_complete(verdicts: list[dict]) -> bool:
    """Whether at least one corpus is complete and every other one is complete or absent."""
    return {verdict["verdict"] for verdict in verdicts} - {"absent"} == {"complete"}
