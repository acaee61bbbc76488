"""Workers of a sweep as jobs of Slurm, through dask-jobqueue."""

import contextlib
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import Field

from .. import paths
from ..errors import ConfigError
from ..training.config import STRICT, Count, Settings

AGAIN_S = 30  # between two looks at which jobs are gone


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Jobs(Settings):
    """What the table [slurm] of a TOML file asks for: so many jobs, each a worker that trains one run at a time.

    ``time``, ``memory``, ``partition`` and ``account`` are Slurm's, ``cores`` and ``gpus`` are of one job, ``options``
    are further lines for sbatch, and ``interface`` is the network through which the jobs reach this machine ("ib0").
    """

    jobs: Count
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")]
    memory: Annotated[str, Field(pattern=r"^\d+ ?[KMGT]i?B$")]
    partition: str = ""
    account: str = ""
    cores: Count = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    options: list[str] = Field(default_factory=list)
    interface: str = ""


def load(table: str) -> Jobs:
    """Read the table [slurm] of a TOML file."""
    try:
        return Jobs(**tomllib.loads(Path(table).expanduser().read_text(encoding="utf-8"))["slurm"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"'{table}' has no table [slurm]: {error!r}") from error
    except ConfigError as error:
        raise ConfigError(f"{table}: {error}") from error


def cluster(asked: Jobs, logs: Path):
    """A SLURMCluster that has no job yet; ``logs`` gets what the jobs print. Slurm alone watches their memory."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ConfigError("--slurm needs dask-jobqueue: pip install dask-jobqueue") from error
    return SLURMCluster(
        queue=asked.partition or None, account=asked.account or None, walltime=asked.time, memory=asked.memory,
        cores=1, processes=1, job_cpu=asked.cores, python=shlex.quote(sys.executable), log_directory=str(logs),
        job_extra_directives=[f"--gres=gpu:{asked.gpus}"] * bool(asked.gpus) + asked.options,
        job_script_prologue=[f"export OMP_NUM_THREADS={asked.cores}"],
        worker_extra_args=["--memory-limit", "0"] + ["--resources", f"GPU={asked.gpus}"] * bool(asked.gpus),
        interface=asked.interface or None, scheduler_options={"port": 0, "dashboard_address": "127.0.0.1:0"},
    )  # fmt: skip


@contextlib.contextmanager
def submitted(table: str, tasks: int, logs: Path) -> Iterator:
    """A cluster whose jobs are submitted, no more than ``tasks``; those that end early are replaced."""
    asked = load(table)
    if not shutil.which("sbatch"):
        raise ConfigError("there is no sbatch here: run this where jobs are submitted")
    with paths.lock(logs / ".lock", timeout=0), cluster(asked, logs) as found:

        def submit() -> None:  # and again, for jobs that were cancelled or ran out of time
            if found.status.name == "running":
                found.scale(jobs=min(asked.jobs, tasks))
                found.loop.call_later(AGAIN_S, submit)

        found.loop.add_callback(submit)
        yield found
