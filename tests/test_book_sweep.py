"""A sweep of short rows: killed workers, killed drivers, failing rows, one GPU at a time, wrong tables."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from distributed import LocalCluster

from qlung import paths
from qlung.book import sweep
from qlung.errors import ConfigError
from qlung.training import profiles

ROWS = 12
ROW = """
import os, time
from pathlib import Path
def note(what):
    with open(log, "a") as file:
        file.write(f"{what} {Path(folder).name} {os.getppid()} {os.getpid()} {time.time()}\\n")
note("start")
assert Path(folder).name != "3", "row 3 always fails"
if not (Path(folder) / "run.json").is_file():  # as fit does: killed after this file, a row repeats its notebook only
    for _ in range(20):
        time.sleep(seconds / 20)
    (Path(folder) / "run.json").write_text("{}")
    note("end")
"""


def prepare(home: Path, rows: int, seconds: float) -> None:
    """Put a stand-in for notebook 04 and its rows in the place of the real ones."""
    paths.NOTEBOOKS = home
    os.environ["QLUNG_RUNS"] = str(home / "runs")
    given = {"log": str(home / "log"), "seconds": seconds}
    folders = [home / "runs" / str(n) for n in range(rows)]
    sweep.plan = lambda *_: [(f"row {path.name}", path, given | {"folder": str(path)}) for path in folders]
    cell = 'folder: str = ""\nlog: str = ""\nseconds: float = 1.0'
    cells = [nbformat.v4.new_code_cell(cell, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(ROW)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), home / "04_train.ipynb")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", None)
    monkeypatch.setattr(sweep, "plan", None)
    monkeypatch.setenv("QLUNG_RUNS", "")
    return tmp_path


def drive(home: str) -> None:
    prepare(Path(home), ROWS, seconds=1.5)
    print(sweep.sweep("demo", jobs=2).to_json())


def start(home: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, __file__, str(home)], stdout=subprocess.PIPE, text=True)


def wait_for(home: Path, what: str, count: int, driver: subprocess.Popen) -> list[list[str]]:
    """Lines of the log once ``count`` of them begin with ``what``."""
    for _ in range(12_000):
        lines = wait_for_all(home) if (home / "log").is_file() else []
        found = [line for line in lines if line[0] == what]
        if len(found) >= count:
            return found
        assert driver.poll() is None, f"the sweep ended before {count} x {what}"
        time.sleep(0.05)
    raise AssertionError(f"no {count} x {what} within ten minutes")


def test_a_killed_worker_and_a_killed_driver_lose_nothing_and_repeat_nothing(home):
    driver = start(home)
    worker = int(wait_for(home, "start", 2, driver)[-1][2])  # the parent of the row's kernel
    os.kill(worker, signal.SIGKILL)
    ended = len(wait_for(home, "end", 2, driver))
    driver.kill()
    driver.wait()
    assert ended < ROWS - 1
    for what, _, worker, kernel, _ in wait_for_all(home):
        wait_until_gone(int(kernel))  # it polls for its parent: within a second on a machine that isn't busy
        if what == "start":  # it writes the notebook after its row's end; a kernel that outlived it names another one
            wait_until_gone(int(worker))
    done = {path.parent.name for path in (home / "runs").glob("*/train.ipynb")}
    driver = start(home)
    out, _ = driver.communicate(timeout=1200)
    rows = pd.DataFrame(json.loads(out.splitlines()[-1])).set_index("run")
    assert rows["what"].value_counts().to_dict() == {"ran": ROWS - 1 - len(done), "reused": len(done), "failed": 1}
    assert "row 3 always fails" in rows.loc["row 3", "error"]
    assert "row 3 always fails" in (home / "runs" / "3" / "error.txt").read_text()
    assert (home / "runs" / "3" / "train.failed.ipynb").is_file()
    ends = pd.Series([line[1] for line in wait_for_all(home) if line[0] == "end"]).value_counts()
    assert ends.to_dict() == {str(n): 1 for n in range(ROWS) if n != 3}
    assert all((home / "runs" / str(n) / "train.ipynb").is_file() for n in range(ROWS) if n != 3)
    assert pd.read_csv(home / "runs" / "demo" / "sweep.csv")["what"].tolist() == rows["what"].tolist()


def wait_until_gone(process: int) -> None:
    """Return when a process has ended or only waits to be buried."""
    for _ in range(12_000):
        try:
            status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(") ")[2]
        except (FileNotFoundError, ProcessLookupError):
            return
        if status.startswith("Z"):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} still runs ten minutes after its driver was killed")


def wait_for_all(home: Path) -> list[list[str]]:
    return [line.split() for line in (home / "log").read_text(encoding="utf-8").splitlines()]


def test_rows_on_another_scheduler_take_a_gpu_each(home):
    prepare(home, rows=2, seconds=1.0)
    with LocalCluster(n_workers=1, threads_per_worker=2, resources={"GPU": 1}, dashboard_address="127.0.0.1:0",
                      host="127.0.0.1") as cluster:  # fmt: skip
        rows = sweep.sweep("demo", scheduler=cluster.scheduler_address)
    assert rows["what"].tolist() == ["ran", "ran"]
    assert [line[0] for line in wait_for_all(home)] == ["start", "end", "start", "end"]


def test_two_clusters_at_once_start_without_a_warning():
    code = """if True:
        from qlung.book import engine
        if __name__ == "__main__":
            with engine.connect(1) as one, engine.connect(1) as two:
                assert one.submit(int, "3").result() == two.submit(int, "3").result() == 3
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


GOOD = """[profiles.demo]
corpora = ["synthetic-icbhi", "synthetic-sprsound"]
[profiles.demo.backbones.cnn]
methods = ["ce", "qlung"]
seeds = [0, 1]
epochs = 1
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("epochs = 1", "epoch = 1", "backbone cnn, 'ce': unknown setting 'epoch'"),
     ("epochs = 1", 'epochs = "1"', "epochs should be a valid integer"),
     ("[0, 1]", '["0"]', "seeds.0 should be a valid integer"),
     ('"qlung"', '"qlun"', "unknown method 'qlun'"), ("seeds = [0, 1]", "", "seeds: Field required"),
     ("profiles", "profile", "is no table of profiles"), ("corpora =", "corpus =", "unknown setting 'corpus'")],
)  # fmt: skip
def test_a_wrong_table_stops_before_anything_starts(old, new, message, synthetic_root, tmp_path):
    table = tmp_path / "rows.toml"
    table.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(message)):
        sweep.plan("demo", table=str(table))


def test_rows_can_be_chosen():
    row = profiles.load_profile("demo")
    assert [c.name for c in row.configs("cnn", "ce", 2)] == ["cnn-ce seed 2"]
    with pytest.raises(ConfigError, match="has no run with backbone='mn04'"):
        row.configs("mn04")


if __name__ == "__main__":
    drive(sys.argv[1])
