"""Counts are computed from files; mistakes are answered; nothing is dropped silently."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

from qlung import corpora, load_corpus, paths
from qlung.corpora import Source, fetch, find, icbhi, registry, sprsound, synthetic, verify
from qlung.errors import ConfigError, CorpusError
from qlung.training import profiles

PAGE = (paths.ROOT / "docs" / "add-a-corpus.md").read_text(encoding="utf-8")
BLOCKS = [code for _, code in re.findall(r"^```(python|toml)\n(.*?)^```", PAGE, re.M | re.S)]
LOADER, LOAD, PROFILE, TRAIN = BLOCKS


def test_whole_icbhi_counts_from_the_annotations(reference):
    files = sorted((reference / "icbhi" / "annotations").glob("[12]*_*.txt"))
    every = {path.stem: icbhi.read_cycles(path.read_text(encoding="utf-8-sig")) for path in files}
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
    assert {s: corpus.select(s).events["raw_label"].value_counts().to_dict() for s in sprsound.SPLITS.values()} == {
        "train": {"Normal": 5159, "Fine Crackle": 912, "Wheeze": 452, "Coarse Crackle": 49, "Rhonchi": 39,
                  "Wheeze+Crackle": 30, "Stridor": 15},
        "test_inter": {"Normal": 1040, "Wheeze": 305, "Fine Crackle": 80, "Coarse Crackle": 3, "Wheeze+Crackle": 1},
        "test_intra": {"Normal": 688, "Fine Crackle": 175, "Wheeze": 108, "Coarse Crackle": 14, "Rhonchi": 14,
                       "Wheeze+Crackle": 3, "Stridor": 2},
    }  # fmt: skip
    assert len(corpus.select("test").events) == 2433
    assert corpus.select("test").recordings["patient_id"].nunique() == 203
    poor = corpus.recordings[corpus.recordings["quality_label"] == "poor"]
    assert poor.groupby("split").size().to_dict() == {"train": 177, "test_inter": 8, "test_intra": 2}
    patients = corpus.recordings.groupby("split")["patient_id"].agg(set)
    assert not patients["train"] & patients["test_inter"]
    assert patients["test_intra"] <= patients["train"]


def test_synthetic_is_read_by_the_same_loaders_and_repeats(synthetic_root, tmp_path):
    first = load_corpus("synthetic")
    assert all(first.select(split).counts()[k] > 0 for split in ("train", "test") for k in range(4))
    assert set(load_corpus("sprsound", synthetic_root).recordings["quality_label"]) == {"good", "poor"}
    again = load_corpus("icbhi", synthetic.write(tmp_path / "again"))
    assert again.fingerprint() == first.fingerprint()
    assert not len(first.report)


def test_synthetic_counts_are_the_registered_ones():
    for name in ("synthetic-icbhi", "synthetic-sprsound"):
        assert verify.examine(name)["verdict"] == "complete"
        assert "no patient" in find(name).entry["consent"]


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
    with pytest.raises(ConfigError, match=r"choose from icbhi.*did you mean .icbhi."):
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
    aside = {names[2]: "event left out", names[4]: "cut at the end"}  # an odd event costs itself
    assert report == dict.fromkeys([names[0], names[1], names[3]], "left out") | aside
    assert len(corpus.recordings) == len(names) - 3


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"record_annotation": "Normal"}', json.dumps({"record_annotation": "x", "event_annotation": 3}),
     json.dumps({"event_annotation": []}), json.dumps({"recording_annotation": "x", "event_annotation": []})],
)  # fmt: skip
def test_wrong_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"annotation|later release"):
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


def test_synthetic_signal_to_noise_ratio_is_the_one_asked_for():
    """Asking for 20 dB less noise changes the noise by that and nothing else, and clips lie around what was asked."""
    device, patient = synthetic.DEVICES["Meditron"], synthetic.draw_patient(np.random.default_rng(1))
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
    assert {row["split"], row["same_as_split"]} == {"train", "test_inter"}
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


@pytest.fixture
def clinic(synthetic_root, tmp_path):
    """The folder that docs/add-a-corpus.md describes, with the audio and the events of synthetic-icbhi."""
    corpus, folder = load_corpus("synthetic-icbhi"), tmp_path / "data" / "clinic"
    labels = {"normal": "none", "crackle": "dry", "wheeze": "whistle", "crackle+wheeze": "dry+whistle"}
    rows = corpus.events[["start_s", "end_s"]].assign(label=corpus.events["raw_label"].map(labels))
    for column in ("patient_id", "split", "device"):
        rows[column] = corpus.of_events(column)
    rows["file"] = [f"audio/{name}.wav" for name in corpus.events["recording_id"]]
    (folder / "audio").mkdir(parents=True)
    for path in corpus.recordings["path"]:
        shutil.copy(path, folder / "audio")
    rows.to_csv(folder / "events.csv", index=False)
    return folder


@pytest.fixture
def registered(monkeypatch):
    """The page's loader, registered for one test."""
    monkeypatch.setitem(registry.SOURCES, "clinic", None)
    exec(LOADER, {})


