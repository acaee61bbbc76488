"""Respiratory-sound corpora behind one table schema, so that a further data set is one more file."""

import dataclasses
import hashlib
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from .. import paths
from ..errors import ConfigError, CorpusError

CLASSES = ("normal", "crackle", "wheeze", "both")

RECORDINGS = pa.DataFrameSchema(
    {
        "recording_id": pa.Column(str, unique=True),
        "patient_id": pa.Column(str),
        "device": pa.Column(str),
        "location": pa.Column(str),
        "split": pa.Column(str, pa.Check.isin(["train", "test"])),
        "sample_rate": pa.Column(int, pa.Check.gt(0)),
        "duration_s": pa.Column(float, pa.Check.gt(0)),
        "path": pa.Column(str),
        "quality_label": pa.Column(str, pa.Check.isin(["", "good", "poor"])),
    },
    strict=True,
)
EVENTS = pa.DataFrameSchema(
    {
        "event_id": pa.Column(str, unique=True),
        "recording_id": pa.Column(str),
        "start_s": pa.Column(float, pa.Check.ge(0)),
        "end_s": pa.Column(float),
        "label": pa.Column(int, pa.Check.isin(range(4))),
        "crackle": pa.Column(bool),
        "wheeze": pa.Column(bool),
        "raw_label": pa.Column(str),
        "split": pa.Column(str, pa.Check.isin(["train", "test"])),
    },
    checks=pa.Check(lambda t: t["end_s"] > t["start_s"], error="an event must end after it starts"),
    strict=True,
)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One corpus as two tables.

    Attributes
    ----------
    name : str
    recordings : DataFrame
        One row a recording that is present: recording_id, patient_id, device, location, split, sample_rate [Hz],
        duration_s, path, quality_label ("good", "poor" or "" where nobody said).
    events : DataFrame
        One row a labelled stretch (ICBHI's cycle, SPRSound's event) of those recordings: event_id, recording_id,
        start_s, end_s, label (0 normal, 1 crackle, 2 wheeze, 3 both), crackle, wheeze, raw_label, split.
    report : DataFrame
        What was set aside or adjusted while reading: recording_id, what, and what was done. Never silent.
    """

    name: str
    recordings: pd.DataFrame
    events: pd.DataFrame
    report: pd.DataFrame

    def select(self, split: str | None = None, **equal) -> "Corpus":
        """Keep one split and the recordings whose columns equal the given values, with their events."""
        keep = self.recordings
        for column, value in equal.items():
            keep = keep[keep[column] == value]
        events = self.events[self.events["recording_id"].isin(keep["recording_id"])]
        if split is not None:
            keep, events = keep[keep["split"] == split], events[events["split"] == split]
        return dataclasses.replace(self, recordings=keep.reset_index(drop=True), events=events.reset_index(drop=True))

    def counts(self) -> list[int]:
        """Events per class, in the order of ``CLASSES``."""
        return self.events["label"].value_counts().reindex(range(4), fill_value=0).tolist()

    def fingerprint(self) -> str:
        """Hash of both tables without the machine's paths; changes when any label, time or recording does."""
        tables = (self.recordings.drop(columns="path"), self.events)
        text = "".join(table.to_csv(index=False, float_format="%.6f") for table in tables)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_corpus(name: str, recordings: list[dict], events: list[dict], report: list[dict], root: Path) -> Corpus:
    """Check rows against the schema and build a Corpus, sorted by id."""
    if not recordings:
        raise CorpusError(f"{name}: no recordings under '{root}'. See data/README.md for where to get the corpus.")
    if not events:
        raise CorpusError(f"{name}: {len(recordings)} recordings under '{root}', but not one labelled event.")
    frame = pd.DataFrame(recordings).sort_values("recording_id", ignore_index=True)
    stretches = pd.DataFrame(events).sort_values("event_id", ignore_index=True)
    try:
        RECORDINGS.validate(frame)
        EVENTS.validate(stretches)
    except pa.errors.SchemaError as error:
        raise CorpusError(f"{name}: the tables read from '{root}' break the schema: {error}") from error
    return Corpus(name, frame, stretches, pd.DataFrame(report, columns=["recording_id", "what", "done"]))


def load_corpus(name: str, root: str | Path | None = None, subset: str | None = None) -> Corpus:
    """Read a corpus in its owners' layout.

    Parameters
    ----------
    name : {"icbhi", "sprsound", "synthetic"}
        "synthetic" is this package's own ICBHI-like corpus (``subset="sprsound"`` for the SPRSound-like one); it is
        written in the owners' layouts on first use and read back by the same loaders.
    root : path, optional
        Folder that holds ``icbhi/`` and ``sprsound/`` (or is itself the corpus); default ``$QLUNG_DATA`` or ``data/``.
    subset : str, optional
        icbhi: "sc", the single-channel recordings by file name. sprsound: "train" or "inter".

    Raises
    ------
    CorpusError
        If the folder is missing, incomplete or not in a known layout.
    ConfigError
        If the corpus or the subset is unknown.
    """
    from . import icbhi, sprsound, synthetic

    readers = {"icbhi": (icbhi.read, {None, "sc"}), "sprsound": (sprsound.read, {None, "train", "inter"})}
    if name == "synthetic":
        name, subset, root = subset or "icbhi", None, synthetic.ensure(root)
    if name not in readers:
        raise ConfigError(f"unknown corpus '{name}': choose icbhi, sprsound or synthetic")
    reader, subsets = readers[name]
    if subset not in subsets:
        raise ConfigError(f"{name} has no subset '{subset}': choose from {sorted(filter(None, subsets))} or none")
    base = Path(root).expanduser() if root else paths.data_dir()
    if not base.is_dir():
        raise CorpusError(
            f"{name}: there is no folder '{base}'. Give the folder that holds {name}/ (DATA=..., or root)."
        )
    return reader(base / name if (base / name).is_dir() else base, subset)
