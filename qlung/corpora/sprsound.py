"""SPRSound, BioCAS 2022 release: paediatric recordings, 8 kHz, with events and record-level quality labels.

``train2022_wav|json`` and ``test2022_wav`` with ``test2022_json/inter_test_json``, alone or inside the later layouts
``BioCAS2022/`` and ``Classification/``. Zhang et al. 2022, IEEE TBioCAS 16(5) 867-881.
"""

import json
from pathlib import Path

import soundfile

from ..errors import CorpusError

TO_ICBHI = {
    "Normal": (False, False),
    "Fine Crackle": (True, False),
    "Coarse Crackle": (True, False),
    "Wheeze": (False, True),
    "Rhonchi": (False, True),
    "Stridor": (False, True),
    "Wheeze+Crackle": (True, True),
}
LOCATIONS = {"p1": "left posterior", "p2": "left lateral", "p3": "right posterior", "p4": "right lateral"}
PARTS = {
    "train": (("train2022_wav", "train_wav"), ("train2022_json", "train_json")),
    "inter": (("test2022_wav", "test_wav"), ("test2022_json/inter_test_json", "test_json/inter_test_json")),
}


def read_record(text: str) -> tuple[str, list[tuple[float, float, str]]]:
    """(record label, [(start s, end s, type)]) of one annotation file, sorted by time; ValueError on wrong content."""
    try:
        content = json.loads(text)
        label, rows = content["record_annotation"], content["event_annotation"]
        events = sorted((int(row["start"]) / 1000, int(row["end"]) / 1000, str(row["type"])) for row in rows)
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not an annotation with record_annotation and event_annotation ({error!r})") from error
    for start, end, kind in events:
        if kind not in TO_ICBHI:
            raise ValueError(f"unknown event type {kind!r}")
        if not 0 <= start < end:
            raise ValueError(f"event {start}..{end} s")
    return str(label), events


def _part(base: Path, part: str) -> tuple[Path, Path] | None:
    homes = (base, base / "BioCAS2022", base / "Classification")
    for home in homes:
        for wav, annotation in zip(*PARTS[part], strict=True):
            if (home / wav).is_dir() and (home / annotation).is_dir():
                return home / wav, home / annotation
    return None


def read(base: Path, subset: str | None = None):
    """Read train (split "train") and inter_test (split "test"), or one of them."""
    from . import make_corpus

    recordings, events, report = [], [], []
    found = {part: _part(base, part) for part in ([subset] if subset else PARTS)}
    if not any(found.values()):
        raise CorpusError(
            f"sprsound: '{base}' has neither train2022_wav + train2022_json "
            "nor test2022_wav + test2022_json/inter_test_json "
            "(nor inside BioCAS2022/ or Classification/); see data/README.md."
        )
    for part, folders in found.items():
        if folders is None:
            report.append({"recording_id": "", "what": f"part {part} is not here", "done": "absent"})
            continue
        wavs, annotations = folders
        split = "train" if part == "train" else "test"
        for path in sorted(annotations.glob("*.json")):
            name, wav = path.stem, wavs / f"{path.stem}.wav"
            try:
                patient, _age, _gender, location, _index = name.split("_")
                info = soundfile.info(str(wav))
                quality, rows = read_record(path.read_text(encoding="utf-8-sig"))
            except (soundfile.LibsndfileError, OSError, ValueError) as error:
                report.append({"recording_id": name, "what": f"unreadable: {error}", "done": "left out"})
                continue
            duration = info.frames / info.samplerate
            if not duration:
                report.append({"recording_id": name, "what": "holds no samples", "done": "left out"})
                continue
            recordings.append(
                {
                    "recording_id": name,
                    "patient_id": patient,
                    "device": "YunTing",
                    "location": LOCATIONS.get(location, location),
                    "split": split,
                    "sample_rate": info.samplerate,
                    "duration_s": duration,
                    "path": str(wav),
                    "quality_label": "poor" if quality == "Poor Quality" else "good",
                }
            )
            for index, (start, end, kind) in enumerate(rows):
                crackle, wheeze = TO_ICBHI[kind]
                if start >= duration:
                    what = f"event {index} starts at {start:.3f} s, after the end ({duration:.3f} s)"
                    report.append({"recording_id": name, "what": what, "done": "left out"})
                    continue
                if end - duration > 0.002:  # annotations are rounded to a millisecond
                    what = f"event {index} ends {end - duration:.3f} s after the recording"
                    report.append({"recording_id": name, "what": what, "done": "cut at the end"})
                events.append(
                    {
                        "event_id": f"{name}#{index:02d}",
                        "recording_id": name,
                        "start_s": start,
                        "end_s": min(end, duration),
                        "label": int(crackle) + 2 * int(wheeze),
                        "crackle": crackle,
                        "wheeze": wheeze,
                        "raw_label": kind,
                        "split": split,
                    }
                )
    return make_corpus("sprsound", recordings, events, report, base)
