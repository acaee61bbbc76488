"""Folders that people have: each is read as the owners' layout, or refused with a sentence that says what to do."""

import dataclasses
import hashlib
import os
import shutil
import struct

import numpy as np
import pytest
import soundfile
from test_bad_inputs import CHILDREN, NAMES, tone, write_base, write_json

from qlung import evaluation, load_corpus, paths
from qlung.book import results
from qlung.corpora import kauh, verify, wav
from qlung.corpora.tables import CLASSES
from qlung.errors import ConfigError, CorpusError
from qlung.training import Config, fit, model, profiles


@pytest.fixture
def icbhi(tmp_path):
    return write_base(tmp_path / "data") / "icbhi"


@pytest.fixture
def sprsound(tmp_path):
    """Train, inter-patient and intra-patient test, two recordings each of the latter."""
    root = write_base(tmp_path / "data") / "sprsound"
    (root / "test2022_wav").mkdir()
    for part, patients in (("inter", (2001, 2002)), ("intra", (1001, 1002))):
        (root / "test2022_json" / f"{part}_test_json").mkdir(parents=True)
        for patient in patients:
            name = f"{patient}_4.0_1_p4_{patient - 900}"
            soundfile.write(root / "test2022_wav" / f"{name}.wav", tone(rate=8000, pitch=patient / 4), 8000)
            write_json(root / "test2022_json" / f"{part}_test_json" / f"{name}.json", ("0", "900", "Normal"))
    return root


def move(root, *pairs):
    for before, after in pairs:
        (root / after).parent.mkdir(parents=True, exist_ok=True)
        (root / before).rename(root / after)


OLD = ("train2022_wav", "train2022_json", "test2022_wav", "test2022_json")
NEW = {
    "BioCAS2022": [f"BioCAS2022/{name}" for name in OLD],
    "releases": [f"releases/BioCAS2022/{name}" for name in OLD],
    "older names": [name.replace("2022", "") for name in OLD],
    "Classification, by year": ["Classification/train_classification_wav", "Classification/train_classification_json",
                                "Classification/test_classification_wav/2022",
                                "Classification/test_classification_json/2022"],
    "validation, by year": ["train_classification_wav", "train_classification_json",
                            "valid_classification_wav/2022", "valid_classification_json/2022"],
    "validation": ["train_classification_wav", "train_classification_json", "valid_classification_wav",
                   "valid_classification_json"],
}  # fmt: skip


@pytest.mark.parametrize("layout", NEW)
def test_layouts_of_sprsound_are_the_same_corpus(layout, sprsound):
    before = load_corpus("sprsound", sprsound)
    assert before.recordings["split"].value_counts().to_dict() == {"train": 3, "test_inter": 2, "test_intra": 2}
    move(sprsound, *zip(OLD, NEW[layout], strict=True))
    after = load_corpus("sprsound", sprsound)
    assert after.fingerprint() == before.fingerprint()
    assert not len(after.report)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.write_text(t.read_text().replace("record_annotation", "recording_annotation")),
         "annotated as in a later release"),
        (lambda t: t.write_text('{"event_annotation": []}'), "annotated as in a later release"),
        (lambda t: t.rename(t.with_stem("5.3_0_p8_34877")), "named as in a later release"),
        (lambda t: t.rename(t.with_stem("1001_5.3_0_p5_1")), "named as in a later release"),
    ],
)  # fmt: skip
def test_later_releases_of_sprsound_are_set_aside_for_that_reason(change, why, sprsound):
    text = sprsound / "train2022_json" / f"{CHILDREN[0]}.json"
    sound = sprsound / "train2022_wav" / f"{CHILDREN[0]}.wav"
    change(text)
    if not text.is_file():
        sound.rename(sound.with_stem(next(iter({p.stem for p in text.parent.iterdir()} - set(CHILDREN)))))
    report = load_corpus("sprsound", sprsound).report
    assert report["done"].tolist() == ["left out"]
    assert why in report["what"].iat[0]


def test_poor_quality_is_known_whatever_its_case_and_blanks(sprsound):
    text = sprsound / "train2022_json" / f"{CHILDREN[0]}.json"
    write_json(text, record="poor quality ")
    labels = load_corpus("sprsound", sprsound).recordings.set_index("recording_id")["quality_label"]
    assert labels[CHILDREN[0]] == "poor"


def rename_split(icbhi, name, change=lambda text: text):
    split = icbhi / "official_split.txt"
    (icbhi / name).write_text(change(split.read_text()), encoding="utf-8")
    if (icbhi / name) != split:
        split.unlink()


