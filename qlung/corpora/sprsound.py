"""SPRSound, BioCAS 2022 release: paediatric recordings, 8 kHz, with events and record-level quality labels.

Its splits are ``train``, ``test_inter`` (patients who are in no other part) and ``test_intra`` (other recordings of
patients who are in train). Zhang et al. 2022, IEEE TBioCAS 16(5) 867-881.
"""

import itertools
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import CorpusError
from .registry import Source, register
from .tables import Corpus, Tables, Unusable, files_of, text_of

LABELS = {"Normal": "normal", "Fine Crackle": "crackle", "Coarse Crackle": "crackle", "Wheeze": "wheeze",
          "Rhonchi": "wheeze", "Stridor": "wheeze", "Wheeze+Crackle": "both"}  # fmt: skip
QUALITY = {"poor quality": "poor"}
LOCATIONS = {"p1": "left posterior", "p2": "left lateral", "p3": "right posterior", "p4": "right lateral"}
NAME = re.compile(r"(?P<patient>\d+)_\d+(\.\d+)?_[01]_(?P<location>p[1-4])_\d+", re.ASCII)
LATER_NAME = re.compile(r"_?(\d+_)?\d+(\.\d+)?_[01]_p\d+_\d+", re.ASCII)  # with p5 to p8, or without a patient number
LATER = "as in a later release of SPRSound (2023 to 2025); this reads the one of 2022"
RATE = 8000
SPLITS = {"train": "train", "inter": "test_inter", "intra": "test_intra"}
HOMES = (".", "BioCAS2022", "releases/BioCAS2022", "Classification", "releases/Classification")


def _layouts(part: str) -> list[tuple[str, str]]:
    """Folders of a part's recordings and annotations, in each of the owners' layouts; the first is the release's."""
    if part == "train":
        names = ("train2022", "train", "train_classification")
        return [(f"{name}_wav", f"{name}_json") for name in names]
    names = itertools.product(("test2022", "test", "test_classification", "valid_classification"), ("", "/2022"))
    return [(f"{name}_wav{year}", f"{name}_json{year}/{part}_test_json") for name, year in names]


PARTS = {part: _layouts(part) for part in SPLITS}


def _seconds(value) -> float | str:
    """A time in whole milliseconds, as the owners write it (a string) or as a JSON integer; or the text found."""
    return int(value) / 1000 if re.fullmatch(r"\d{1,9}", str(value), re.ASCII) else f"{value!r} ms ="


def read_record(text: str) -> tuple[str, list[tuple[float, float, str]]]:
    """(record label, [(start s, end s, type)]) of one annotation file, sorted by time; ValueError on wrong content."""
    try:
        content = json.loads(text)
        if isinstance(content, dict) and "record_annotation" not in content and "event_annotation" in content:
            raise Unusable(f"annotated {LATER}")
        label, rows = content["record_annotation"], content["event_annotation"]
        events = [(_seconds(row["start"]), _seconds(row["end"]), str(row["type"])) for row in rows]
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not an annotation with record_annotation and event_annotation ({error!r})") from error
    return str(label), sorted(events, key=lambda event: [math.inf if isinstance(t, str) else t for t in event[:2]])


def _part(base: Path, part: str) -> tuple[Path, Path] | None:
    """Folders of a part's recordings and annotations, in whichever layout is there."""
    pairs = ((base / home / wavs, base / home / jsons) for home, (wavs, jsons) in itertools.product(HOMES, PARTS[part]))
    return next(((wavs, jsons) for wavs, jsons in pairs if wavs.is_dir() and jsons.is_dir()), None)


def _add_part(tables: Tables, wavs: Path, annotations: Path, split: str) -> None:
    recordings, texts = files_of(wavs, ".wav"), files_of(annotations, ".json")
    # The test folder's recordings belong to inter_test and intra_test.
    folders = [annotations] if split == "train" else annotations.parent.glob("int*_test_json")
    annotated = {name for folder in folders for name in files_of(folder, ".json")}
    for name in sorted(set(recordings) - annotated):
        tables.note(name, "has no annotation .json", "not used")

    def describe(path: Path, sound: dict) -> tuple[list, dict]:
        name = NAME.fullmatch(path.stem)
        if not name:
            later = LATER_NAME.fullmatch(path.stem)
            raise Unusable(f"named {LATER}" if later else "name is not patient_age_gender_location_recording")
        record, events = read_record(text_of(texts[path.stem]))
        quality = QUALITY.get(record.strip().lower(), "good")
        if sound["rate"] != RATE:
            tables.note(path.stem, f"is at {sound['rate']} Hz, the release at {RATE} Hz", "kept")
        if quality == "poor" and events:
            tables.note(path.stem, f"labelled Poor Quality, with {len(events)} events", "kept")
        return events, {"patient_id": name["patient"], "device": "YunTing", "location": LOCATIONS[name["location"]],
                        "split": split, "quality_label": quality}  # fmt: skip

    tables.add_all([recordings.get(name, wavs / f"{name}.wav") for name in texts], describe)


def read(base: Path, subset: str | None = None, parts: Iterable[str] = tuple(PARTS)) -> Corpus:
    """Read train, the inter-patient and the intra-patient test, or one of them."""
    found = {part: _part(base, part) for part in ([subset] if subset else parts)}
    if not any(found.values()):
        wanted = " nor ".join(" + ".join(layouts[0]) for layouts in PARTS.values())
        there = ", ".join(sorted(path.name for path in base.iterdir() if path.is_dir())[:8]) or "no folder"
        where = f"'{base}' has neither {wanted} (nor inside {', '.join(HOMES[1:])}); it has {there}"
        raise CorpusError(f"sprsound: {where}. See data/README.md.")
    tables = Tables("sprsound", base, LABELS)
    for part, folders in found.items():
        if folders is None:
            tables.note("", f"part {part} is not here", "absent")
        else:
            _add_part(tables, *folders, SPLITS[part])
    return tables.corpus()


register(Source("sprsound", read, subsets=tuple(PARTS), labels=LABELS))