def test_the_page_on_adding_a_corpus_runs_up_to_a_results_page(clinic, registered, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "EXPERIMENTS", tmp_path / "experiments.toml")
    paths.EXPERIMENTS.write_text(PROFILE, encoding="utf-8")
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / "runs"))
    given = {"DIR": str(clinic.parent)}
    for block in (LOAD, TRAIN):
        exec(block, given)
    synthetic_events = load_corpus("synthetic-icbhi").events
    same = ["event_id", "start_s", "end_s", "label", "crackle", "wheeze", "split"]
    pd.testing.assert_frame_equal(given["corpus"].events[same], synthetic_events[same])
    assert not len(given["corpus"].report)
    assert len([line for line in LOADER.splitlines() if line]) <= 14
    assert set(given["predictions"]["corpus"]) == {"clinic"}
    page = (tmp_path / "runs" / "clinic" / "results.md").read_text(encoding="utf-8")
    assert "# Results of profile clinic" in page
    assert "| clinic | cnn | QLung |" in page
    assert "results.md" in capsys.readouterr().out
    assert verify.examine("clinic", clinic.parent)["verdict"] == "complete"
    assert find("clinic").entry["terms"] == "for use in this clinic only"
    assert find("clinic").labels["dry+whistle"] == "both"
    with pytest.raises(ConfigError, match="no files are registered"):
        fetch.fetch("clinic", clinic.parent)