ICBHI = {
    "unpacked twice": lambda r: move(
        r, ("ICBHI_final_database", "x"), ("x", "ICBHI_final_database/ICBHI_final_database")
    ),
    "Kaggle's folders": lambda r: move(
        r, ("ICBHI_final_database", "Respiratory_Sound_Database/Respiratory_Sound_Database/audio_and_txt_files")
    ),
    "Kaggle's inner folder": lambda r: move(r, ("ICBHI_final_database", "audio_and_txt_files")),
    "capitals in the split's name": lambda r: rename_split(r, "Official_split.TXT"),
    "the split's other name": lambda r: rename_split(r, "ICBHI_Challenge_train_test.txt"),
    "names with .wav": lambda r: rename_split(
        r, "official_split.txt", lambda text: text.replace("Meditron", "Meditron.wav").replace("417L", "417L.WAV")
    ),
    "a CSV with a header": lambda r: rename_split(
        r, "official_split.csv", lambda text: "file,set\n" + text.replace("\t", ",").replace(" train", ",Train")
    ),
    "a byte-order mark and line ends of Windows": lambda r: rename_split(
        r, "official_split.txt", lambda text: "\ufeff" + text.replace("\n", "\r\n")
    ),
    "Windows-1252 with hard spaces": lambda r: [
        path.write_bytes(path.read_text().replace("\t", "\xa0").encode("cp1252")) for path in r.rglob("*.txt")
    ],
    "the other device in a recording's name": lambda r: [
        path.rename(path.with_stem(f"{NAMES[0].removesuffix('Meditron')}AKGC417L")) for path in r.rglob(f"{NAMES[0]}.*")
    ],
    "the other device in the split": lambda r: rename_split(
        r, "official_split.txt", lambda text: text.replace(NAMES[0], f"{NAMES[0].removesuffix('Meditron')}AKGC417L")
    ),
    "what macOS adds": lambda r: [
        (r / "ICBHI_final_database" / f"._{NAMES[0]}{suffix}").write_bytes(b"\0\5\26\7") for suffix in (".wav", ".txt")
    ] + [(r / ".DS_Store").touch(), (r / "__MACOSX").mkdir()],
    "suffixes in capitals": lambda r: [
        path.rename(path.with_suffix(path.suffix.upper())) for path in sorted((r / "ICBHI_final_database").iterdir())
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", ICBHI)
def test_layouts_of_icbhi_are_the_same_corpus(layout, icbhi):
    before = load_corpus("icbhi", icbhi)
    ICBHI[layout](icbhi)
    after = load_corpus("icbhi", icbhi)
    assert after.fingerprint() == before.fingerprint()
    assert not len(after.report)


def test_a_copy_without_the_split_says_where_it_comes_from(icbhi):
    move(icbhi, ("ICBHI_final_database", "audio_and_txt_files"))
    (icbhi / "official_split.txt").unlink()
    with pytest.raises(CorpusError, match=r"no official split .* from the owners' page: https://bhichallenge"):
        load_corpus("icbhi", icbhi)


def test_copies_and_names_that_are_not_text_cost_only_themselves(icbhi):
    folder = icbhi / "ICBHI_final_database"
    shutil.copy(folder / f"{NAMES[0]}.wav", folder / f"{NAMES[0]} (1).wav")
    shutil.copy(folder / f"{NAMES[0]}.wav", os.fsencode(folder) + b"/caf\xe9.wav")
    found = load_corpus("icbhi", icbhi)
    report = found.report.set_index("recording_id")
    assert len(found.recordings) == 3
    assert report.loc[f"{NAMES[0]} (1)"].tolist() == [f"by its name a copy of {NAMES[0]}", "not used"]
    assert report.loc["caf\\xe9", "done"] == "left out"
    found.report.to_csv(icbhi / "report.csv")  # everything in it is text
    assert verify.examine("icbhi", icbhi)["damaged"].keys() == {"caf\\xe9"}


def test_the_same_recording_under_two_devices_is_used_once(icbhi):
    folder = icbhi / "ICBHI_final_database"
    shutil.copy(folder / f"{NAMES[0]}.wav", folder / f"{NAMES[0].removesuffix('Meditron')}AKGC417L.wav")
    found = load_corpus("icbhi", icbhi)
    assert len(found.recordings) == 3
    assert found.report["what"].str.contains("the same recording as").sum() == 1


def test_the_listed_device_stands_beside_the_named_one(icbhi):
    (icbhi / "filename_differences.txt").write_text("'101_1b1_Al_sc_AKGC417L'\n")
    recordings = load_corpus("icbhi", icbhi).recordings.set_index("recording_id")
    assert recordings["device"].tolist() == ["Meditron", "Meditron", "AKGC417L"]
    assert recordings["listed_device"].tolist() == ["AKGC417L", "Meditron", "AKGC417L"]


def test_the_contested_devices_are_told_apart_by_their_rate(real_root):
    recordings = load_corpus("icbhi", real_root, "sc").recordings
    contested = recordings[recordings["device"] != recordings["listed_device"]]
    assert len(contested) == 91
    assert set(contested["device"]) == {"Meditron"}
    assert contested["listed_device"].value_counts().to_dict() == {"LittC2SE": 54, "AKGC417L": 37}
    assert set(contested["sample_rate"]) == {44100}
    others = recordings[(recordings["listed_device"] == "Meditron")]
    assert others["sample_rate"].value_counts().to_dict() == {4000: 30, 10000: 6}


def riff(*chunks: tuple[bytes, bytes], pad=True) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + (b"\0" if pad and len(data) % 2 else b"") for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


FORMAT_24 = (b"fmt ", struct.pack("<HHIIHH", 1, 1, 4000, 12000, 3, 24))
FORMAT_16 = (b"fmt ", struct.pack("<HHIIHH", 1, 1, 4000, 8000, 2, 16))
SAMPLES = np.arange(1, 4002, dtype="<i2").tobytes()


def test_headers_of_recorders(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(riff(FORMAT_24, (b"data", SAMPLES[:3003]), pad=False))  # 24 bit, an odd length, no pad byte
    assert wav.examine(path)["frames"] == 1001
    path.write_bytes(riff((b"LIST", b"x" * 393_164), FORMAT_16, (b"data", SAMPLES)))
    assert wav.examine(path)["frames"] in (0, 4001)  # the format comes late: read whole, or refused
    path.write_bytes(riff(FORMAT_16, (b"LIST", b"x" * 393_164), (b"data", SAMPLES)))
    assert wav.examine(path)["frames"] == 4001
    whole = riff(FORMAT_16, (b"LIST", b"x" * 11), (b"data", SAMPLES), pad=False)
    path.write_bytes(whole[:-3000])
    assert wav.examine(path)["unusable"].startswith("cut short: 5002 of the 8002 bytes")
    path.write_bytes(riff(FORMAT_16, (b"LIST", b"x" * 12)))
    assert wav.examine(path)["unusable"] == "its header names no samples"


def test_kauh_counts(real_root):
    found = load_corpus("kauh", real_root)
    assert verify.examine("kauh", real_root)["verdict"] == "complete"
    assert found.unit == "recording"
    assert len(found.recordings) == 336 - 3 - 6  # bronchial breathing; three pairs with two labels each
    two = found.report[found.report["what"].str.contains("two labels")]
    assert sorted(two["recording_id"]) == ["BP100", "BP101", "DP100", "DP101", "EP76", "EP77"]
    assert two["what"].str.contains(r"EP76 \(N\) and EP77 \(E W\)").sum() == 2
    dev, test = found.select("dev"), found.select("test")
    assert not set(dev.recordings["patient_id"]) & set(test.recordings["patient_id"])
    assert found.recordings["device"].str.partition(", ")[2].value_counts().to_dict() == {
        "extended": 109, "diaphragm": 109, "bell": 109}  # fmt: skip
    length = found.events["end_s"] - found.events["start_s"]
    assert (length.round(6) <= 8).all()
    assert (found.of_events("duration_s")[length < 7.9] < 8).all()


def test_the_halves_of_kauh_follow_their_rule(real_root):
    """Per class, the half of the takes whose number has the lower SHA-256, from the owners' file names alone."""
    by_class = {name: set() for name in CLASSES}
    for path in (real_root / "kauh" / "Audio Files").iterdir():
        name = kauh.NAME.fullmatch(path.stem)
        if name and name["sound"] in kauh.LABELS:
            by_class[kauh.LABELS[name["sound"]]].add(int(name["take"]))
    half = set()
    for takes in by_class.values():
        ordered = sorted(takes, key=lambda take: hashlib.sha256(f"kauh {take}".encode()).hexdigest())
        half |= set(ordered[: len(takes) // 2])
    assert half == kauh.DEV


def test_windows_fit_into_the_recording():
    assert kauh.windows(5.0) == [(0.0, 5.0)]
    assert kauh.windows(8.0) == [(0.0, 8.0)]
    assert kauh.windows(17.0) == [(0.0, 8.0), (4.0, 12.0), (8.0, 16.0)]


def test_a_recording_is_predicted_by_the_mean_of_its_windows(real_root):
    takes = load_corpus("kauh", real_root).select("dev")
    events = takes.events[takes.events["recording_id"].isin(["BP1", "DP1", "EP1"])].reset_index(drop=True)
    takes, network = dataclasses.replace(takes, events=events), model.Model(Config(method="qlung"))
    windows = model.predict(network, dataclasses.replace(takes, unit="event"))
    recordings = model.predict(network, takes)
    names = [f"p{k}" for k in range(4)]
    assert recordings["event_id"].tolist() == recordings["recording_id"].tolist() == ["BP1", "DP1", "EP1"]
    means = windows.groupby("recording_id")[names].mean().to_numpy()
    assert recordings[names].to_numpy() == pytest.approx(means)
    assert recordings["predicted"].tolist() == means.argmax(1).tolist()
    assert [*recordings] == [*windows]


STUDIES = """
[profiles.abroad]
corpora = ["icbhi:sc", "sprsound", "kauh"]
[profiles.home]
corpora = ["sprsound", "kauh"]
[profiles.seen]
corpora = ["sprsound:intra", "kauh"]
[profiles.part]
corpora = ["icbhi:sc", "sprsound:train"]
"""


def test_patients_that_were_trained_on_are_no_test(real_root, tmp_path):
    runs = '[profiles.NAME.backbones.cnn]\nmethods = ["ce"]\nseeds = [0]\n'
    table = tmp_path / "t.toml"
    names = ("abroad", "home", "seen", "part")
    table.write_text(STUDIES + "".join(runs.replace("NAME", name) for name in names))
    ((_, tests),) = profiles.parts("abroad", str(real_root), str(table))
    patients = {name: test.recordings["patient_id"].nunique() for name, test in tests.items()}
    assert {name: patients[name] for name in ("sprsound", "sprsound-intra", "kauh")} == {
        "sprsound": 41, "sprsound-intra": 162, "kauh": 57}  # fmt: skip
    ((_, tests),) = profiles.parts("home", str(real_root), str(table))
    assert set(tests) == {"sprsound", "kauh"}
    with pytest.raises(ConfigError, match="'sprsound' has no training recordings here"):
        profiles.parts("seen", str(real_root), str(table))
    with pytest.raises(ConfigError, match="'sprsound' has no test recordings here"):
        profiles.parts("part", str(real_root), str(table))
    sprsound = load_corpus("sprsound", real_root)
    with pytest.raises(ConfigError, match="all 162 patients of test 'intra' are in the training corpus"):
        fit(Config(), sprsound.select("train"), {"intra": sprsound.select("test_intra")})


def test_what_length_alone_gives_on_sprsound(real_root):
    """The numbers that notebook 07 and the README state; the committed predictions know the lengths, too."""
    test = load_corpus("sprsound", real_root).select("test_inter").events
    recorded = test.assign(seconds=test["end_s"] - test["start_s"])
    committed = results.evidence("sc").query("corpus == 'sprsound'").drop_duplicates("event_id")
    for test in (recorded, committed):
        abnormal, seconds = test["label"] > 0, test["seconds"]
        assert 100 * evaluation.auroc(abnormal, -seconds) == pytest.approx(83.3, abs=0.05)
        assert evaluation.icbhi_score(test["label"], np.where(seconds < 1, 2, 0)).score == pytest.approx(70.0, abs=0.05)
        assert seconds.groupby(abnormal).median().tolist() == pytest.approx([1.66, 0.67], abs=0.005)


def test_the_readme_counts_the_clips_and_patients_that_were_trained_on(real_root):
    words = " ".join((paths.ROOT / "README.md").read_text(encoding="utf-8").split())
    for study, who in {"sc": "patients", "sprsound": "children"}.items():
        train, _ = profiles.parts(study, str(real_root))[0]
        assert f"{len(train.events):,} clips of {train.of_events('patient_id').nunique()} {who}" in words


def test_the_registry_knows_every_recorded_corpus():
    text = (paths.ROOT / "data" / "registry.toml").read_text(encoding="utf-8")
    for name in ("icbhi", "sprsound", "kauh"):
        assert f"[{name}.expect]" in text
        assert f"[[{name}.files]]" in text
