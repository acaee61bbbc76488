"""A sweep on Slurm: its table, its job script, and a cluster of two nodes that this test starts and stops itself."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from test_book_sweep import prepare, wait_for, wait_for_all

from qlung.book import cli, slurm, sweep
from qlung.errors import ConfigError

TABLE = """[slurm]
jobs = 2
time = "00:10:00"
memory = "1GB"
partition = "short"
"""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
CONF = """
ClusterName=qlung
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={home}/munge.sock
StateSaveLocation={home}
SlurmdSpoolDir={home}/%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000
PartitionName=short Nodes=ALL Default=YES State=UP
"""


@pytest.fixture
def table(tmp_path):
    (tmp_path / "cluster.toml").write_text(TABLE, encoding="utf-8")
    return tmp_path / "cluster.toml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("partition", "partion", "unknown setting 'partion': .*did you mean 'partition'"),
        ("jobs = 2", "jobs = 0", "jobs should be greater than or equal to 1, it is 0"),
        ('"00:10:00"', '"ten minutes"', "time: String should match pattern"),
        ('"1GB"', "1", "memory should be a valid string, it is 1"),
        ("[slurm]", "[slurn]", r"has no table \[slurm\]"),
    ],
)
def test_mistakes_in_the_table_are_named(old, new, message, table):
    table.write_text(TABLE.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        slurm.load(str(table))


def test_the_job_script_is_printed(table, capsys, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    more = 'account = "lab"\ncores = 4\ngpus = 1\noptions = ["--constraint=a100"]\n'
    table.write_text(TABLE + more, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["qlung", "sweep", "--slurm", str(table), "--dry-run"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    for asked in ("-p short", "-A lab", "-t 00:10:00", "--cpus-per-task=4", "--gres=gpu:1", "--constraint=a100"):
        assert f"#SBATCH {asked}" in lines
    assert "export OMP_NUM_THREADS=4" in lines
    assert any(line.startswith(sys.executable) and "--memory-limit 0 --resources GPU=1" in line for line in lines)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def shell(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def wait_for_jobs(wanted) -> list[str]:
    """Numbers of the jobs once there are such as are wanted."""
    for _ in range(1200):
        if wanted(jobs := shell("squeue", "--noheader", "--format=%i").split()):
            return jobs
        time.sleep(0.1)
    raise AssertionError(f"after two minutes: {shell('squeue')}")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A controller and two nodes of one core each, on this machine."""
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"no {', '.join(missing)} here (Debian's slurm-wlm and munge)")
    home = tmp_path / "slurm"
    home.mkdir()
    (home / "key").write_bytes(os.urandom(128))
    (home / "key").chmod(0o400)
    conf = CONF.format(home=home, host=socket.gethostname(), user=getpass.getuser(), ports=free_ports(3))
    (home / "slurm.conf").write_text(conf, encoding="utf-8")
    monkeypatch.setenv("SLURM_CONF", str(home / "slurm.conf"))
    names = {"socket": "munge.sock", "key-file": "key", "log-file": "munged.log", "pid-file": "munged.pid"}
    shell("munged", "--force", f"--seed-file={home}/seed", *(f"--{key}={home / name}" for key, name in names.items()))
    shell("slurmctld")
    for node in ("n1", "n2"):
        shell("slurmd", "-N", node)
    yield
    shell("scancel", "--user", getpass.getuser())
    wait_for_jobs(lambda jobs: not jobs)
    for path in home.glob("*.pid"):
        os.kill(int(path.read_text(encoding="utf-8")), signal.SIGTERM)


ROWS = 6


def drive(home: str) -> None:
    prepare(Path(home), ROWS, seconds=2.0)
    slurm.AGAIN_S = 1
    print(sweep.sweep("demo", cluster=str(Path(home, "cluster.toml"))).to_json())


@pytest.fixture
def start(cluster, table, monkeypatch):
    """Starts the command that holds the queue of runs; none outlives the test."""
    monkeypatch.setenv("QLUNG_RUNS", str(table.parent / "runs"))
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "1s")
    drivers, words = [], [sys.executable, __file__, str(table.parent)]

    def one() -> subprocess.Popen:
        drivers.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        return drivers[-1]

    yield one
    for driver in drivers:
        driver.kill()


def test_a_cancelled_job_and_a_killed_driver_lose_nothing(start, table):
    home = table.parent
    driver = start()
    wait_for(home, "start", 1, driver)
    cancelled, _ = wait_for_jobs(lambda jobs: len(jobs) == 2)
    shell("scancel", cancelled)
    wait_for_jobs(lambda jobs: len(jobs) == 2 and cancelled not in jobs)
    wait_for(home, "end", 1, driver)
    driver.kill()
    out, _ = start().communicate(timeout=300)
    rows = pd.DataFrame(json.loads(out.splitlines()[-1]))
    failed = rows["what"] == "failed"
    assert rows.loc[failed, "run"].tolist() == ["row 3"]  # which always fails
    assert set(rows.loc[~failed, "what"]) <= {"ran", "reused"}
    ends = [line[1] for line in wait_for_all(home) if line[0] == "end"]
    assert sorted(ends) == [str(n) for n in range(ROWS) if n != 3]
    wait_for_jobs(lambda jobs: not jobs)


if __name__ == "__main__":
    drive(sys.argv[1])
