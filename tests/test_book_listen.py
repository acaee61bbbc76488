"""Recordings of one's own: the same numbers as the library's, whatever the file; bad files cost only themselves."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from qlung import evaluation, load_corpus, paths, quality
from qlung.book import cli, listen, results
from qlung.corpora import CLASSES, kauh
from qlung.errors import AudioError, ConfigError, TrainingError
from qlung.training import fit, predict, profiles

RUNNER = CliRunner()
PROFILE = """
[profiles.demo]
corpora = ["synthetic-icbhi"]
[profiles.demo.backbones.cnn]
methods = ["qlung"]
seeds = [0]
epochs = 1
batch_size = 32
lr = 1e-3
pad = "{pad}"
band_hz = {band_hz}
"""


@pytest.fixture(scope="module")
def train_network(synthetic_root, tmp_path_factory):
    """``train_network(pad, band_hz)``: the network of a short run of a profile with these settings."""

    def train(pad: str = "repeat", band_hz: float = 0.0) -> listen.Network:
        home = tmp_path_factory.mktemp("listen")
        (home / "experiments.toml").write_text(PROFILE.format(pad=pad, band_hz=band_hz))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "EXPERIMENTS", home / "experiments.toml")
            patch.setattr(listen, "COMMITTED", home / "none")
            patch.setenv("QLUNG_RUNS", str(home / "runs"))
            with pytest.raises(TrainingError, match=r"no finished run cnn-qlung seed 0: `make reproduce` first$"):
                listen.load()
            corpus, tests = profiles.parts("demo")[0]
            fit(profiles.load_profile("demo").configs()[0], corpus, tests, "demo")
            return listen.load()

    return train


@pytest.fixture(scope="module")
def network(train_network):
    return train_network()


@pytest.fixture(scope="module")
def limited(train_network):
    return train_network("silence", 1500.0)


def sound(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    noise = 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), 1))
    swell = np.sin(np.arange(len(noise)) / rate)[:, None] ** 2
    return np.repeat(noise * swell, channels, 1).astype("float32")


def hear(path, network, cycles=()):
    return listen.listen(path.name, path, network, list(cycles))


class Deaf:
    """A network that only counts windows."""

    clips = pd.DataFrame({"sample_rate": [1000], "H": [0.5], "R": [-20.0], "AQS": [0.5]})
    least = 0.0

    def answer(self, block, rate, start, end):
        assert round(end * rate) <= len(block)
        return {}


SECONDS = [0.01, 0.5, 7.999, 8, 8.001, 11.999, 12, 12.5, 13, 13.001, 15.999, 16, 16.9, 17, 17.001, 60, 61.5]


@pytest.mark.parametrize("seconds", SECONDS)
def test_windows_are_those_of_the_rule(seconds, tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(seconds, 1000), 1000)
    found = [(row["start_s"], row["end_s"]) for row in hear(tmp_path / "x.wav", Deaf())["windows"]]
    np.testing.assert_allclose(found, kauh.windows(seconds))


@pytest.mark.parametrize("kind", ["network", "limited"])
@pytest.mark.parametrize(("seconds", "rate"), [(3.3, 4000), (21.0, 44100), (12.4, 11025), (40.0, 16000)])
def test_numbers_are_those_of_the_library(seconds, rate, kind, request, tmp_path):
    """Read in blocks, a recording gives the windows, H, R and probabilities of KAUH's loader and `predict`."""
    network = request.getfixturevalue(kind)
    folder = tmp_path / "kauh" / "Audio Files"
    folder.mkdir(parents=True)
    path = folder / "BP1_Asthma,E W,P L L,40,F.wav"
    soundfile.write(path, sound(seconds, rate), rate)
    corpus, one = load_corpus("kauh", tmp_path), hear(path, network)
    assert len(one["windows"]) == len(corpus.events)
    expected = predict(network.model, corpus)[["p0", "p1", "p2", "p3"]].to_numpy()[0]
    np.testing.assert_allclose(list(one["p"].values()), expected, atol=2e-4)
    windows = listen.table(one)
    np.testing.assert_allclose(windows[["H", "R"]], quality.measure(corpus), atol=1e-3)
    np.testing.assert_allclose(windows["AQS"], network.scorer.score(*quality.measure(corpus).T), atol=1e-4)
    by_hand = sum(np.array([row[f"P {name}"] for name in CLASSES]) for row in one["windows"]) / len(one["windows"])
    np.testing.assert_allclose(list(one["p"].values()), by_hand)
    assert one["answer"] == CLASSES[by_hand.argmax()]


