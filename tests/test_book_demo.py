"""The demo book from nothing: it runs, its committed outputs are those of a run, and README's commands work on it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qlung import paths
from qlung.corpora import synthetic


@pytest.fixture(scope="module")
def demo_book(tmp_path_factory):
    """The environment in which the demo book was run from nothing, as `make reproduce` does it."""
    home = tmp_path_factory.mktemp("book")
    env = os.environ | {f"QLUNG_{kind}": str(home / kind.lower()) for kind in ("RUNS", "CACHE")}
    command = [sys.executable, "-c", "from qlung.book.cli import main; main()", "reproduce"]
    env |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return env


def test_committed_outputs_are_those_of_a_run(demo_book, tmp_path):
    """nbval runs every notebook a second time, on the runs that are there: the same outputs, the same files."""
    shutil.copytree(Path(demo_book["QLUNG_RUNS"]), tmp_path / "runs")
    env = {name: value for name, value in demo_book.items() if not name.startswith("PYTEST_")}
    env |= {"QLUNG_RUNS": str(tmp_path / "runs")}
    for path in (tmp_path / "runs" / "demo").glob("figures/*"):
        path.unlink()
    books = [str(path) for path in [*paths.NOTEBOOKS.glob("*.ipynb"), *paths.NOTEBOOKS.glob("exercises/*.ipynb")]]
    flags = ["-o", "addopts=", "-n", "2", "--dist", "loadfile", "--nbval", "--nbval-current-env",
             "--nbval-cell-timeout=900", "--nbval-kernel-startup-timeout=300"]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "pytest", *flags, *books], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100
    first, second = (
        {path.name: path.read_bytes() for path in (home / "demo" / "figures").iterdir()}
        for home in (Path(demo_book["QLUNG_RUNS"]), tmp_path / "runs")
    )
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert {".png", ".svg", ".csv"} <= {Path(name).suffix for name in first}


BATCH = (paths.ROOT / "README.md").read_text(encoding="utf-8").partition("## In batch\n")[2].partition("\n## ")[0]
ELSEWHERE = (" fetch ", " sweep ", " --rest", " --retrain")  # they have tests of their own
LINES = [line for line in re.findall(r"^    (.+)$", BATCH, re.M) if not any(word in line for word in ELSEWHERE)]


@pytest.mark.parametrize("line", LINES)
def test_the_readmes_commands_run(line, demo_book, tmp_path):
    """As they stand, but on the demo profile."""
    env = demo_book
    words = shlex.split(line, comments=True)
    folder = words.index("--data") if "--data" in words else None
    if folder:
        del words[folder : folder + 2]
    words = ["demo" if word == "sc" else word for word in words]
    if "papermill" in words[0]:
        words = [str(tmp_path / word) if word == "out.ipynb" else word for word in words[: words.index("data") - 1]]
    if "DIR" in words:
        words[words.index("DIR")] = str(Path(env["QLUNG_CACHE"]) / f"synthetic-{synthetic.VERSION}")
    words[0] = str(Path(sys.executable).with_name(Path(words[0]).name))
    done = subprocess.run(words, cwd=paths.ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == int("verify" in words), done.stdout + done.stderr  # the synthetic corpora are partial
