"""Cached arrays: found again, rebuilt when damaged, shared by processes, written in parts, pruned."""

import dataclasses
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qlung import audio, cache, load_corpus, quality
from qlung.audio import frontends
from qlung.corpora import synthetic, wav
from qlung.quality import aqs, indicators, learned

KEY = {"a": 1}


class Build:
    """Counts its calls."""

    def __init__(self, rows=50):
        self.times, self.rows = 0, rows

    def __call__(self):
        self.times += 1
        return [np.arange(3.0 * self.rows).reshape(self.rows, 3)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("QLUNG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def the_file(home, pattern="*/*.npy"):
    (path,) = home.glob(pattern)
    return path


def test_an_array_is_built_once_and_mapped(home):
    build = Build()
    first, second = (cache.cached_array("kind", KEY, build, 50) for _ in range(2))
    assert build.times == 1
    assert isinstance(second, np.memmap)
    assert np.array_equal(first, build()[0])
    cache.cached_array("kind", {"a": 2}, build, 50)
    assert build.times == 3


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def flip_and_reset_the_time(path):
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGE = {
    "one bit": flip,
    "one bit, with its old time": flip_and_reset_the_time,
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 9),
    "empty": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "not an array": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "cut to less than a checksum": lambda path: os.truncate(path, 5),
    "a part of it twice": lambda path: path.write_bytes(path.read_bytes()[:-32] * 2),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_and_repaired(damage, home):
    build = Build()
    cache.cached_array("kind", KEY, build, 50)
    path = the_file(home)
    cache.cached_array("kind", KEY, build, 50)  # this process has checked it
    time.sleep(0.02)  # a tick of the file system's clock
    damage(path)
    assert np.array_equal(cache.cached_array("kind", KEY, build, 50), Build()()[0])
    assert build.times == 2


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_new_process_finds_damage_whatever_the_times_of_the_file_are(damage, home, monkeypatch):
    build = Build()
    cache.cached_array("kind", KEY, build, 50)
    damage(the_file(home))
    cache._checksum_holds.cache_clear()  # as a new process has it
    monkeypatch.setattr(cache, "_stamp", lambda path: [path.stat().st_size * 0])
    assert np.array_equal(cache.cached_array("kind", KEY, build, 50), Build()()[0])
    assert build.times == 2


def test_a_process_reads_an_array_in_full_once(home, monkeypatch):
    build = Build()
    for _ in range(2):
        cache.cached_array("kind", KEY, build, 50)
    monkeypatch.setattr(cache.np, "memmap", lambda *args: pytest.fail("read in full"))
    assert cache._is_whole(the_file(home))
    assert build.times == 1


def test_parts_make_the_same_array_and_must_add_up(home):
    whole = Build()()[0]
    parts = cache.cached_array("kind", KEY, lambda: iter([whole[:20], whole[20:]]), rows=50)
    assert np.array_equal(parts, whole)
    with pytest.raises(cache.CacheError, match="50 rows was filled with 20"):
        cache.cached_array("kind", {"a": 3}, lambda: iter([whole[:20]]), rows=50)
    assert len(list(home.glob("kind/*.npy"))) == 1
    assert not list(home.glob("kind/.*"))


def test_a_failed_build_leaves_nothing(home):
    def parts():
        yield np.zeros((2, 2))
        raise KeyError("stop")

    with pytest.raises(KeyError):
        cache.cached_array("kind", KEY, parts, rows=4)
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QLUNG_CACHE", str(tmp_path / "file"))
    with pytest.raises(cache.CacheError, match="set QLUNG_CACHE"):
        cache.cached_array("kind", KEY, Build(), 50)
    assert load_corpus("icbhi", synthetic.write(tmp_path / "data", patients=8, events=1)).recordings.shape[0] == 8


def build_slowly(start, wait, queue):
    def parts():
        for i in range(20):
            time.sleep(0.01)
            yield np.full((5, 1000), i)

    wait.wait()
    queue.put(float(cache.cached_array("kind", KEY, parts, rows=100).sum()))


def test_processes_may_race(home):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(4), context.Queue()
    processes = [context.Process(target=build_slowly, args=(0, barrier, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    assert {queue.get(timeout=60) for _ in processes} == {5 * 1000 * sum(range(20))}
    for process in processes:
        process.join()
    assert len(list(home.glob("kind/*"))) == 1


def test_size_is_reported_and_old_arrays_are_pruned(home):
    cache.cached_array("kind", KEY, Build(), 50)
    cache.cached_array("kind", {"a": 2}, Build(5000), 5000)
    assert cache.usage().set_index("kind").loc["kind", "files"] == 2
    assert cache.usage().set_index("kind").loc["kind", "MB"] > 0.1
    old = max(home.glob("kind/*.npy"), key=lambda path: path.stat().st_size)
    os.utime(old, (0, 0))
    (home / "kind" / ".x.1.part.npy").write_bytes(b"being written")
    assert cache.prune(30) > 100_000
    assert not old.exists()
    assert len(list(home.glob("kind/[!.]*.npy"))) == 1
    cache.prune(0)
    assert [path.name for path in home.glob("kind/*")] == [".x.1.part.npy"]
    os.utime(home / "kind" / ".x.1.part.npy", (0, 0))
    cache.prune(0)
    assert not list(home.glob("kind/*"))


def test_facts_about_files_change_with_their_content(home, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(100) / 2, 4000)
    first = wav.examine_all(tmp_path, [path])[path]
    assert wav.examine_all(tmp_path, [path])[path] == first
    time.sleep(0.02)
    flip_and_reset_the_time(path)
    assert wav.examine_all(tmp_path, [path])[path]["sha256"] != first["sha256"]


def test_the_fingerprint_and_the_features_change_with_the_audio(home, tmp_path):
    root = synthetic.write(tmp_path / "data", patients=8, events=1)
    before = load_corpus("icbhi", root)
    one = frontends.extract(before, frontends.FrontEnd("ast", 16000))
    path = before.recordings["path"].iat[0]
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[::-1], rate, subtype="PCM_16")
    after = load_corpus("icbhi", root)
    assert after.events.equals(before.events)
    assert after.fingerprint() != before.fingerprint()
    other = frontends.extract(after, frontends.FrontEnd("ast", 16000))
    first = (before.events["recording_id"] == before.recordings["recording_id"].iat[0]).to_numpy()
    assert np.array_equal(one[~first], other[~first])
    assert not np.array_equal(one[first], other[first])


def test_features_are_in_the_order_of_the_events_even_when_recordings_alternate(home, synthetic_root):
    corpus = load_corpus("icbhi", synthetic_root).select("test")
    mixed = dataclasses.replace(corpus, events=corpus.events.sample(frac=1, random_state=0))
    front_end = frontends.FrontEnd("ast", 16000)
    order = mixed.events.index.to_numpy()
    assert np.array_equal(frontends.extract(mixed, front_end), frontends.extract(corpus, front_end)[order])
    ids = [event_id for event_id, _ in audio.cut_clips(mixed, 16000)]
    assert ids == mixed.events["event_id"].tolist()


CACHES = {
    "AQS": (lambda corpus: quality.measure(corpus), ("audio/frontends.py", "audio/clips.py", "quality/aqs.py")),
    "levelled embedding": (
        lambda corpus: frontends.extract(corpus, learned.LevelledEmbedding("mn04_levelled", 32000)),
        ("audio/frontends.py", "backbones.py", "quality/learned.py"),
    ),
    "indicators": (lambda corpus: indicators.measure(corpus), ("audio/clips.py", "quality/indicators.py")),
    "severity": (lambda corpus: indicators.severity_table(corpus), ("audio/degrade.py", "quality/indicators.py")),
    "features": (lambda corpus: frontends.extract(corpus, frontends.FrontEnd("ast", 16000)), ("audio/frontends.py",)),
}


@pytest.mark.parametrize(("compute", "files"), CACHES.values(), ids=CACHES)
def test_a_cached_array_is_computed_again_when_a_file_it_depends_on_changes(
    compute, files, synthetic_root, monkeypatch, tmp_path
):
    """Every file in a room that an array goes through is in its key; no array outlives the code that made it."""
    corpus, keys = load_corpus("icbhi", synthetic_root), []

    class Stop(Exception):
        pass

    def stop(kind, key, build, rows):
        keys.append(key)
        raise Stop

    shutil.copytree(Path(cache.__file__).parent, tmp_path / "qlung")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "qlung" / "cache.py"))
    for module in (aqs, indicators, frontends):
        monkeypatch.setattr(module, "cached_array", stop)
    for file in ("", *files):
        if file:
            (tmp_path / "qlung" / file).write_text((tmp_path / "qlung" / file).read_text(encoding="utf-8") + "\n")
        with pytest.raises(Stop):
            compute(corpus)
    assert len({str(key) for key in keys}) == 1 + len(files)