def test_a_file_of_the_room_is_found_by_its_name(clinic, tmp_path):
    """A copy of the package with the page's loader as corpora/clinic.py: no other place has to name it."""
    shutil.copytree(paths.ROOT / "qlung", tmp_path / "qlung", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(paths.ROOT / "data", tmp_path / "data", dirs_exist_ok=True)
    (tmp_path / "qlung" / "corpora" / "clinic.py").write_text(LOADER, encoding="utf-8")
    (tmp_path / "qlung" / "corpora" / "draft.py").write_text("1 / 0", encoding="utf-8")  # costs only itself
    code = """if True:
        import sys
        from qlung import load_corpus
        from qlung.corpora import verify
        assert not {"scipy.signal", "requests", "sklearn"} & set(sys.modules), "slow imports"
        print(len(load_corpus("clinic", sys.argv[1]).events), *(v["corpus"] for v in verify.examine_all(sys.argv[1])))
        load_corpus("draft")
    """
    words = [sys.executable, "-c", code, str(clinic.parent)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert "unknown corpus 'draft': " in done.stderr
    assert "corpora/draft.py can't be imported: ZeroDivisionError: division by zero" in done.stderr
    assert done.stdout.split() == ["420", "clinic", "icbhi", "kauh", "sprsound"]


def test_rows_that_cannot_be_used_are_reported(clinic, registered):
    rows = pd.read_csv(clinic / "events.csv", dtype=str)
    first = rows.drop_duplicates("file")["file"].tolist()
    where = {name: rows.index[rows["file"] == name] for name in first}
    rows.loc[where[first[0]][0], "label"] = "cough"
    rows.loc[where[first[1]][0], "end_s"] = "0.1"
    rows.loc[where[first[2]][0], "split"] = "test" if rows.loc[where[first[2]][0], "split"] == "train" else "train"
    rows.loc[where[first[3]], "patient_id"] = None
    rows.loc[where[first[4]], "label"] = None
    rows.loc[where[first[5]][0], "start_s"] = "0,2"
    rows = rows.drop(index=where[first[6]])
    (clinic / first[7]).unlink()
    rows.loc[where[first[8]][0], "file"] = f"./{first[8]}"  # another way to write the same path
    rows.loc[len(rows) + 99] = rows.iloc[-1]
    rows.loc[rows.index[-1], "file"] = None
    rows.to_csv(clinic / "events.csv", index=False)
    corpus = load_corpus("clinic", clinic.parent)
    report = corpus.report.set_index("recording_id")
    expected = [("event left out", "unknown label 'cough', expected none, dry"), ("event left out", "has the interval"),
                ("left out", "disagree about one of patient_id"), ("left out", "name no patient"),
                ("kept", "no event is labelled"), ("left out", "annotation unreadable"),
                ("not used", "no row names it"), ("left out", "has no .wav")]  # fmt: skip
    for file, (done, what) in zip(first, expected, strict=False):
        row = report.loc[file.removeprefix("audio/").removesuffix(".wav")]
        assert row["done"] == done
        assert what in row["what"]
    assert report.loc["clinic", "done"] == "left out"  # the row without a file
    assert len(corpus.recordings) == 60 - 5
    assert (corpus.events["recording_id"] == first[8].removeprefix("audio/").removesuffix(".wav")).sum() == 7
    rows.drop(columns=["start_s", "end_s"]).drop_duplicates("file").to_csv(clinic / "events.csv", index=False)
    whole = load_corpus("clinic", clinic.parent)
    assert np.allclose(whole.events["end_s"] - whole.events["start_s"], whole.of_events("duration_s"))
    rows.drop(columns="split").to_csv(clinic / "events.csv", index=False)
    with pytest.raises(CorpusError, match=r"no column split; it has start_s"):
        load_corpus("clinic", clinic.parent)
    rows.assign(split="mine").to_csv(clinic / "events.csv", index=False)
    with pytest.raises(CorpusError, match="break the schema"):
        load_corpus("clinic", clinic.parent)
    (clinic / "events.csv").unlink()
    with pytest.raises(CorpusError, match=r"clinic: cannot read .*events\.csv"):
        load_corpus("clinic", clinic.parent)
    assert verify.examine("clinic", clinic.parent)["verdict"] == "damaged"
    assert verify.examine("clinic", clinic.parent / "nowhere")["verdict"] == "absent"


def test_a_source_is_checked_when_it_is_made(clinic, monkeypatch):
    with pytest.raises(ConfigError, match="can't be named 'My corpus'"):
        Source("My corpus", icbhi.read)
    with pytest.raises(ConfigError, match="labels are mapped to normal, crackle, wheeze, both; given"):
        Source("mine", icbhi.read, labels={"dry": "crackles"})
    monkeypatch.setitem(registry.SOURCES, "mine", None)
    corpora.register(Source("mine", lambda folder, subset: load_corpus("synthetic-icbhi")))
    assert verify.examine("mine", clinic.parent)["verdict"] == "unchecked"
    assert not verify.all_complete([verify.examine("mine", clinic.parent)])


def test_what_a_profile_may_hold(tmp_path):
    def load(text):
        (tmp_path / "t.toml").write_text(text, encoding="utf-8")
        return profiles.load_profile("mine", str(tmp_path / "t.toml"))

    good = """[profiles.mine]
corpora = ["icbhi:sc", "sprsound"]
[profiles.mine.backbones.cnn]
methods = ["ce"]
seeds = [0]
"""
    assert load(good).names == ["icbhi", "sprsound"]
    for old, new, message in [
        ("corpora", "corpus", r"unknown setting 'corpus': choose from .*did you mean 'corpora'"),
        ('["icbhi:sc", "sprsound"]', '["icbhi:sc", "icbhi"]', "each corpus can be named once"),
        ('["icbhi:sc", "sprsound"]', "[1]", "corpora.0 should be a valid string"),
        ('["ce"]', '"ce"', "backbones.cnn.methods should be a valid list"),
        ("seeds", "seed", "backbones.cnn.seeds: Field required"),
        ("[profiles.mine.backbones.cnn]", "[profiles.mine.backbones]\ncnn = 3\n[x]", "backbones.cnn should be a valid"),
        ("seeds = [0]", "seeds = [0]\nseed = 1", "multiple values for keyword argument 'seed'"),
        ("seeds = [0]", "seeds = 3", "backbones.cnn.seeds should be a valid list"),
        ("seeds = [0]", "seeds = [-1]", "seed should be greater than or equal to 0"),
        ("seeds = [0]", f"seeds = [{2**70}]", "seed"),
        ("seeds = [0]", "seeds = [0]\nvariants = {}", "backbones.cnn.variants should be a valid list"),
        ("seeds = [0]", "seeds = [0]\nvariants = [{lam = 0.8}]", "the variant {'lam': 0.8} names no method"),
        ("seeds = [0]", "seeds = [0]\nscale_cls = 0.0", "scale_cls should be greater than 0"),
        ("seeds = [0]", "seeds = [0]\nweight_decay = -1.0", "weight_decay should be greater than or equal to 0"),
        ("seeds = [0]", "seeds = [0]\nalpha = 5.0", "alpha should be less than or equal to 1"),
        ('["icbhi:sc", "sprsound"]', '"icbhi"', "corpora should be a valid list"),
    ]:
        with pytest.raises(ConfigError, match=message):
            load(good.replace(old, new)).rows()
    with pytest.raises(ConfigError, match=r"unknown corpus 'icbih': choose from .*did you mean 'icbhi'"):
        load(good.replace("icbhi:sc", "icbih")).recorded  # noqa: B018


def test_a_column_of_the_recordings_for_every_event():
    corpus = load_corpus("synthetic-icbhi")
    device = corpus.of_events("device")
    assert device.index.equals(corpus.events.index)
    assert all(f"_{name}#" in event for name, event in zip(device, corpus.events["event_id"], strict=True))
