"""What happens with each kind of bad input: one row each, and the same rows as a table in docs/bad-inputs.md.

``python tests/test_bad_inputs.py`` writes that table again after a row was changed.
"""

import json
import os
import re
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trials
from hypothesis import given, settings
from hypothesis import strategies as st

from qlung import audio, load_corpus, paths
from qlung.corpora import icbhi, sprsound, wav
from qlung.errors import CorpusError, QlungError

TABLE = paths.ROOT / "docs" / "bad-inputs.md"
RATE = 4000
NAMES = ("101_1b1_Al_sc_Meditron", "102_1b1_Ar_sc_Meditron", "103_1b1_Tc_mc_AKGC417L")
CHILDREN = ("1001_2.0_0_p1_1", "1002_3.5_1_p2_2", "1003_9_0_p3_3")


def tone(seconds=3.0, rate=RATE, pitch=200.0):
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)


def write_base(root: Path) -> Path:
    """Three usable recordings of each corpus; rows of the table damage the first one."""
    folder = root / "icbhi" / "ICBHI_final_database"
    wavs, jsons = root / "sprsound" / "train2022_wav", root / "sprsound" / "train2022_json"
    for path in (folder, wavs, jsons):
        path.mkdir(parents=True)
    for index, name in enumerate(NAMES):
        soundfile.write(folder / f"{name}.wav", tone(pitch=200 + index), RATE)
        (folder / f"{name}.txt").write_text("0.1\t1.0\t0\t0\n1.0\t2.5\t1\t0\n")
    (root / "icbhi" / "official_split.txt").write_text(f"{NAMES[0]} train\n{NAMES[1]}\ttest\n{NAMES[2]}\ttrain\n")
    for index, name in enumerate(CHILDREN):
        soundfile.write(wavs / f"{name}.wav", tone(rate=8000, pitch=300 + index), 8000)
        write_json(jsons / f"{name}.json", ("100", "900", "Normal"), ("1000", "2000", "Wheeze"))
    return root


def write_json(path, *events, record="CAS"):
    rows = [{"start": start, "end": end, "type": kind} for start, end, kind in events]
    path.write_text(json.dumps({"record_annotation": record, "event_annotation": rows}))


def patch(path, offset, data):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


def with_nan(path, every=False):
    samples = tone()
    samples[slice(None) if every else slice(10, 15)] = np.nan
    samples[0] = np.inf
    soundfile.write(path, samples, RATE, subtype="FLOAT")


