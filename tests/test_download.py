"""Downloads against a server on this machine that drops, lies, refuses and redirects. No outside network is used."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from typer.testing import CliRunner

from qlung import backbones, load_corpus, paths
from qlung.book import cli
from qlung.corpora import fetch, find, registry, sources, synthetic, verify
from qlung.errors import ConfigError, QlungError, WeightsError

BODY = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
HALF = len(BODY) // 2


class Handler(BaseHTTPRequestHandler):
    """Each first part of a path is one way to behave; ``server.seen`` keeps (path, Range) of every request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, code, body=b"", length=None, **headers):
        self.send_response(code)
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def do_GET(self):
        how, wanted = self.path.split("/")[1], self.headers.get("Range")
        before = [seen for seen in self.server.seen if seen[0] == self.path]
        self.server.seen.append((self.path, wanted))
        body = self.server.files.get(self.path, BODY)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if how.isdigit() and not (how == "503" and before):
            return self.answer(int(how), b"no")
        if how == "redirect":
            return self.answer(302, Location="/plain/x")
        if how == "loop":
            return self.answer(302, Location=self.path)
        if how == "wrong":
            return self.answer(200, b"x" * len(body))
        if how == "endless":
            return self.answer(200, body * 8)
        if how == "nonsense":
            return self.answer(200, body, "many")
        if how == "misplaced" and wanted:
            return self.answer(206, body[:10], Content_Range=f"bytes 0-9/{len(body)}")
        if how == "ignores_range" or not wanted:
            if how == "changed" and not before:  # the owners replaced the file between two tries
                return self.answer(200, b"x" * HALF, len(body))
            if how in ("drop", "misplaced", "refuses") and not before:
                return self.answer(200, body[:HALF], len(body))
            if how == "ignores_range" and len(before) < 2:
                return self.answer(200, body[:HALF], len(body))
            if how == "short":  # a clean end after half of it
                return self.answer(200, body[:HALF])
            return self.answer(200, body)
        if how == "refuses" or start >= len(body):
            return self.answer(416, Content_Range=f"bytes */{len(body)}")
        rest = body[start:]
        if how == "drop" and len(before) < 4:
            return self.answer(206, rest[: len(rest) // 2], len(rest),
                               Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")  # fmt: skip
        return self.answer(206, rest, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE_S", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.seen, httpd.files, httpd.url = [], {}, f"http://127.0.0.1:{httpd.server_port}"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


def row(*urls, **changes):
    return {"name": "file.bin", "urls": list(urls), "sha256": SHA256, "bytes": len(BODY), "max_bytes": 400_000,
            "checksum_from": "this test"} | changes  # fmt: skip


RECOVERED = ("plain", "drop", "changed", "misplaced", "refuses", "ignores_range", "redirect", "503", "nonsense")


@pytest.mark.parametrize("how", RECOVERED)
def test_a_download_recovers_from(how, server, tmp_path):
    fetch.receive(row(f"{server.url}/{how}/x"), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_dropped_connection_is_continued_where_it_stopped(server, tmp_path):
    fetch.receive(row(f"{server.url}/drop/x"), tmp_path / "part")
    asked = [int((wanted or "bytes=0-")[6:-1]) for _, wanted in server.seen]
    assert len(asked) == 5
    for start, after in zip(asked, [0, HALF, HALF * 3 // 2, HALF * 7 // 4, HALF * 15 // 8], strict=True):
        assert 0 <= after - start < 5 * fetch.BLOCK  # of each try, only its last block may be lost


@pytest.mark.parametrize(
    ("how", "why", "requests"),
    [
        ("404", "status 404", 5),
        ("416", "status 416", 5),
        ("500", "status 500", 5),
        ("wrong", "has sha256", 1),
        ("endless", "is larger than 400000 bytes", 1),
        ("short", "has bytes 150000, expected 300000", 1),
        ("loop", "redirects", 5 * 31),
    ],
)
def test_a_download_that_fails_says_why_and_leaves_no_wrong_file(how, why, requests, server, tmp_path):
    with pytest.raises(fetch.DownloadError, match=why):
        fetch.receive(row(f"{server.url}/{how}/x"), tmp_path / "part")
    assert len(server.seen) == requests
    assert not (tmp_path / "part").exists()


def test_the_next_address_is_tried(server, tmp_path):
    urls = [f"{server.url}/{how}/x" for how in ("403", "wrong", "500", "plain")]
    fetch.receive(row("http://127.0.0.1:1/closed", *urls), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY


def test_leftovers_of_another_file_are_replaced(server, tmp_path):
    (tmp_path / "part").write_bytes(b"y" * 1000)
    fetch.receive(row(f"{server.url}/plain/x"), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY


@pytest.fixture
def corpus_entry(server, tmp_path, monkeypatch):
    """Registered as "icbhi": a small corpus behind the server, with an md5 that is wrong and unconfirmed."""
    made = synthetic.write(tmp_path / "made", patients=12, events=2) / "icbhi"
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as bundle:
        for path in sorted((made / "ICBHI_final_database").iterdir()):
            bundle.write(path, f"ICBHI_final_database/{path.name}")
    server.files["/drop/c.zip"] = (tmp_path / "c.zip").read_bytes()
    server.files["/plain/official_split.txt"] = (made / "official_split.txt").read_bytes()
    common = {"confirmed": False, "md5": "0" * 32, "max_bytes": 10**8, "checksum_from": "nobody"}
    entry = {
        "expect": verify.counts(load_corpus("icbhi", made)),
        "files": [{"name": "c.zip", "urls": [f"{server.url}/drop/c.zip"], "unpack": True, **common},
                  {"name": "official_split.txt", "urls": [f"{server.url}/plain/official_split.txt"], **common}],
    }  # fmt: skip
    monkeypatch.setitem(registry.SOURCES, "icbhi", dataclasses.replace(find("icbhi"), about=entry))
    return entry


def test_a_corpus_is_fetched_once_and_both_checks_are_reported(corpus_entry, server, tmp_path):
    lines = []
    at = fetch.fetch("icbhi", tmp_path / "data", log=lines.append)
    assert "checksum DIFFERS" in lines[0]
    assert "content check agrees: 12 recordings" in lines[-1]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["icbhi"]
    assert len(load_corpus("icbhi", at).recordings) == 12
    requests = len(server.seen)
    fetch.fetch("icbhi", tmp_path / "data", log=lines.append)
    assert len(server.seen) == requests
    assert "nothing to do" in lines[-1]


def test_events_left_out_count_as_published(synthetic_root, tmp_path, monkeypatch):
    root = shutil.copytree(synthetic_root, tmp_path / "data")
    about = {"expect": verify.counts(load_corpus("icbhi", root))}
    monkeypatch.setitem(registry.SOURCES, "icbhi", dataclasses.replace(find("icbhi"), about=about))
    assert verify.examine("icbhi", root)["verdict"] == "complete"
    annotation = sorted((root / "icbhi" / "ICBHI_final_database").glob("*.txt"))[0]
    rows = annotation.read_text().splitlines()
    annotation.write_text("\n".join([*rows[:-1], "500\t501\t0\t0"]))
    found = verify.examine("icbhi", root)
    assert found["verdict"] == "complete"
    assert found["remarks"] == [[annotation.stem, found["remarks"][0][1], "event left out"]]
    annotation.write_text("\n".join(rows[:-1]))
    assert verify.examine("icbhi", root)["verdict"] == "different"
    annotation.unlink()
    assert verify.examine("icbhi", root)["verdict"] == "damaged"


def test_a_corpus_of_the_users_own_archive(corpus_entry, tmp_path):
    corpus_entry["files"][0]["urls"] = []
    at = fetch.fetch("icbhi", tmp_path / "data", tmp_path / "c.zip", log=lambda line: None)
    assert at.is_dir()


def test_content_that_is_not_the_corpus_is_not_published(corpus_entry, tmp_path):
    corpus_entry["expect"]["train"] = [1, 2, 3, 4]
    with pytest.raises(fetch.DownloadError, match=r"content check finds it different: train: .* has \[1, 2, 3, 4\]"):
        fetch.fetch("icbhi", tmp_path / "data", log=lambda line: None)
    assert not (tmp_path / "data" / "icbhi").exists()


def test_a_folder_that_is_there_is_never_touched(corpus_entry, server, tmp_path):
    folder = tmp_path / "data" / "icbhi"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("x")
    with pytest.raises(fetch.DownloadError, match="Move it away"):
        fetch.fetch("icbhi", tmp_path / "data")
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert not server.seen


def test_one_fetch_at_a_time(corpus_entry, tmp_path):
    lock = tmp_path / "data" / ".icbhi.fetch" / "lock"
    with paths.lock(lock), pytest.raises(QlungError, match=r"another process works on .*icbhi\.fetch"):
        fetch.fetch("icbhi", tmp_path / "data")


def test_a_folder_that_cannot_be_written_is_named(corpus_entry, tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"data"):
        fetch.fetch("icbhi", tmp_path / "data")


def register_weights(monkeypatch, url, sha256=SHA256):
    monkeypatch.setattr(fetch, "registry", lambda: {"weights": {"files": [row(url, name="w.pt", sha256=sha256)]}})


def test_weights_are_fetched_once(server, tmp_path, monkeypatch):
    register_weights(monkeypatch, f"{server.url}/drop/w")
    lines = []
    for _ in range(2):
        at = fetch.fetch("weights", tmp_path, log=lines.append)
    assert at.read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
    assert "agrees" in lines[0]
    assert "nothing to do" in lines[1]


def test_other_weights_are_refused(server, tmp_path, monkeypatch):
    register_weights(monkeypatch, f"{server.url}/plain/w", "f" * 64)
    with pytest.raises(fetch.DownloadError, match=f"has sha256 {SHA256}, expected {'f' * 64}"):
        fetch.fetch("weights", tmp_path)
    assert not list(tmp_path.glob("*.pt"))
    (tmp_path / "w.pt").write_bytes(b"changed")
    monkeypatch.setenv("QLUNG_WEIGHTS", str(tmp_path / "w.pt"))
    with pytest.raises(WeightsError, match="delete it and fetch it again"):
        backbones.mn04_weights()


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, body, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            bundle.writestr(info, body, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/passwd", "x", 0)],
        [("../outside.txt", "x", 0)],
        [("a/../../outside.txt", "x", 0)],
        [("a\\..\\outside.txt", "x", 0)],
        [("C:/x.txt", "x", 0)],
        [("", "x", 0)],
        [(".", "x", 0)],
        [("link", "/etc/passwd", stat.S_IFLNK | 0o777)],
        [("pipe", "", stat.S_IFIFO | 0o600)],
    ],
)
def test_an_unsafe_archive_leads_nowhere_else(members, tmp_path):
    archive = zip_of(tmp_path / "a.zip", *members)
    with contextlib.suppress(OSError, fetch.DownloadError):
        fetch.unpack(archive, tmp_path / "in")
    assert not any(path.is_symlink() or path.is_fifo() for path in tmp_path.rglob("*"))
    assert {path.name for path in tmp_path.iterdir()} <= {"a.zip", "in"}


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("a.txt", "y" * 2000, 0))
    with pytest.raises(fetch.DownloadError, match="refused"):
        fetch.unpack(archive, tmp_path / "in", max_bytes=1000)
    assert not (tmp_path / "in").exists()


def test_a_damaged_archive_is_named(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("a.txt", BODY, 0))
    content = bytearray(archive.read_bytes())
    content[1000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(fetch.DownloadError, match="damaged"):
        fetch.unpack(archive, tmp_path / "in")


def test_the_registry_is_whole():
    entries = fetch.registry()
    assert set(entries) == {"weights", *sources()}
    for entry in entries.values():
        assert all(entry[key] for key in ("title", "terms", "consent", "citation", "home"))
        for file in entry.get("files", []):
            assert file["checksum_from"]
            assert file["max_bytes"] > 0
            assert all(url.startswith("https://") for url in file["urls"])
    weights = entries["weights"]["files"][0]
    assert (weights["name"], weights["sha256"]) == (backbones.MN04_FILE, backbones.MN04_SHA256)
    assert sum(entries["icbhi"]["expect"]["train"] + entries["icbhi"]["expect"]["test"]) == 6898
    with pytest.raises(ConfigError, match=r"choose from icbhi, .*did you mean 'icbhi'"):
        fetch.fetch("icbi")
    with pytest.raises(ConfigError, match="no files are registered"):
        fetch.fetch("synthetic-icbhi")


def test_verify_and_status_on_the_command_line(synthetic_root, real_root, monkeypatch):
    run = CliRunner().invoke
    answer = run(cli.app, ["data", "verify", str(real_root), "--json"])
    found = {one["corpus"]: one for one in json.loads(answer.stdout)}
    assert answer.exit_code == 1
    assert (found["icbhi"]["verdict"], len(found["icbhi"]["missing"])) == ("partial", 725)
    assert found["sprsound"]["verdict"] == "complete"
    assert run(cli.app, ["data", "verify", str(real_root / "sprsound")]).exit_code == 0
    assert run(cli.app, ["data", "verify", str(synthetic_root)]).exit_code == 1
    monkeypatch.setenv("QLUNG_DATA", str(real_root))
    answer = run(cli.app, ["data", "status"])
    assert answer.exit_code == 0
    assert "recordings" in answer.stdout
    assert run(cli.app, ["data", "prune", "--days", "0"]).exit_code == 0


def test_a_damaged_archive_is_not_kept_to_be_continued(corpus_entry, server, tmp_path):
    content = bytearray(server.files["/drop/c.zip"])
    content[5000] ^= 255
    good, server.files["/drop/c.zip"] = server.files["/drop/c.zip"], bytes(content)
    with pytest.raises(fetch.DownloadError, match="damaged"):
        fetch.fetch("icbhi", tmp_path / "data", log=lambda line: None)
    assert not list((tmp_path / "data").rglob("*.part"))
    server.files["/drop/c.zip"] = good
    assert fetch.fetch("icbhi", tmp_path / "data", log=lambda line: None).is_dir()