def test_margins_ranks_and_neighbours_are_right(network, tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(9, 4000), 4000)
    row = hear(tmp_path / "x.wav", network)["windows"][0]
    margins = 0.5 * 0.5 * row["AQS"] + 0.5 * network.margin(torch.arange(4), 0.0).numpy() / 0.5
    np.testing.assert_allclose([row[f"margin {name}"] for name in CLASSES], margins, rtol=1e-5)
    assert row["R rank"] == np.mean(network.clips["R"] < row["R"])
    assert row["cosine"] == sorted(row["cosine"], reverse=True)
    assert set(row["nearest"]) <= set(network.clips["event_id"])


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "wav"])
def test_stereo_of_any_format_is_heard_as_mono(suffix, network, tmp_path):
    soundfile.write(tmp_path / f"x.{suffix}", sound(12, 44100, channels=2), 44100)
    soundfile.write(tmp_path / "mono.wav", sound(12, 44100), 44100)
    one, mono = hear(tmp_path / f"x.{suffix}", network), hear(tmp_path / "mono.wav", network)
    assert "2 channels, averaged" in one["remarks"]
    np.testing.assert_allclose(list(one["p"].values()), list(mono["p"].values()), atol=0.2 if suffix == "ogg" else 0.1)


def test_reading_asks_for_a_block_at_most_and_for_every_sample_once(network, tmp_path, monkeypatch):
    rate, asked, read = 4000, [], soundfile.SoundFile.read
    soundfile.write(tmp_path / "long.wav", sound(600, rate), rate)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, n, **how: asked.append(n) or read(self, n, **how))
    assert len(hear(tmp_path / "long.wav", network)["windows"]) == 149
    assert max(asked) == 13 * rate
    assert sum(asked) <= 604 * rate


def test_silence_has_no_aqs_and_no_answer(network, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(40000), 4000)
    soundfile.write(tmp_path / "half.wav", np.concatenate([sound(7, 4000)[:, 0], np.zeros(36000)]), 4000)
    silent, half = hear(tmp_path / "silent.wav", network), hear(tmp_path / "half.wav", network)
    assert (silent["answer"], silent["p"], silent["nearest"]) == (None, {}, {})
    assert silent["windows"] == [{"start_s": 0.0, "end_s": 8.0}]
    assert "1 of 1 windows are silent: no AQS can be computed, and no answer is given" in silent["remarks"]
    assert [len(row) > 2 for row in half["windows"]] == [True, True, False]
    assert half["p"]["both"] == pytest.approx(np.mean([row["P both"] for row in half["windows"][:2]]))
    shown = RUNNER.invoke(cli.app, ["listen", str(tmp_path / "silent.wav"), "--network", str(network.folder)])
    assert shown.exit_code == 0
    assert "none: silent" in shown.output
    assert "nan" not in shown.output.lower()