# corpus, what is wrong, how to make it (w: first recording, t: its annotation), what is done, what the message holds.
# "error" raises; "read" is accepted without a remark; the rest are values of the report's column "done".
ROWS = [
    ("icbhi", "no bytes at all", lambda w, t: w.write_bytes(b""), "left out", "unreadable"),
    ("icbhi", "only the letters RIFF", lambda w, t: w.write_bytes(b"RIFF"), "left out", "unreadable"),
    ("icbhi", "an HTML page named .wav", lambda w, t: w.write_text("<html>no</html>"), "left out", "unreadable"),
    ("icbhi", "a FLAC file named .wav", lambda w, t: soundfile.write(w, tone(), RATE, format="FLAC"), "left out",
     "holds FLAC"),
    ("icbhi", "mu-law samples", lambda w, t: soundfile.write(w, tone(), RATE, subtype="ULAW"), "left out",
     "not PCM or float"),
    ("icbhi", "a header without samples", lambda w, t: soundfile.write(w, tone(0), RATE), "left out", "no samples"),
    ("icbhi", "cut off in the middle", lambda w, t: os.truncate(w, w.stat().st_size // 2), "left out", "cut short"),
    ("icbhi", "one byte missing at the end", lambda w, t: os.truncate(w, w.stat().st_size - 1), "left out",
     "cut short"),
    ("icbhi", "header states 1 GB", lambda w, t: patch(w, 40, struct.pack("<I", 10**9)), "left out", "cut short"),
    ("icbhi", "length never filled in (0xFFFFFFFF)", lambda w, t: patch(w, 40, b"\xff" * 4), "read", ""),
    ("icbhi", "header says 0 Hz", lambda w, t: patch(w, 24, struct.pack("<I", 0)), "left out", ""),
    ("icbhi", "header says 4 Hz", lambda w, t: patch(w, 24, struct.pack("<I", 4)), "left out", "the header says 4 Hz"),
    ("icbhi", "header says 16000 Hz instead of 4000", lambda w, t: patch(w, 24, struct.pack("<I", 16000)),
     "event left out", "after the end"),
    ("icbhi", "header says 500 channels", lambda w, t: patch(w, 22, struct.pack("<H", 500)), "left out",
     "500 channels|unreadable"),
    ("icbhi", "8-bit samples", lambda w, t: soundfile.write(w, tone(), RATE, subtype="PCM_U8"), "read", ""),
    ("icbhi", "24-bit samples", lambda w, t: soundfile.write(w, tone(), RATE, subtype="PCM_24"), "read", ""),
    ("icbhi", "32-bit samples", lambda w, t: soundfile.write(w, tone(), RATE, subtype="PCM_32"), "read", ""),
    ("icbhi", "float samples", lambda w, t: soundfile.write(w, tone(), RATE, subtype="FLOAT"), "read", ""),
    ("icbhi", "double samples", lambda w, t: soundfile.write(w, tone(), RATE, subtype="DOUBLE"), "read", ""),
    ("icbhi", "stereo", lambda w, t: soundfile.write(w, np.stack([tone(), tone()], 1), RATE), "averaged", "2 channels"),
    ("icbhi", "stereo with a silent channel", lambda w, t: soundfile.write(w, np.stack([0 * tone(), tone()], 1), RATE),
     "not used", "channel 1 of 2 is silent"),
    ("icbhi", "clipped", lambda w, t: soundfile.write(w, np.clip(20 * tone(), -1, 1), RATE), "kept",
     "% of the samples"),
    ("icbhi", "some samples NaN or infinite", lambda w, t: with_nan(w), "set to 0", "6 samples are not finite"),
    ("icbhi", "every sample NaN or infinite", lambda w, t: with_nan(w, True), "left out", "not one sample is finite"),
    ("icbhi", "silence", lambda w, t: soundfile.write(w, 0 * tone(), RATE), "kept", "silent"),
    ("icbhi", "the same audio under another name", lambda w, t: shutil.copy(w, w.with_stem(NAMES[1])), "kept",
     r"same audio as 101_1b1_Al_sc_Meditron \(test, train\)"),
    ("icbhi", "a name that is not the owners'", lambda w, t: w.rename(w.with_stem("heart")), "left out", "name is not"),
    ("icbhi", "a recording that the split does not name", lambda w, t: w.rename(w.with_stem("999_1b1_Al_sc_Meditron")),
     "left out", "not in the official split"),
    ("icbhi", "no recording for a name of the split", lambda w, t: w.unlink(), "absent", "no .wav here"),
    ("icbhi", "a directory named .wav", lambda w, t: (w.unlink(), w.mkdir()), "left out", "unreadable"),
    ("icbhi", "no annotation", lambda w, t: t.unlink(), "left out", "no annotation"),
    ("icbhi", "an annotation that nothing belongs to", lambda w, t: t.with_stem("110_1b1_Al_sc_Litt3200").touch(),
     "left out", "without a recording"),
    ("icbhi", "an empty annotation", lambda w, t: t.write_text(""), "kept", "no event is labelled"),
    ("icbhi", "line ends of Windows and a byte-order mark", lambda w, t: t.write_bytes(b"\xef\xbb\xbf0.1 1.0 0 0\r\n"),
     "read", ""),
    ("icbhi", "UTF-16", lambda w, t: t.write_text("0.1 1 0 0", encoding="utf-16"), "left out", "annotation unreadable"),
    ("icbhi", "a line with three fields", lambda w, t: t.write_text("0.1\t1.0\t0\n"), "left out", "line 1 should be"),
    ("icbhi", "decimal commas", lambda w, t: t.write_text("0,1\t1,0\t0\t0\n"), "left out", "line 1 should be"),
    ("icbhi", "a label other than 0 and 1", lambda w, t: t.write_text("0.1 1 0 2"), "left out", "line 1 should be"),
    ("icbhi", "a time that is nan", lambda w, t: t.write_text("nan 1 0 0"), "left out", "line 1 should be"),
    ("icbhi", "a negative time", lambda w, t: t.write_text("-1 1 0 0"), "left out", "line 1 should be"),
    ("icbhi", "a time of 400 digits", lambda w, t: t.write_text(f"1 {'9' * 400} 0 0"), "event left out",
     r"1.0\.\.inf s"),
    ("icbhi", "a reversed interval", lambda w, t: t.write_text("2.0 1.0 0 0"), "event left out", "interval 2.0..1.0 s"),
    ("icbhi", "an interval of no length", lambda w, t: t.write_text("1.0 1.0 0 0"), "event left out",
     "has the interval"),
    ("icbhi", "an interval of 0.01 ms", lambda w, t: t.write_text("1 1.00001 0 0\n2 3 0 0"), "event left out",
     "lasts 0.01"),
    ("icbhi", "overlapping intervals", lambda w, t: t.write_text("0.1 2.0 0 0\n1.0 2.5 0 0"), "kept", "before the one"),
    ("icbhi", "an interval that ends past the end", lambda w, t: t.write_text("0.1 9.0 0 0"), "cut at the end",
     "ends 6.000 s after"),
    ("icbhi", "an interval that starts past the end", lambda w, t: t.write_text("0.1 1 0 0\n8 9 0 0"),
     "event left out", "after the end"),
    ("icbhi", "no official split", lambda w, t: (w.parents[1] / "official_split.txt").unlink(), "error",
     "from the owners' page: https"),
    ("icbhi", "a split with a third word", lambda w, t: (w.parents[1] / "official_split.txt").write_text("a dev"),
     "error", "wants lines"),
    ("icbhi", "a split with a recording on both sides", lambda w, t: (w.parents[1] / "official_split.txt").write_text(
        f"{NAMES[0]} train\n{NAMES[0]} test\n"), "error", "both train and test"),
    ("icbhi", "a split that is not text", lambda w, t: (w.parents[1] / "official_split.txt").write_bytes(b"\xff\xff"),
     "error", "wants lines"),
    ("icbhi", "an empty folder", lambda w, t: (shutil.rmtree(w.parent), w.parent.mkdir()), "error", "no .wav under"),
    ("icbhi", "a path that is not ASCII", lambda w, t: w.parents[2].rename(w.parents[2].with_name("Geräusche 肺")),
     "read", ""),
    ("icbhi", "a read-only folder", lambda w, t: [p.chmod(0o555) for p in (w.parent, w.parents[1])], "read", ""),
    ("sprsound", "an annotation without its recording", lambda w, t: w.unlink(), "left out", "has no .wav"),
    ("sprsound", "a recording without its annotation", lambda w, t: t.unlink(), "not used", "no annotation"),
    ("sprsound", "another rate than the release", lambda w, t: soundfile.write(w, tone(rate=16000), 16000), "kept",
     "is at 16000 Hz"),
    ("sprsound", "an empty JSON file", lambda w, t: t.write_text(""), "left out", "not an annotation"),
    ("sprsound", "JSON cut off", lambda w, t: t.write_text(t.read_text()[:30]), "left out", "not an annotation"),
    ("sprsound", "a list instead of an object", lambda w, t: t.write_text("[]"), "left out", "not an annotation"),
    ("sprsound", "a missing key", lambda w, t: t.write_text('{"record_annotation": "Normal"}'), "left out",
     "event_annotation"),
    ("sprsound", "brackets 100,000 deep", lambda w, t: t.write_text("[" * 100_000), "left out", "not an annotation"),
    ("sprsound", "times as numbers", lambda w, t: write_json(t, (100, 900, "Normal")), "read", ""),
    ("sprsound", "times with fractions", lambda w, t: write_json(t, (0.5, 900.2, "Normal")), "event left out",
     "interval 0.5 ms"),
    ("sprsound", "a time that is true", lambda w, t: write_json(t, (True, 900, "Normal")), "event left out",
     "interval True ms"),
    ("sprsound", "an infinite time", lambda w, t: write_json(t, (0, float("inf"), "Normal")), "event left out",
     "inf ms"),
    ("sprsound", "an unknown label", lambda w, t: write_json(t, (0, 900, "Cough")), "event left out", "unknown label"),
    ("sprsound", "a label that is a list", lambda w, t: write_json(t, (0, 900, ["Wheeze"])), "event left out",
     "unknown label"),
    ("sprsound", "events out of order", lambda w, t: write_json(t, (1000, 2000, "Wheeze"), (0, 900, "Normal")), "read",
     ""),
    ("sprsound", "a reversed event", lambda w, t: write_json(t, (900, 100, "Normal")), "event left out",
     "interval 0.9..0.1"),
    ("sprsound", "Poor Quality with events", lambda w, t: write_json(t, (0, 900, "Normal"), record="Poor Quality"),
     "kept", "labelled Poor Quality"),
    ("sprsound", "Normal without events", lambda w, t: write_json(t, record="Normal"), "kept", "no event is labelled"),
]  # fmt: skip


def outcome(root: Path, corpus: str) -> tuple[set[str], str]:
    """("done" values, every message) of reading a damaged corpus; the usable recordings are always read."""
    root = next(root.parent.iterdir())  # one row renames it
    try:
        found = load_corpus(corpus, root, None if corpus == "icbhi" else "train")
    except CorpusError as error:
        return {"error"}, str(error)
    others = set(NAMES[1:] if corpus == "icbhi" else CHILDREN[1:])
    assert others <= set(found.recordings["recording_id"])
    for event_id, clip in audio.cut_clips(found, 16000, 8.0):  # whatever is accepted can also be used
        assert np.isfinite(clip).all(), event_id
    return set(found.report["done"]) or {"read"}, " ".join(found.report["what"])


@pytest.mark.parametrize(("corpus", "what", "damage", "done", "message"), ROWS, ids=[f"{r[0]}: {r[1]}" for r in ROWS])
def test_bad_input(corpus, what, damage, done, message, tmp_path):
    root = write_base(tmp_path / "only" / "data")
    folder = root / corpus
    first = NAMES[0] if corpus == "icbhi" else CHILDREN[0]
    wav = next(folder.rglob(f"{first}.wav"))
    damage(wav, next(folder.rglob(f"{first}.txt" if corpus == "icbhi" else f"{first}.json")))
    found, text = outcome(root, corpus)
    assert done in found
    assert re.search(message, text)


INTRODUCTION = """\
# Bad inputs and what happens with them

Generated by `python tests/test_bad_inputs.py` from the rows that the tests run. *error*: reading stops with a message
that names what to do. *read*: accepted without a remark. Everything else is a row of `corpus.report`; *left out* means
the whole recording.

| corpus | input | outcome |
|---|---|---|
"""


SITUATIONS = """
## Situations

What users reported, here or of similar projects, or are likely to meet. Each failed once; now its test fails if it does
again. The numbers are those of the trials.
"""


def table() -> str:
    """The rows as Markdown."""
    rows = (f"| {corpus} | {what} | {done} |\n" for corpus, what, _, done, _ in ROWS)
    return INTRODUCTION + "".join(rows) + SITUATIONS + trials.tables()


def test_the_table_in_the_docs_is_this_one():
    assert len(ROWS) >= 30
    for *_, test in (row for group in trials.TRIALS.values() for row in group):
        file, name = test.split("::")
        assert f"def {name}(" in (paths.ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"), test
    assert TABLE.read_text(encoding="utf-8") == table()


# Fuzzing: whatever the bytes, the answer is facts, a reason to set the recording aside, or our own error.
HEADER = st.builds(
    lambda size, tag, channels, rate, bps, align, bits, length, body: b"RIFF" + struct.pack("<I", size) + b"WAVEfmt "
    + struct.pack("<IHHIIHH", 16, tag, channels, rate, bps, align, bits) + b"data" + struct.pack("<I", length) + body,
    st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, 3, 6, 7, 17, 85, 0xFFFE]), st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1) | st.sampled_from([4000, 8000, 44100]), st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1) | st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from([0, 4, 8, 12, 16, 24, 32, 64, 65535]),
    st.integers(0, 400) | st.integers(0, 2**32 - 1), st.binary(max_size=400),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(content=HEADER | st.binary(max_size=200))
