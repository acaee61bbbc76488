"""SPRSound, BioCAS 2022 release: paediatric recordings, 8 kHz, with events and record-level quality labels.

``train2022_wav|json`` and ``test2022_wav`` with ``test2022_json/inter_test_json``, alone or inside the later layouts
``BioCAS2022/`` and ``Classification/``. Zhang et al. 2022, IEEE TBioCAS 16(5) 867-881.
"""

import json
import re
from pathlib import Path

from ..errors import CorpusError
from .registry import Source, register
from .tables import Corpus, Tables, Unusable

LABELS = {"Normal": "normal", "Fine Crackle": "crackle", "Coarse Crackle": "crackle", "Wheeze": "wheeze",
          "Rhonchi": "wheeze", "Stridor": "wheeze", "Wheeze+Crackle": "both"}  # fmt: skip
LOCATIONS = {"p1": "left posterior", "p2": "left lateral", "p3": "right posterior", "p4": "right lateral"}
NAME = re.compile(r"(?P<patient>\d+)_\d+(\.\d+)?_[01]_(?P<location>p[1-4])_\d+", re.ASCII)
RATE = 8000
PARTS = {
    "train": (("train2022_wav", "train2022_json"), ("train_wav", "train_json")),
    "inter": (("test2022_wav", "test2022_json/inter_test_json"), ("test_wav", "test_json/inter_test_json")),
}


def _seconds(value) -> float:
    """A time in whole milliseconds, as the owners write it (a string) or as a JSON integer."""
    if not re.fullmatch(r"\d{1,9}", str(value), re.ASCII):
        raise ValueError(f"{value!r} is no time in whole milliseconds")
    return int(value) / 1000


def read_record(text: str) -> tuple[str, list[tuple[float, float, str]]]:
    """(record label, [(start s, end s, type)]) of one annotation file, sorted by time; ValueError on wrong content."""
    try:
        content = json.loads(text)
        label, rows = content["record_annotation"], content["event_annotation"]
        events = sorted((_seconds(row["start"]), _seconds(row["end"]), str(row["type"])) for row in rows)
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not an annotation with record_annotation and event_annotation ({error!r})") from error
    return str(label), events


def _part(base: Path, part: str) -> tuple[Path, Path] | None:
    """Folders of a part's recordings and annotations, in whichever layout is there."""
    homes = (base, base / "BioCAS2022", base / "releases" / "BioCAS2022", base / "Classification")
    pairs = ((home / wavs, home / jsons) for home in homes for wavs, jsons in PARTS[part])
    return next(((wavs, jsons) for wavs, jsons in pairs if wavs.is_dir() and jsons.is_dir()), None)


def _add_part(tables: Tables, wavs: Path, annotations: Path, split: str) -> None:
    # The test folder's recordings belong to inter_test and intra_test.
    pattern = "*_test_json/*.json" if annotations.name == "inter_test_json" else f"{annotations.name}/*.json"
    annotated = {path.stem for path in annotations.parent.glob(pattern)}
    for name in sorted({path.stem for path in wavs.glob("*.wav")} - annotated):
        tables.note(name, "has no annotation .json", "not used")

    def describe(path: Path, sound: dict) -> tuple[list, dict]:
        name = NAME.fullmatch(path.stem)
        if not name:
            raise Unusable("name is not patient_age_gender_location_recording")
        record, events = read_record((annotations / f"{path.stem}.json").read_text(encoding="utf-8-sig"))
        poor = record == "Poor Quality"
        if sound["rate"] != RATE:
            tables.note(path.stem, f"is at {sound['rate']} Hz, the release at {RATE} Hz", "kept")
        if poor and events:
            tables.note(path.stem, f"labelled Poor Quality, with {len(events)} events", "kept")
        return events, {"patient_id": name["patient"], "device": "YunTing", "location": LOCATIONS[name["location"]],
                        "split": split, "quality_label": "poor" if poor else "good"}  # fmt: skip

    tables.add_all([wavs / f"{path.stem}.wav" for path in sorted(annotations.glob("*.json"))], describe)


def read(base: Path, subset: str | None = None) -> Corpus:
    """Read train (split "train") and inter_test (split "test"), or one of them."""
    found = {part: _part(base, part) for part in ([subset] if subset else PARTS)}
    if not any(found.values()):
        wanted = " nor ".join(" + ".join(layouts[0]) for layouts in PARTS.values())
        where = f"'{base}' has neither {wanted} (nor inside BioCAS2022/ or Classification/)"
        raise CorpusError(f"sprsound: {where}; see data/README.md.")
    tables = Tables("sprsound", base, LABELS)
    for part, folders in found.items():
        if folders is None:
            tables.note("", f"part {part} is not here", "absent")
        else:
            _add_part(tables, *folders, "train" if part == "train" else "test")
    return tables.corpus()


register(Source("sprsound", read, subsets=("train", "inter"), labels=LABELS))
