"""ICBHI 2017 Respiratory Sound Database, in its owners' layout.

``ICBHI_final_database/*.wav + *.txt`` and, in that folder or one above it, ``official_split.txt`` (published as
``ICBHI_challenge_train_test.txt`` too). Rocha et al. 2019, Physiol. Meas. 40 035001.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import CorpusError
from .registry import Source, register
from .tables import Corpus, Tables, Unusable, files_of, text_of

SPLIT_NAME = re.compile(r"(official_split|icbhi_challenge_train_test)\.(txt|csv)", re.I)
HOME = "https://bhichallenge.med.auth.gr/ICBHI_2017_Challenge"
# Of the release, of it unpacked into a folder of its own name, and of Kaggle's copy.
HOMES = (".", "ICBHI_final_database", "ICBHI_final_database/ICBHI_final_database", "audio_and_txt_files",
         "Respiratory_Sound_Database/audio_and_txt_files",
         "Respiratory_Sound_Database/Respiratory_Sound_Database/audio_and_txt_files")  # fmt: skip
NAME = re.compile(r"(?P<patient>\d{3})_\w+_(?P<location>Tc|[APL][lr])_(?P<mode>sc|mc)_(?P<device>\w+)", re.ASCII)
CYCLE = re.compile(r"\s*(\d+\.?\d*)\s+(\d+\.?\d*)\s+([01])\s+([01])\s*", re.ASCII)
LABELS = {"normal": "normal", "crackle": "crackle", "wheeze": "wheeze", "crackle+wheeze": "both"}


def read_split(*folders: Path) -> dict[str, str]:
    """Official 60/40 split, from the first folder that holds it: recording_id -> "train" or "test"."""
    found = [path for folder in folders for path in sorted(folder.iterdir()) if SPLIT_NAME.fullmatch(path.name)]
    if not found:
        where = f"no official split in '{folders[-1]}': official_split.txt or ICBHI_challenge_train_test.txt"
        raise CorpusError(f"icbhi: {where}, with lines 'recording<tab>train|test', from the owners' page: {HOME}")
    lines = text_of(found[0]).splitlines()
    rows = [re.sub(r"\.wav(?=\W)", "", line, flags=re.I).replace(",", " ").split() for line in lines if line.strip()]
    if rows and found[0].suffix.lower() == ".csv" and rows[0][-1].lower() not in ("train", "test"):
        del rows[0]  # the header
    if wrong := [row for row in rows if len(row) != 2 or row[1].lower() not in ("train", "test")]:
        raise CorpusError(f"icbhi: {found[0].name} wants lines 'recording<tab>train|test'; got {' '.join(wrong[0])!r}.")
    split = {name: side.lower() for name, side in rows}
    if len(split) != len({(name, side.lower()) for name, side in rows}):
        raise CorpusError(f"icbhi: {found[0].name} puts a recording into both train and test.")
    return split


def _official(names: Iterable[str]) -> dict[str, str]:
    """First four fields of a name, which identify a recording -> its name in the release.

    `filename_differences.txt` names another device for 91 recordings that the release calls Meditron; some copies of
    the data, and of the split, use that other name.
    """
    ordered = sorted(names, key=lambda name: name.endswith("_Meditron"))
    return {name.rpartition("_")[0]: name for name in ordered}


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


def _listed_devices(*folders: Path) -> dict[str, str]:
    """Devices by filename_differences.txt, if it is there: first four fields of a name -> device."""
    found = [path for folder in folders if (path := folder / "filename_differences.txt").is_file()]
    names = text_of(found[0]).replace("'", " ").split() if found else []
    return {key: device for key, _, device in (name.rpartition("_") for name in names)}


def read(base: Path, subset: str | None = None) -> Corpus:
    """Read the recordings that are present; what is missing or unusable is in the corpus's report."""
    folder = next((path for home in HOMES if files_of(path := base / home, ".wav")), None)
    if folder is None:
        where = f"no .wav under '{base}', nor in {', '.join(HOMES[1:])} there"
        raise CorpusError(f"icbhi: {where}. Expected ICBHI_final_database/*.wav and .txt; see data/README.md.")
    homes = [path for path in (folder, *folder.parents) if path.is_relative_to(base)]
    split, listed = read_split(*homes[::-1]), _listed_devices(*homes)
    tables, wavs, texts = Tables("icbhi", folder, LABELS), files_of(folder, ".wav"), files_of(folder, ".txt")
    official = _official([*split, *(name for name in wavs if NAME.fullmatch(name))])
    sides = {name.rpartition("_")[0]: side for name, side in split.items()}
    here, seen = {name.rpartition("_")[0] for name in wavs}, {}
    for key in sorted(set(sides) - here):
        tables.note(official[key], "named in the official split, no .wav here", "absent")
    for name in sorted(set(texts) - set(wavs)):
        if NAME.fullmatch(name) and name.rpartition("_")[0] not in here | set(sides):
            tables.note(name, "an annotation without a recording, not in the official split")

    def describe(path: Path, sound: dict) -> tuple[list, dict]:
        if not NAME.fullmatch(path.stem):
            raise Unusable("name is not patient_index_location_mode_device")
        key = path.stem.rpartition("_")[0]
        if key not in sides:
            raise Unusable("not in the official split")
        if seen.setdefault(key, path.stem) != path.stem:
            raise Unusable(f"the same recording as {seen[key]}, under another device's name")
        name = NAME.fullmatch(official[key])
        text = texts.get(path.stem) or texts.get(official[key]) or path.with_suffix(".txt")
        cycles = read_cycles(text_of(text))
        events = [(start, end, tuple(LABELS)[crackle + 2 * wheeze]) for start, end, crackle, wheeze in cycles]
        return events, {"recording_id": official[key], "patient_id": name["patient"], "device": name["device"],
                        "listed_device": listed.get(key, name["device"]), "location": name["location"],
                        "split": sides[key], "quality_label": ""}  # fmt: skip

    usable = tables.set_copies_aside(wavs)
    if subset == "sc":
        usable = [path for path in usable if not (name := NAME.fullmatch(path.stem)) or name["mode"] == "sc"]
    tables.add_all(usable, describe)
    return tables.corpus()


register(Source("icbhi", read, subsets=("sc",), labels=LABELS))