def test_no_wav_header_is_unhandled(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.wav"
        path.write_bytes(content)
        found = wav.examine(path)
        json.dumps(found)
        if found["unusable"]:
            return
        assert found["frames"] > 0
        try:
            samples, _ = audio.read(str(path), 16000)
        except QlungError:
            return
        assert np.isfinite(samples).all()


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=80) | st.lists(
    st.tuples(*[st.floats() | st.integers() | st.sampled_from(["", "0", "1", "1e9", "٣", "1_0"])] * 4), max_size=4
).map(lambda rows: "\n".join("\t".join(map(str, row)) for row in rows)))  # fmt: skip
def test_no_cycle_file_is_unhandled(text):
    try:
        cycles = icbhi.read_cycles(text)
    except ValueError:
        return
    assert all(start >= 0 and end >= 0 for start, end, *_ in cycles)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["Normal", "12"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["record_annotation", "event_annotation", "start", "end", "type", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60) | JSON.map(json.dumps) | st.lists(JSON, max_size=3).map(
    lambda rows: json.dumps({"record_annotation": "Normal", "event_annotation": rows})))  # fmt: skip
def test_no_annotation_json_is_unhandled(text):
    try:
        _, events = sprsound.read_record(text)
    except ValueError:
        return
    times = [time for event in events for time in event[:2]]  # a text is what was found instead of a time
    assert all(isinstance(time, str) or time >= 0 for time in times)
    assert all(isinstance(event[2], str) for event in events)


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(), encoding="utf-8")
