"""Counts are computed from files; mistakes are answered; nothing is dropped silently."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from qlung import audio, load_corpus
from qlung.corpora import fetch, icbhi, sprsound, synthetic
from qlung.errors import ConfigError, CorpusError


def test_whole_icbhi_counts_from_the_annotations(reference):
    every = icbhi.read_annotations(reference / "icbhi" / "annotations")
    split = icbhi.read_split(reference / "icbhi")
    assert len(every) == len(split) == 920
    counts = {"train": [0] * 4, "test": [0] * 4}
    for name, rows in every.items():
        for *_, crackle, wheeze in rows:
            counts[split[name]][crackle + 2 * wheeze] += 1
    assert counts == {"train": [2063, 1215, 501, 363], "test": [1579, 649, 385, 143]}
    assert sum(map(sum, counts.values())) == 6898


def test_part_at_hand(real_root):
    corpus = load_corpus("icbhi", real_root)
    assert corpus.select("train").counts() == [742, 156, 129, 49]
    assert corpus.select("test").counts() == [653, 102, 142, 39]
    assert len(load_corpus("icbhi", real_root, "sc").recordings) == 188
    assert (corpus.report["done"] == "absent").sum() == 920 - 195


def test_sprsound_counts_by_type(real_root):
    corpus = load_corpus("sprsound", real_root)
    assert {s: corpus.select(s).events["raw_label"].value_counts().to_dict() for s in ("train", "test")} == {
        "train": {"Normal": 5159, "Fine Crackle": 912, "Wheeze": 452, "Coarse Crackle": 49, "Rhonchi": 39,
                  "Wheeze+Crackle": 30, "Stridor": 15},
        "test": {"Normal": 1040, "Wheeze": 305, "Fine Crackle": 80, "Coarse Crackle": 3, "Wheeze+Crackle": 1},
    }  # fmt: skip
    poor = corpus.recordings[corpus.recordings["quality_label"] == "poor"]
    assert poor.groupby("split").size().to_dict() == {"train": 177, "test": 8}
    patients = corpus.recordings.groupby("split")["patient_id"].agg(set)
    assert not patients["train"] & patients["test"]


def test_synthetic_is_read_by_the_same_loaders_and_repeats(synthetic_root, tmp_path):
    first = load_corpus("synthetic")
    assert all(first.select(split).counts()[k] > 0 for split in ("train", "test") for k in range(4))
    assert set(load_corpus("sprsound", synthetic_root).recordings["quality_label"]) == {"good", "poor"}
    again = load_corpus("icbhi", synthetic.write(tmp_path / "again"))
    assert again.fingerprint() == first.fingerprint()
    assert not len(first.report)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("icbhi", None, "there is no folder"),
        ("icbhi", "empty", "no .wav under"),
        ("sprsound", "empty", "has neither train2022_wav"),
    ],
)
def test_a_wrong_folder_is_named(name, make, message, tmp_path):
    root = tmp_path / "data"
    if make:
        root.mkdir()
    with pytest.raises(CorpusError, match=message):
        load_corpus(name, root)


def test_unknown_names_are_refused(synthetic_root):
    with pytest.raises(ConfigError, match="choose icbhi"):
        load_corpus("icbi")
    with pytest.raises(ConfigError, match="no subset"):
        load_corpus("icbhi", synthetic_root, "mono")


def test_damaged_recordings_are_reported_and_the_rest_is_read(synthetic_root, tmp_path):
    shutil.copytree(synthetic_root, tmp_path / "data")
    folder = tmp_path / "data" / "icbhi" / "ICBHI_final_database"
    names = sorted(p.stem for p in folder.glob("*.wav"))
    (folder / f"{names[0]}.wav").write_bytes(b"RIFF")
    (folder / f"{names[1]}.txt").unlink()
    (folder / f"{names[2]}.txt").write_text("2.0\t1.0\t0\t0\r\n")
    soundfile.write(folder / f"{names[3]}.wav", np.zeros(0), 4000)
    (folder / f"{names[4]}.txt").write_text("0.1\t999\t0\t0\r\n")
    corpus = load_corpus("icbhi", tmp_path / "data")
    report = corpus.report.set_index("recording_id")["done"].to_dict()
    assert report == dict.fromkeys(names[:4], "left out") | {names[4]: "cut at the end"}
    assert len(corpus.recordings) == len(names) - 4


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"record_annotation": "Normal"}', json.dumps({"record_annotation": "x", "event_annotation": 3}),
     json.dumps({"record_annotation": "x", "event_annotation": [{"start": "a", "end": "2", "type": "Normal"}]}),
     json.dumps({"record_annotation": "x", "event_annotation": [{"start": "1", "end": "2", "type": "Cough"}]})],
)  # fmt: skip
def test_wrong_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"annotation|whole milliseconds|unknown event"):
        sprsound.read_record(text)


def test_synthetic_truth_covers_every_event_and_is_true(synthetic_root):
    truth = synthetic.truth(synthetic_root).set_index("event_id")
    events = pd.concat([load_corpus(name, synthetic_root).events for name in ("icbhi", "sprsound")])
    assert sorted(truth.index) == sorted(events["event_id"])
    joined = events.set_index("event_id").join(truth.add_suffix("_true"))
    assert (joined["label"] == joined["label_true"]).all()
    assert (joined["start_s"] - joined["start_s_true"]).abs().max() < 0.002
    assert set(truth["degradation"]) == {"none", "clipping", "dropout"}
    assert (truth["amount"] > 0).equals(truth["degradation"] != "none")
    single = {1: "Crackle", 2: "Wheeze|Rhonchi|Stridor", 3: "Crackle.Wheeze"}
    assert all(truth[truth["label"] == label]["sound"].str.contains(name).all() for label, name in single.items())


def test_synthetic_signal_to_noise_is_what_it_says():
    """Asking for 20 dB less noise changes the noise by that and nothing else, and clips lie around what was asked."""
    device, patient = synthetic.DEVICES["Meditron"], synthetic.Patient.draw(np.random.default_rng(1))
    rows = {}
    for snr in (0.0, 20.0):
        _, rows[snr] = synthetic.recording(np.random.default_rng(2), [(0, ()), (2, ("Wheeze",))], patient, device, snr)
    for quiet, loud in zip(rows[20.0], rows[0.0], strict=True):
        assert quiet["snr_db"] - loud["snr_db"] == pytest.approx(20, abs=0.02)
        assert quiet["heart_db"] == loud["heart_db"]
        assert quiet["snr_db"] == pytest.approx(20, abs=5)


def test_synthetic_sounds_lie_where_the_literature_puts_them():
    rng, rate = np.random.default_rng(0), 8000

    def peak(x):
        return np.fft.rfftfreq(len(x), 1 / rate)[np.abs(np.fft.rfft(x)).argmax()]

    assert 450 < peak(synthetic.crackles(rng, 20000, rate, fine=True)) < 850
    assert 200 < peak(synthetic.crackles(rng, 20000, rate, fine=False)) < 450
    assert 80 < peak(synthetic.continuous(rng, 20000, rate, "Rhonchi", 300)) < 200
    assert 250 < peak(synthetic.continuous(rng, 20000, rate, "Wheeze", 300)) < 480
    assert peak(synthetic.heart(rng, 20000, rate, 70)) < 100
    breath = synthetic.breath(rng, 20000, rate, 300)
    assert np.std(breath[: 20000 * 42 // 100]) > 1.5 * np.std(breath[9200:])


def test_equal_audio_under_two_names_is_found_across_parts(synthetic_root, tmp_path):
    root = shutil.copytree(synthetic_root, tmp_path / "data") / "sprsound"
    train, test = sorted((root / "train2022_wav").iterdir())[0], sorted((root / "test2022_wav").iterdir())[0]
    samples, rate = soundfile.read(train, dtype="int16")
    soundfile.write(test, samples, rate, subtype="PCM_24")  # the same audio in another container
    corpus = load_corpus("sprsound", root)
    (row,) = corpus.duplicates().to_dict("records")
    assert {row["recording_id"], row["same_as"]} == {train.stem, test.stem}
    assert {row["split"], row["same_as_split"]} == {"train", "test"}
    assert corpus.report["what"].str.contains("same audio").any()
    assert set(load_corpus("sprsound", synthetic_root).duplicates()) == {
        "recording_id", "split", "same_as", "same_as_split"}  # fmt: skip


def test_recordings_are_known_by_their_samples(real_root, reference):
    manifest = pd.read_csv(reference / "icbhi" / "manifest.csv")
    recordings = load_corpus("icbhi", real_root).recordings
    assert dict(zip(recordings["recording_id"] + ".wav", recordings["sha256"], strict=True)) == dict(
        zip(manifest["file"], manifest["samples_sha256"], strict=True)
    )


def test_a_folder_of_the_users_is_never_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(CorpusError, match="name another folder"):
        synthetic.ensure(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_two_processes_may_write_the_synthetic_corpus_at_once(synthetic_root, tmp_path, monkeypatch):
    def write(dest):
        shutil.copytree(synthetic_root, tmp_path / "final")  # the other one is quicker
        return shutil.copytree(synthetic_root, dest)

    monkeypatch.setattr(synthetic, "write", write)
    assert (synthetic.ensure(tmp_path / "final") / "truth.csv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_bandwidth_and_copied_share():
    rng = np.random.default_rng(0)
    assert audio.bandwidth(rng.standard_normal(40000), 4000) == pytest.approx(1980, abs=30)
    assert audio.bandwidth(np.sin(np.arange(40000) * 2 * np.pi * 300 / 4000), 4000) == pytest.approx(300, abs=10)
    assert np.isnan(audio.bandwidth(np.zeros(5000), 4000))
    assert audio.copied_share([2.0, 8.0, 12.0]).tolist() == [0.75, 0.0, 0.0]


def test_a_data_card_counts_what_is_there(real_root):
    card = fetch.card("icbhi", load_corpus("icbhi", real_root)).set_index("field")["value"]
    assert card["recordings"].startswith("195, 1.4")
    assert card["patients"] == "79, on both sides: 1"
    assert card["set aside"] == "0, not here: 725"
    assert "Rocha" in card["citation"]


@pytest.mark.parametrize("home", ["", "BioCAS2022", "releases/BioCAS2022", "Classification"])
@pytest.mark.parametrize("year", ["2022", ""])
def test_sprsound_layouts(home, year, synthetic_root, tmp_path):
    base = tmp_path / "sprsound" / home
    base.mkdir(parents=True)
    for path in (synthetic_root / "sprsound").iterdir():
        shutil.copytree(path, base / path.name.replace("2022", year))
    corpus = load_corpus("sprsound", tmp_path)
    assert corpus.fingerprint() == load_corpus("sprsound", synthetic_root).fingerprint()
    assert len(load_corpus("sprsound", tmp_path, "inter").recordings) == 40
