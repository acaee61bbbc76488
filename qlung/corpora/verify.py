"""Say what a folder holds of each corpus: whole, partial, damaged or absent, and which check says so."""

from pathlib import Path

import pandas as pd

from ..errors import CorpusError
from .registry import load_corpus
from .tables import ASIDE, Corpus

CORPORA = ("icbhi", "sprsound")


def examine(name: str, root: Path, expect: dict) -> dict:
    """Read one corpus and compare it with what the whole one holds.

    Parameters
    ----------
    name : {"icbhi", "sprsound"}
    root : Path
        Folder that holds ``name``/, or is the corpus itself.
    expect : dict
        ``recordings``, ``patients``, and events per class in ``train`` and ``test``, of the whole corpus.

    Returns
    -------
    dict
        corpus, verdict, recordings, patients, events, train, test, missing and damaged (recording: why), remarks
        (recording, what, what was done), duplicates, and ``differs``: what is not as expected. The verdict is

        - "complete": every recording is usable and every count as expected, events set aside included;
        - "damaged": something is there and cannot be used;
        - "partial": what is there is sound, but recordings are missing;
        - "different": nothing is missing or damaged, yet the counts are not the release's;
        - "absent": nothing of this corpus is there.
    """
    found = {"corpus": name, "verdict": "absent", "recordings": 0, "patients": 0, "events": 0, "train": [0] * 4,
             "test": [0] * 4, "missing": {}, "damaged": {}, "remarks": [], "duplicates": [], "differs": []}  # fmt: skip
    try:
        corpus = load_corpus(name, root)
    except CorpusError as error:
        there = Path(root).is_dir() and any((Path(root) / name).rglob("*.wav") if (Path(root) / name).is_dir() else ())
        return found | {"verdict": "damaged" if there else "absent", "differs": [str(error)]}
    found |= counts(corpus) | {"events": len(corpus.events), "duplicates": corpus.duplicates().to_dict("records")}
    report = corpus.report
    for row in report.itertuples():
        if row.done == "absent":
            found["missing"][row.recording_id] = row.what
        elif row.done == "left out":
            found["damaged"][row.recording_id] = row.what
        else:
            found["remarks"].append(list(row[1:]))
    aside = int((report["done"] == ASIDE).sum())  # annotated, so part of the published counts, though not usable
    accounted = aside and found["events"] + aside == sum(expect["train"]) + sum(expect["test"])
    for what, wanted in expect.items():
        if found[what] != wanted and not (accounted and what in ("train", "test")):
            found["differs"].append(f"{what}: {found[what]}, the whole corpus has {wanted}")
    if found["damaged"]:
        found["verdict"] = "damaged"
    elif found["missing"] or found["recordings"] < expect["recordings"]:
        found["verdict"] = "partial"
    else:
        found["verdict"] = "different" if found["differs"] else "complete"
    return found


def counts(corpus: Corpus) -> dict:
    """recordings, patients, and events per class in train and test."""
    patients = corpus.recordings["patient_id"].nunique()
    by_split = {split: corpus.select(split).counts() for split in ("train", "test")}
    return {"recordings": len(corpus.recordings), "patients": patients} | by_split


def examine_all(root: Path, registry: dict) -> list[dict]:
    """``examine`` of every corpus of the registry."""
    return [examine(name, root, registry[name]["expect"]) for name in CORPORA]


def summary(verdicts: list[dict]) -> pd.DataFrame:
    """One row a corpus: verdict and how much is there, missing, damaged, remarked upon or there twice."""
    columns = ["corpus", "verdict", "recordings", "events", "missing", "damaged", "remarks", "duplicates"]
    rows = [{c: len(v[c]) if isinstance(v[c], dict | list) else v[c] for c in columns} for v in verdicts]
    return pd.DataFrame(rows).rename(columns={"recordings": "files", "remarks": "notes", "duplicates": "twice"})


def all_complete(verdicts: list[dict]) -> bool:
    """Whether at least one corpus is complete and none is partial, damaged or different."""
    said = {verdict["verdict"] for verdict in verdicts} - {"absent"}
    return said == {"complete"}
