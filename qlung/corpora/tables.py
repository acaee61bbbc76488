"""The one table schema of every corpus, and how rows become a ``Corpus``: a further data set is one more file."""

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from ..errors import CorpusError
from . import wav

SHORTEST_S = 0.010  # less is no sound to classify, and may hold no sample at all once resampled
ASIDE = "event left out"
CLASSES = ("normal", "crackle", "wheeze", "both")

TEXT, SPLIT = pa.Column(str), pa.Column(str, pa.Check.str_matches("^(train|dev|test|test_[a-z0-9]+)$"))

RECORDINGS = pa.DataFrameSchema({
    "recording_id": pa.Column(str, unique=True), "patient_id": TEXT, "device": TEXT, "listed_device": TEXT,
    "location": TEXT, "split": SPLIT,
    "sample_rate": pa.Column(int, pa.Check.gt(0)), "duration_s": pa.Column(float, pa.Check.gt(0)), "path": TEXT,
    "quality_label": pa.Column(str, pa.Check.isin(["", "good", "poor"])),
    "sha256": pa.Column(str, pa.Check.str_matches("^[0-9a-f]{64}$")),
}, strict=True)  # fmt: skip
EVENTS = pa.DataFrameSchema({
    "event_id": pa.Column(str, unique=True), "recording_id": TEXT, "start_s": pa.Column(float, pa.Check.ge(0)),
    "end_s": pa.Column(float), "label": pa.Column(int, pa.Check.isin(range(4))), "crackle": pa.Column(bool),
    "wheeze": pa.Column(bool), "raw_label": TEXT, "split": SPLIT,
}, checks=pa.Check(lambda t: t["end_s"] > t["start_s"], error="an event must end after it starts"),
    strict=True)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One corpus as two tables.

    Attributes
    ----------
    name : str
    recordings : DataFrame
        One row per recording that is present: recording_id, patient_id, device, listed_device (what a list of the
        owners' says instead; else the same), location, split ("train", "dev", "test", or a named test like
        "test_inter"), sample_rate [Hz] (of the file: it tells devices apart), duration_s, path, quality_label ("good",
        "poor" or "" where there is none), sha256 (of the decoded samples).
    events : DataFrame
        One row per labelled interval (ICBHI's cycle, SPRSound's event) of those recordings: event_id, recording_id,
        start_s, end_s, label (0 normal, 1 crackle, 2 wheeze, 3 both), crackle, wheeze, raw_label (the owners'), split.
    report : DataFrame
        What was left out or adjusted while reading: recording_id, what was found, and what was done ("absent"; "left
        out": the whole recording; "not used": it is whole, and not for this; "event left out"; or what was changed or
        kept). Nothing is dropped without a row.
    unit : {"event", "recording"}
        What is classified. "recording": the owners label whole recordings, and events are windows of them, whose
        probabilities are averaged.
    """

    name: str
    recordings: pd.DataFrame
    events: pd.DataFrame
    report: pd.DataFrame
    unit: str = "event"

    def select(self, split: str) -> "Corpus":
        """Keep the recordings and events of one split; "test" is every test, also the named ones."""
        tables = [
            table[(table["split"] == split) | table["split"].str.startswith(f"{split}_")].reset_index(drop=True)
            for table in (self.recordings, self.events)
        ]
        return dataclasses.replace(self, recordings=tables[0], events=tables[1])

    def of_events(self, column: str) -> pd.Series:
        """A column of ``recordings`` ("device", "patient_id", ...) for every event, in the order of ``events``."""
        return self.events["recording_id"].map(self.recordings.set_index("recording_id")[column])

    def counts(self) -> list[int]:
        """Events per class, in the order of ``CLASSES``."""
        return self.events["label"].value_counts().reindex(range(4), fill_value=0).tolist()

    def duplicates(self) -> pd.DataFrame:
        """Recordings whose samples equal an earlier one's: recording_id, split, same_as, same_as_split."""
        rows = self.recordings[["recording_id", "split", "sha256"]]
        first = rows.drop_duplicates("sha256").rename(columns={"recording_id": "same_as", "split": "same_as_split"})
        return rows[rows.duplicated("sha256")].merge(first, on="sha256").drop(columns="sha256")

    def fingerprint(self) -> str:
        """Hash of both tables without the machine's paths; changes when any label, time or sample does."""
        tables = (self.recordings.drop(columns="path"), self.events)
        text = "".join(table.to_csv(index=False, float_format="%.6f") for table in tables)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Unusable(ValueError):
    """Why a loader leaves a recording out; ``done`` is "not used" where nothing is wrong with the file."""

    def __init__(self, why: str, done: str = "left out"):
        super().__init__(why)
        self.done = done


def files_of(folder: Path, suffix: str) -> dict[str, Path]:
    """Files of a folder by name, without the suffix, whose case does not matter; hidden ones (``._a.wav``) are none."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    found = (path for path in paths if path.suffix.lower() == suffix)
    return {path.stem: path for path in found if not path.name.startswith(".")}


def text_of(path: Path) -> str:
    """A text file in UTF-8, with or without its mark, else in Windows-1252; a hard space is a space."""
    content = path.read_bytes()
    with contextlib.suppress(UnicodeDecodeError):
        return content.decode("utf-8-sig").replace("\xa0", " ")
    return content.decode("cp1252", "replace").replace("\xa0", " ")


class Tables:
    """The rows of one corpus while it is read, and the report about them.

    ``root`` is the folder that is read, for messages; ``labels`` maps each of the owners' labels to one of ``CLASSES``.
    """

    def __init__(self, name: str, root: Path, labels: dict[str, str], unit: str = "event"):
        self.name, self.root, self.labels, self.unit = name, root, labels, unit
        self.recordings, self.events, self.report = [], [], []

    def note(self, recording_id: str, what: str, done: str = "left out") -> None:
        """Report what was found in a recording and what was done about it."""
        self.report.append((os.fsencode(recording_id).decode("utf-8", "backslashreplace"), what, done))

    def set_copies_aside(self, files: dict[str, Path]) -> list[Path]:
        """The files but copies of another, as a browser or a file manager names them: "x (1)", "x - Copy"."""
        copies = {}
        for name in files:
            if (original := re.sub(r" \(\d+\)$| - Copy( \(\d+\))?$", "", name)) in files and original != name:
                copies[name] = original
                self.note(name, f"by its name a copy of {original}", "not used")
        return [path for name, path in files.items() if name not in copies]

    def add_all(self, files: Iterable[Path], describe: Callable) -> None:
        """Add every WAV file that is usable; the others are reported with the reason.

        ``describe`` takes a path and the facts of ``wav.examine``, and returns the events (start [s], end [s], raw
        label; a time that can't be read is the text found) and the columns patient_id, device, location, split and
        quality_label. What it raises is the reason to leave the recording out: Unusable, or OSError and ValueError
        where the annotation cannot be read.
        """
        for folder, paths in itertools.groupby(files, lambda path: path.parent):
            for path, sound in wav.examine_all(folder, list(paths)).items():
                try:
                    if sound["unusable"]:
                        raise Unusable(sound["unusable"])
                    events, columns = describe(path, sound)
                except Unusable as error:
                    self.note(path.stem, str(error), error.done)
                except FileNotFoundError as error:
                    self.note(path.stem, f"has no annotation {Path(error.filename).suffix}")
                except (OSError, ValueError) as error:
                    self.note(path.stem, f"annotation unreadable: {error}")
                else:
                    self.add(path, sound, events, columns)

    def add(self, path: Path, sound: dict, events: list[tuple[float, float, str]], columns: dict) -> None:
        """Add a usable recording and its events (start s, end s, raw label), checked against its end."""
        name, duration, before = columns.get("recording_id", path.stem), sound["frames"] / sound["rate"], 0.0
        self.report += [(name, *note) for note in sound["notes"]]
        facts = {"sample_rate": sound["rate"], "duration_s": duration, "sha256": sound["sha256"], "path": str(path)}
        self.recordings.append({"recording_id": name, "listed_device": columns["device"]} | columns | facts)
        if not events and columns["quality_label"] != "poor":
            self.note(name, "no event is labelled", "kept")
        for index, (start, end, raw_label) in enumerate(events):
            if raw_label not in self.labels:
                known = ", ".join(self.labels)
                self.note(name, f"event {index} has the unknown label {str(raw_label)[:40]!r}, expected {known}", ASIDE)
                continue
            if str in (type(start), type(end)) or not 0 <= start < end < math.inf:
                self.note(name, f"event {index} has the interval {start}..{end} s", ASIDE)
                continue
            cut = min(end, duration)
            if start >= duration:
                self.note(name, f"event {index} starts at {start:.3f} s, after the end ({duration:.3f} s)", ASIDE)
                continue
            if cut - start < SHORTEST_S:
                self.note(name, f"event {index} lasts {1000 * (cut - start):.2f} ms", ASIDE)
                continue
            if end - duration > 0.002:  # annotations are rounded to a millisecond
                self.note(name, f"event {index} ends {end - duration:.3f} s after the recording", "cut at the end")
            if start < before - 0.002 and self.unit == "event":
                self.note(name, f"event {index} starts {before - start:.3f} s before the one before it ends", "kept")
            before, label = max(before, end), CLASSES.index(self.labels[raw_label])
            self.events.append((f"{name}#{index:02d}", name, start, cut, label, label in (1, 3), label in (2, 3),
                                raw_label, columns["split"]))  # fmt: skip

    def corpus(self) -> Corpus:
        """Check the rows against the schema and build a Corpus, sorted by id; recordings with equal audio are noted."""
        if not self.recordings:
            last = f" ({self.report[-1][0]}: {self.report[-1][1]})" if self.report else ""
            raise CorpusError(f"{self.name}: no usable recording under '{self.root}'{last}. See data/README.md.")
        if not self.events:
            raise CorpusError(f"{self.name}: {len(self.recordings)} recordings under '{self.root}', no labelled event.")
        recordings = pd.DataFrame(self.recordings, columns=[*RECORDINGS.columns])
        recordings = recordings.sort_values("recording_id", ignore_index=True)
        events = pd.DataFrame(self.events, columns=[*EVENTS.columns]).sort_values("event_id", ignore_index=True)
        try:
            tables = RECORDINGS.validate(recordings), EVENTS.validate(events), pd.DataFrame()
            corpus = Corpus(self.name, *tables, self.unit)
        except pa.errors.SchemaError as error:
            raise CorpusError(f"{self.name}: the tables read from '{self.root}' break the schema: {error}") from error
        for row in corpus.duplicates().itertuples():
            self.note(row.recording_id, f"same audio as {row.same_as} ({row.split}, {row.same_as_split})", "kept")
        report = pd.DataFrame(self.report, columns=["recording_id", "what", "done"])
        return dataclasses.replace(corpus, report=report)


def from_rows(name: str, folder: Path, rows: pd.DataFrame, labels: dict[str, str]) -> Corpus:
    """A corpus from a table with one row per event, and WAV files anywhere under ``folder``.

    Parameters
    ----------
    rows : DataFrame
        Must have: file (below ``folder``), patient_id, split (as in `Corpus`), label (the owners'; empty: the
        recording has no event). May have: start_s and end_s (without them an event is the whole recording), device,
        location, quality_label ("good", "poor" or "").
    labels : dict of str -> str
        Label mapping: the owners' label -> one of ``CLASSES``.

    Raises
    ------
    CorpusError
        If a column is missing, nothing is usable, or the tables break the schema. A single recording that is not usable
        is left out and reported.
    """
    if missing := [column for column in ("file", "patient_id", "split", "label") if column not in rows]:
        raise CorpusError(f"{name}: the table has no column {', '.join(missing)}; it has {', '.join(map(str, rows))}.")
    rows = pd.DataFrame({"device": "unknown", "location": "unknown", "quality_label": ""} | dict(rows.items()))
    facts, tables = ["patient_id", "device", "location", "split", "quality_label"], Tables(name, folder, labels)
    rows = rows.fillna(dict.fromkeys(["file", *facts], ""))
    by_file = dict(iter(rows.groupby([folder / file for file in rows["file"]])))

    def describe(path: Path, sound: dict) -> tuple[list, dict]:
        own = by_file[path]
        columns, labelled = own[facts].astype(str).drop_duplicates().to_dict("records"), own.dropna(subset="label")
        if len(columns) > 1 or not columns[0]["patient_id"]:
            raise Unusable("its rows name no patient, or disagree about one of " + ", ".join(facts))
        events = [(0.0, sound["frames"] / sound["rate"], label) for label in labelled["label"]]
        if "start_s" in own:
            times = labelled[["start_s", "end_s"]].astype(float).to_numpy().tolist()
            events = sorted((*time, label) for time, label in zip(times, labelled["label"], strict=True))
        return events, columns[0]

    for path in sorted(set(folder.rglob("*.wav")) - set(by_file)):
        tables.note(path.stem, "no row names it", "not used")
    tables.add_all(sorted(by_file), describe)
    return tables.corpus()
