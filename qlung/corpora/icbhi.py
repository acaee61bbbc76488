"""ICBHI 2017 Respiratory Sound Database, in its owners' layout.

``ICBHI_final_database/*.wav + *.txt`` and, beside that folder or in it, ``official_split.txt`` (published as
``ICBHI_challenge_train_test.txt`` too). Rocha et al. 2019, Physiol. Meas. 40 035001.
"""

import re
from pathlib import Path

from ..errors import CorpusError
from .registry import Source, register
from .tables import Corpus, Tables, Unusable

SPLIT_NAMES = ("official_split.txt", "ICBHI_challenge_train_test.txt")
NAME = re.compile(r"(?P<patient>\d{3})_\w+_(?P<location>Tc|[APL][lr])_(?P<mode>sc|mc)_(?P<device>\w+)", re.ASCII)
CYCLE = re.compile(r"\s*(\d+\.?\d*)\s+(\d+\.?\d*)\s+([01])\s+([01])\s*", re.ASCII)
LABELS = {"normal": "normal", "crackle": "crackle", "wheeze": "wheeze", "crackle+wheeze": "both"}


def read_split(*folders: Path) -> dict[str, str]:
    """Official 60/40 split, from the first folder that holds it: recording_id -> "train" or "test"."""
    found = [path for folder in folders for name in SPLIT_NAMES if (path := folder / name).is_file()]
    if not found:
        names = f"'{folders[-1]}' has none of {', '.join(SPLIT_NAMES)}"
        raise CorpusError(f"icbhi: {names}; the official split comes from the owners.")
    rows = [line.split() for line in found[0].read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if wrong := [row for row in rows if len(row) != 2 or row[1] not in ("train", "test")]:
        raise CorpusError(f"icbhi: {found[0].name} wants lines 'recording<tab>train|test'; got {' '.join(wrong[0])!r}.")
    split = dict(rows)
    if len(split) != len(set(map(tuple, rows))):
        raise CorpusError(f"icbhi: {found[0].name} puts a recording into both train and test.")
    return split


def read_cycles(text: str) -> list[tuple[float, float, bool, bool]]:
    """Rows (start s, end s, crackle, wheeze) of one annotation file; ValueError says which line is wrong."""
    cycles = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = CYCLE.fullmatch(line)
        if not fields:
            raise ValueError(f"line {number} should be 'start end 0|1 0|1', it is {line.strip()[:80]!r}")
        cycles.append((float(fields[1]), float(fields[2]), fields[3] == "1", fields[4] == "1"))
    return cycles


def read(base: Path, subset: str | None = None) -> Corpus:
    """Read the recordings that are present; what is missing or unusable is in the corpus's report."""
    folder = base / "ICBHI_final_database"
    folder = folder if folder.is_dir() else base
    wavs = sorted(path for path in folder.glob("*") if path.suffix.lower() == ".wav")
    if not wavs:
        raise CorpusError(f"icbhi: no .wav under '{folder}'. Expected ICBHI_final_database/*.wav; see data/README.md.")
    split, tables, here = read_split(base, folder), Tables("icbhi", folder, LABELS), {path.stem for path in wavs}
    for name in sorted(set(split) - here):
        tables.note(name, "named in the official split, no .wav here", "absent")
    for name in sorted({path.stem for path in folder.glob("[12]*_*.txt")} - here - set(split)):
        tables.note(name, "an annotation without a recording, not in the official split")

    def describe(path: Path, sound: dict) -> tuple[list, dict]:
        name = NAME.fullmatch(path.stem)
        if not name:
            raise Unusable("name is not patient_index_location_mode_device")
        if path.stem not in split:
            raise Unusable("not in the official split")
        cycles = read_cycles(path.with_suffix(".txt").read_text(encoding="utf-8-sig"))
        events = [(start, end, tuple(LABELS)[crackle + 2 * wheeze]) for start, end, crackle, wheeze in cycles]
        return events, {"patient_id": name["patient"], "device": name["device"], "location": name["location"],
                        "split": split[path.stem], "quality_label": ""}  # fmt: skip

    if subset == "sc":
        wavs = [path for path in wavs if not (name := NAME.fullmatch(path.stem)) or name["mode"] == "sc"]
    tables.add_all(wavs, describe)
    return tables.corpus()


register(Source("icbhi", read, subsets=("sc",), labels=LABELS))
