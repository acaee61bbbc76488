"""Lung sounds recorded at King Abdullah University Hospital: adults, an electronic stethoscope, labels of recordings.

112 takes, each as three files: the same breath through the stethoscope's bell, diaphragm and extended filter. Fraiwan
et al. 2021, Data in Brief 35 106913. The owners label a whole recording, so the rule, fixed before anything was scored,
is: windows of 8 s, a hop of 4 s (a shorter recording is one window); the probabilities of a recording's windows are
averaged; a take is one patient, whatever the filter.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import CorpusError
from .registry import Source, register
from .tables import Corpus, Tables, Unusable, files_of

WINDOW_S, HOP_S = 8.0, 4.0
LABELS = {"N": "normal", "E W": "wheeze", "I E W": "wheeze", "Crep": "crackle", "C": "crackle", "I C": "crackle",
          "I C B": "crackle", "I C E W": "both"}  # fmt: skip
FILTERS = {"B": "bell", "D": "diaphragm", "E": "extended"}
NAME = re.compile(r"(?P<filter>[BDE])P(?P<take>\d+)_[^,]+,(?P<sound>[^,]+),(?P<location>[^,]+),\d+,[MF]", re.ASCII)
# Half of the takes, to choose settings on; the others are the test. Per class, the takes whose number has the lower
# SHA-256 (of "kauh 7" for take 7). They are written down so that a part of the files is divided as all of them; a test
# computes them again.
DEV = {
    1, 4, 7, 8, 9, 10, 11, 14, 16, 18, 19, 20, 29, 30, 31, 33, 34, 35, 36, 38, 40, 42, 48, 49, 50, 51,
    53, 55, 56, 58, 59, 61, 62, 63, 70, 71, 72, 74, 76, 77, 78, 80, 81, 85, 90, 91, 94, 95, 96, 97, 98,
    105, 107, 111,
}  # fmt: skip


def windows(duration: float) -> list[tuple[float, float]]:
    """(start, end) of the windows of a recording [s]: those that fit in, or the whole of a shorter one."""
    starts = np.arange(0, duration - WINDOW_S + 1e-9, HOP_S) if duration > WINDOW_S else [0.0]
    return [(float(start), min(float(start) + WINDOW_S, duration)) for start in starts]


def read(base: Path, subset: str | None = None) -> Corpus:
    """Read the recordings that are present; the splits are "dev" and "test"."""
    folder = next((path for path in sorted(base.rglob("Audio Files")) if path.is_dir()), base)
    files, tables = files_of(folder, ".wav"), Tables("kauh", folder, LABELS, unit="recording")
    if not files:
        raise CorpusError(f"kauh: no .wav in '{folder}'. Expected 'Audio Files/*.wav'; see data/README.md.")

    def describe(path: Path, sound: dict) -> tuple[list, dict]:
        name = NAME.fullmatch(path.stem)
        if not name:
            raise Unusable("name is not (B|D|E)Ptake_diagnosis,sound,location,age,sex")
        if name["sound"].strip() == "Bronchial":
            raise Unusable("bronchial breathing is none of the four classes", "not used")
        events = [(*times, name["sound"].strip()) for times in windows(sound["frames"] / sound["rate"])]
        return events, {"recording_id": f"{name['filter']}P{name['take']}", "patient_id": name["take"],
                        "device": f"electronic, {FILTERS[name['filter']]}", "location": name["location"].strip(),
                        "split": "dev" if int(name["take"]) in DEV else "test", "quality_label": ""}  # fmt: skip

    tables.add_all(tables.set_copies_aside(files), describe)
    return _without_contradictions(tables.corpus())


def _without_contradictions(corpus: Corpus) -> Corpus:
    """Set recordings with the same samples and different labels aside: one of the labels must be wrong."""
    rows = corpus.recordings[["recording_id", "sha256"]]
    rows = rows.assign(label=rows["recording_id"].map(corpus.events.groupby("recording_id")["raw_label"].first()))
    rows = rows[rows.groupby("sha256")["label"].transform("nunique") > 1]
    aside = set(rows["recording_id"])
    notes = []
    for _, same in rows.groupby("sha256"):
        labelled = " and ".join(f"{row.recording_id} ({row.label})" for row in same.itertuples())
        notes += [(name, f"the same audio with two labels: {labelled}", "not used") for name in same["recording_id"]]
    kept = corpus.report[~corpus.report["recording_id"].isin(aside)]
    report = pd.concat([kept, pd.DataFrame(notes, columns=kept.columns)], ignore_index=True)
    tables = [t[~t["recording_id"].isin(aside)].reset_index(drop=True) for t in (corpus.recordings, corpus.events)]
    return Corpus(corpus.name, *tables, report, corpus.unit)


register(Source("kauh", read, labels=LABELS))
