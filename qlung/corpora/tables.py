"""Respiratory-sound corpora behind one table schema, so that a further data set is one more file."""

import dataclasses
import hashlib
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from ..errors import CorpusError

SHORTEST_S = 0.010  # less is no sound to classify, and may hold no sample at all once resampled
ASIDE = "event left out"
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
        "sha256": pa.Column(str, pa.Check.str_matches("^[0-9a-f]{64}$")),
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
        duration_s, path, quality_label ("good", "poor" or "" where nobody said), sha256 (of the decoded samples).
    events : DataFrame
        One row a labelled stretch (ICBHI's cycle, SPRSound's event) of those recordings: event_id, recording_id,
        start_s, end_s, label (0 normal, 1 crackle, 2 wheeze, 3 both), crackle, wheeze, raw_label, split.
    report : DataFrame
        What was set aside or adjusted while reading: recording_id, what, and what was done ("absent"; "left out": the
        whole recording; "event left out"; or what was changed or kept). Never silent.
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

    def duplicates(self) -> pd.DataFrame:
        """Recordings whose samples equal an earlier one's: recording_id, split, same_as, same_as_split."""
        first = self.recordings.drop_duplicates("sha256").set_index("sha256")
        later = self.recordings[self.recordings.duplicated("sha256")]
        same = first.loc[later["sha256"], ["recording_id", "split"]].to_numpy().reshape(-1, 2)
        out = later[["recording_id", "split"]].reset_index(drop=True)
        return out.assign(same_as=same[:, 0], same_as_split=same[:, 1])

    def fingerprint(self) -> str:
        """Hash of both tables without the machine's paths; changes when any label, time or sample does."""
        tables = (self.recordings.drop(columns="path"), self.events)
        text = "".join(table.to_csv(index=False, float_format="%.6f") for table in tables)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Tables:
    """Rows of one corpus while it is read: what both loaders do alike, and every remark about it."""

    def __init__(self, name: str, root: Path):
        self.name, self.root = name, root
        self.recordings, self.events, self.report = [], [], []

    def note(self, recording_id: str, what: str, done: str = "left out") -> None:
        """Say what was found in a recording and what was done about it."""
        self.report.append({"recording_id": recording_id, "what": what, "done": done})

    def add(self, sound: dict, events: list[tuple[float, float, bool, bool, str]], **columns) -> None:
        """A usable recording and its events (start s, end s, crackle, wheeze, raw label), checked against its end."""
        name, duration = columns["recording_id"], sound["frames"] / sound["rate"]
        for what, done in sound["notes"]:
            self.note(name, what, done)
        facts = {"sample_rate": sound["rate"], "duration_s": duration, "sha256": sound["sha256"]}
        self.recordings.append(columns | facts)
        if not events and columns["quality_label"] != "poor":
            self.note(name, "no event is labelled", "kept")
        before = 0.0
        for index, (start, end, crackle, wheeze, raw_label) in enumerate(events):
            if start >= duration:
                self.note(name, f"event {index} starts at {start:.3f} s, after the end ({duration:.3f} s)", ASIDE)
                continue
            if min(end, duration) - start < SHORTEST_S:
                self.note(name, f"event {index} lasts {1000 * (min(end, duration) - start):.2f} ms", ASIDE)
                continue
            if end - duration > 0.002:  # annotations are rounded to a millisecond
                self.note(name, f"event {index} ends {end - duration:.3f} s after the recording", "cut at the end")
            if start < before - 0.002:
                self.note(name, f"event {index} starts {before - start:.3f} s before the one before it ends", "kept")
            before = max(before, end)
            self.events.append(
                {
                    "event_id": f"{name}#{index:02d}",
                    "recording_id": name,
                    "start_s": start,
                    "end_s": min(end, duration),
                    "label": int(crackle) + 2 * int(wheeze),
                    "crackle": crackle,
                    "wheeze": wheeze,
                    "raw_label": raw_label,
                    "split": columns["split"],
                }
            )

    def corpus(self) -> Corpus:
        """Check the rows against the schema and build a Corpus, sorted by id; recordings with equal audio are noted."""
        if not self.recordings:
            said = f" ({self.report[-1]['recording_id']}: {self.report[-1]['what']})" if self.report else ""
            raise CorpusError(f"{self.name}: no usable recording under '{self.root}'{said}. See data/README.md.")
        if not self.events:
            raise CorpusError(f"{self.name}: {len(self.recordings)} recordings under '{self.root}', no labelled event.")
        recordings = pd.DataFrame(self.recordings)[list(RECORDINGS.columns)].sort_values("recording_id")
        events = pd.DataFrame(self.events).sort_values("event_id", ignore_index=True)
        corpus = Corpus(self.name, recordings.reset_index(drop=True), events, pd.DataFrame())
        try:
            RECORDINGS.validate(corpus.recordings)
            EVENTS.validate(corpus.events)
        except pa.errors.SchemaError as error:
            raise CorpusError(f"{self.name}: the tables read from '{self.root}' break the schema: {error}") from error
        for row in corpus.duplicates().itertuples():
            self.note(row.recording_id, f"same audio as {row.same_as} ({row.split}, {row.same_as_split})", "kept")
        report = pd.DataFrame(self.report, columns=["recording_id", "what", "done"])
        return dataclasses.replace(corpus, report=report)
