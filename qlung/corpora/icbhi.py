"""ICBHI 2017 Respiratory Sound Database, in its owners' layout.

``ICBHI_final_database/*.wav + *.txt`` and, beside that folder or in it, ``official_split.txt`` (published as
``ICBHI_challenge_train_test.txt`` too). Rocha et al. 2019, Physiol. Meas. 40 035001.
"""

import math
from pathlib import Path

import soundfile

from ..errors import CorpusError

SPLIT_NAMES = ("official_split.txt", "ICBHI_challenge_train_test.txt")
RAW_LABELS = ("normal", "crackle", "wheeze", "crackle+wheeze")


def read_split(base: Path) -> dict[str, str]:
    """Official 60/40 split: recording_id -> "train" or "test"."""
    found = [base / name for name in SPLIT_NAMES if (base / name).is_file()]
    if not found:
        raise CorpusError(
            f"icbhi: '{base}' has none of {', '.join(SPLIT_NAMES)}; the official split comes from the owners."
        )
    rows = [line.split() for line in found[0].read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    wrong = [row for row in rows if len(row) != 2 or row[1] not in ("train", "test")]
    if wrong:
        raise CorpusError(f"icbhi: {found[0].name} wants lines 'recording<tab>train|test'; got {' '.join(wrong[0])!r}.")
    return {name: split for name, split in rows}


def read_cycles(text: str) -> list[tuple[float, float, bool, bool]]:
    """Rows (start s, end s, crackle, wheeze) of one annotation file; ValueError says which line is wrong."""
    cycles = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != 4 or not set(fields[2:]) <= {"0", "1"}:
            raise ValueError(f"line {number} should be 'start end 0|1 0|1', it is {line.strip()!r}")
        start, end = float(fields[0]), float(fields[1])
        if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
            raise ValueError(f"line {number} has the interval {start}..{end} s")
        cycles.append((start, end, fields[2] == "1", fields[3] == "1"))
    return cycles


def read_annotations(folder: Path) -> dict[str, list]:
    """Every annotation file of the folder, with or without its recording: recording_id -> cycles."""
    return {path.stem: read_cycles(path.read_text(encoding="utf-8-sig")) for path in sorted(folder.glob("[12]*_*.txt"))}


def read(base: Path, subset: str | None = None):
    """Read the recordings that are present; what is missing or unusable stands in the corpus's report."""
    from . import make_corpus

    folder = base / "ICBHI_final_database"
    folder = folder if folder.is_dir() else base
    wavs = sorted(folder.glob("*.wav"))
    if not wavs:
        raise CorpusError(
            f"icbhi: no .wav under '{folder}'. Expected ICBHI_final_database/*.wav and .txt; see data/README.md."
        )
    split = read_split(base if any((base / n).is_file() for n in SPLIT_NAMES) else folder)
    recordings, events, report = [], [], []

    def note(name, what, done="left out"):
        report.append({"recording_id": name, "what": what, "done": done})

    present = {path.stem for path in wavs}
    for name in sorted(set(split) - present):
        note(name, "named in the official split, no .wav here", "absent")
    for path in wavs:
        name, fields = path.stem, path.stem.split("_")
        if len(fields) != 5:
            note(name, "name is not patient_index_location_mode_device")
            continue
        if subset == "sc" and fields[3] != "sc":
            continue
        if name not in split:
            note(name, "not in the official split")
            continue
        try:
            info = soundfile.info(str(path))
            cycles = read_cycles(path.with_suffix(".txt").read_text(encoding="utf-8-sig"))
        except (soundfile.LibsndfileError, OSError, ValueError) as error:
            note(name, f"unreadable: {error}")
            continue
        if not info.frames:
            note(name, "holds no samples")
            continue
        duration = info.frames / info.samplerate
        recordings.append(
            {
                "recording_id": name,
                "patient_id": fields[0],
                "device": fields[4],
                "location": fields[2],
                "split": split[name],
                "sample_rate": info.samplerate,
                "duration_s": duration,
                "path": str(path),
                "quality_label": "",
            }
        )
        for index, (start, end, crackle, wheeze) in enumerate(cycles):
            if start >= duration:
                note(name, f"cycle {index} starts at {start:.3f} s, after the end ({duration:.3f} s)")
                continue
            if end - duration > 0.002:  # annotations are rounded to a millisecond
                note(name, f"cycle {index} ends {end - duration:.3f} s after the recording", "cut at the end")
            label = int(crackle) + 2 * int(wheeze)
            events.append(
                {
                    "event_id": f"{name}#{index:02d}",
                    "recording_id": name,
                    "start_s": start,
                    "end_s": min(end, duration),
                    "label": label,
                    "crackle": crackle,
                    "wheeze": wheeze,
                    "raw_label": RAW_LABELS[label],
                    "split": split[name],
                }
            )
    return make_corpus("icbhi", recordings, events, report, folder)