BAD = {
    "video.wav": (b"\0\0\0\x18ftypmp42" + bytes(500), "is an MP4 or QuickTime file"),
    "video.mp3": (b"\x1aE\xdf\xa3" + bytes(500), "is a Matroska or WebM file"),
    "film.wav": (b"RIFF\0\0\0\0AVI LIST", "is an AVI video"),
    "page.flac": (b"\n<html>not found</html>", "is a web page"),
    "empty.wav": (b"", "cannot be read"),
    "letters.ogg": (b"letters", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_is_named_in_one_line(name, network, tmp_path):
    (tmp_path / name).write_bytes(BAD[name][0])
    with pytest.raises(AudioError, match=rf"'{name}' {BAD[name][1]}[^\n]*: expected WAV, FLAC, OGG or MP3$"):
        hear(tmp_path / name, network)


def test_short_wide_and_damaged_files(network, tmp_path):
    soundfile.write(tmp_path / "none.wav", sound(0, 4000), 4000)
    soundfile.write(tmp_path / "wide.wav", sound(1, 4000, channels=9), 4000)
    soundfile.write(tmp_path / "cut.mp3", sound(40, 16000), 16000)
    (tmp_path / "cut.mp3").write_bytes((tmp_path / "cut.mp3").read_bytes()[:100_000])
    broken = np.clip(30 * sound(5, 4000), -1, 1)
    broken[:7] = np.nan
    soundfile.write(tmp_path / "broken.wav", broken, 4000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"'none\.wav' holds 0 samples at 4000 Hz: expected 10 ms or more"):
        hear(tmp_path / "none.wav", network)
    with pytest.raises(AudioError, match=r"'wide\.wav' has 4000 Hz and 9 channels"):
        hear(tmp_path / "wide.wav", network)
    with pytest.raises(AudioError, match=r"'x\.wav' is not there"):
        hear(tmp_path / "x.wav", network)
    cut = hear(tmp_path / "cut.mp3", network)  # and not with old samples in the place of those that are missing
    assert cut["duration_s"] < 39
    assert re.match(r"cut short: its header states 640000 samples, \d+ are there", cut["remarks"][0])
    remarks = "\n".join(hear(tmp_path / "broken.wav", network)["remarks"])
    assert "7 samples are not finite: set to 0" in remarks
    assert re.search(r"\d+% of the samples are at full scale", remarks)


def test_what_is_unlike_the_training_recordings_is_said(network, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", 1e-4 * sound(9, 44100), 44100)
    remarks = hear(tmp_path / "quiet.wav", network)["remarks"]
    assert remarks[0] == "recorded at 44100 Hz, unlike the training recordings (4000 Hz)"
    assert any(re.match(r"1 of 1 windows have R outside of the training clips' .* dBFS", text) for text in remarks)
    new = load_corpus("synthetic").select("train").recordings["recording_id"].iloc[0]
    ((_, path, cycles),) = listen.find([f"synthetic:{new}"])
    one = hear(path, network, cycles)
    assert one["remarks"] == []
    assert len(one["cycles"]) == len(load_corpus("synthetic").events.query("recording_id == @new"))
    with pytest.raises(ConfigError, match="synthetic has no usable recording 'x' here; it has 101_"):
        listen.find(["synthetic:x"])


def test_json_is_strict_and_bad_files_cost_only_themselves(network, tmp_path, capfd):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.wav", "deep/b.flac", "._c.wav"):
        soundfile.write(tmp_path / "in" / name, sound(9, 4000), 4000, format="FLAC" if "flac" in name else "WAV")
    soundfile.write(tmp_path / "in" / "silent.wav", np.zeros(4000), 4000)
    (tmp_path / "in" / "video.wav").write_bytes(BAD["video.wav"][0])
    (tmp_path / "in" / "notes.txt").write_text("no recording")
    out = tmp_path / "out.json"
    words = ["listen", str(tmp_path / "in"), "--network", str(network.folder), "--json", str(out)]
    done = RUNNER.invoke(cli.app, words)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "'is an MP4" not in done.stderr
    assert "is an MP4 or QuickTime file: expected WAV, FLAC, OGG or MP3" in done.stderr
    found = json.loads(out.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert "says nothing about a patient" in found["network"]
    names = [one["name"].rpartition("/")[2] for one in found["recordings"]]
    assert names == ["a.wav", "b.flac", "silent.wav", "video.wav"]
    first, _, silent, bad = found["recordings"]
    assert set(first) == set(silent) == {"name", "sample_rate", "duration_s", "windows", "cycles", "answer", "p",
                                         "nearest", "remarks"}  # fmt: skip
    assert set(first["windows"][0]) == set(listen.COLUMNS)
    assert set(bad) == {"name", "error"}
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"holds no recording: expected \.wav, \.flac, \.ogg, \.mp3"):
        RUNNER.invoke(cli.app, [*words[:1], str(empty), *words[2:]], catch_exceptions=False)


def test_a_page_asks_nothing_from_elsewhere_and_has_ten_players_at_most(network, tmp_path, monkeypatch):
    (tmp_path / "many").mkdir()
    for n in range(11):
        soundfile.write(tmp_path / "many" / f"{n:02d}.wav", sound(1 + n / 10, 4000), 4000)
    (tmp_path / "<b>.wav").write_bytes(BAD["video.wav"][0])
    monkeypatch.chdir(tmp_path)
    words = ["listen", "many", "<b>.wav", "--network", str(network.folder), "--html", "page.html"]
    assert RUNNER.invoke(cli.app, words).exit_code == 1
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["<b>.wav", "many", "page.html"]
    assert page.count("<audio") == 10
    assert all(source.startswith("data:") for source in re.findall(r'\bsrc="([^"]*)', page))
    assert not re.search(r"<(script|link|iframe)|https?://|url\(", page)
    assert "default-src 'none'" in page
    assert page.count("<img") == page.count('alt="W') == 20
    assert "says nothing about a patient" in page
    assert "many/10.wav" in page
    assert "video" not in page.partition("<b>.wav")[0]
    assert "is an MP4 or QuickTime file" in page
    assert "In [" not in page


def test_a_network_in_a_folder_needs_no_data(network, tmp_path, monkeypatch):
    """What a finished run's folder holds is enough: its network can be committed."""
    for name in ("run.json", "model.safetensors", "clips.parquet"):
        shutil.copy(network.folder / name, tmp_path)
    soundfile.write(tmp_path / "x.wav", sound(9, 4000), 4000)
    monkeypatch.setattr(profiles, "parts", lambda *_: pytest.fail("opens corpora"))
    assert hear(tmp_path / "x.wav", listen.load(folder=str(tmp_path))) == hear(tmp_path / "x.wav", network)
    monkeypatch.setattr(listen, "COMMITTED", tmp_path)
    assert listen.load().folder == tmp_path
    (tmp_path / "clips.parquet").unlink()
    with pytest.raises(ConfigError, match="holds no network: FileNotFoundError"):
        listen.load(folder=str(tmp_path))


def test_a_network_of_real_recordings_says_of_whom_and_on_what_terms(network, tmp_path):
    for name in ("run.json", "model.safetensors"):
        shutil.copy(network.folder / name, tmp_path)
    clips = pd.read_parquet(network.folder / "clips.parquet")
    clips.assign(corpus="icbhi").to_parquet(tmp_path / "clips.parquet")
    about = listen.Network(tmp_path).about
    assert f"trained on {clips['patient_id'].nunique()} patients of icbhi (freely available for research" in about
    assert about.endswith("Not a medical device: nothing about a patient may be decided with it.")


def test_the_committed_network_answers_without_data_and_its_card_is_true(tmp_path):
    home = listen.COMMITTED
    assert sum(path.stat().st_size for path in home.iterdir()) < 5e6
    network = listen.load()
    assert network.folder == home
    assert not network.clips["event_id"].str.contains("_").any()  # no name of a recording
    assert "Not a medical device" in network.about
    soundfile.write(tmp_path / "x.wav", sound(9, 4000), 4000)
    assert sum(hear(tmp_path / "x.wav", network)["p"].values()) == pytest.approx(1, abs=1e-4)
    record = json.loads((home / "run.json").read_text(encoding="utf-8"))
    kept = results.evidence("sc")
    (run,) = (one["run"] for one in results.records("sc") if one["config"] == record["config"])
    own = kept[kept["run"] == run]
    scores = evaluation.score_table(own, ["corpus"]).round(2).set_index("corpus")
    card = (home / "README.md").read_text(encoding="utf-8")
    for corpus, row in scores.iterrows():
        line = next(line for line in card.splitlines() if line.startswith(f"| {corpus} | all |"))
        assert f"| {row['n']:.0f} | {row['Sp']:.2f} | {row['Se']:.2f} | {row['Score']:.2f} |" in line
