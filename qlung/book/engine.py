"""Tasks in processes through Dask: on this machine, one per core or GPU, or on a cluster that already runs."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

import torch
from distributed import Client, Future, KilledWorker, LocalCluster, WorkerPlugin, as_completed, get_worker
from distributed.system import MEMORY_LIMIT

from ..errors import ConfigError, QlungError

TASK_BYTES = 2 * 10**9  # a process with torch, its notebook's kernel and a demo model


class OneGPU(WorkerPlugin):
    """Every worker sees one GPU: the one of its number."""

    def __init__(self, gpus: int):
        self.gpus = gpus

    def setup(self, worker):
        os.environ["CUDA_VISIBLE_DEVICES"] = str(int(worker.name) % self.gpus)


def usable_jobs() -> int:
    """How many tasks run at once here: one per core that this process may use, fewer where memory is short."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores, MEMORY_LIMIT // TASK_BYTES))


@contextlib.contextmanager
def connect(scheduler: str = "", jobs: int = 0, tasks: int | None = None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of ``jobs`` processes here.

    By default there is one process per GPU, else there are `usable_jobs`, and no more than ``tasks``. Without a GPU
    each computes with one thread (or OMP_NUM_THREADS): a run's bits don't depend on how many run at once.
    """
    if scheduler:
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at '{scheduler}' ({error}). Start one with `dask scheduler`."
            ) from error
        with client:
            client.wait_for_workers(1)
            yield client
        return
    gpus = torch.cuda.device_count()
    jobs = jobs or min(gpus or usable_jobs(), tasks or sys.maxsize)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, os.cpu_count() // jobs) if gpus else 1)
    here = {"n_workers": jobs, "threads_per_worker": 1, "memory_limit": 0, "host": "127.0.0.1", "scheduler_port": 0,
            "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL, "env": {"OMP_NUM_THREADS": threads},
            "resources": {"GPU": 1} if gpus else None}  # fmt: skip
    try:
        with LocalCluster(**here) as cluster, Client(cluster) as client:
            if gpus:
                client.register_plugin(OneGPU(gpus))
            yield client
    except KeyboardInterrupt:
        raise QlungError("stopped. What is finished stays; the same command goes on from there.") from None


def needs(client: Client) -> dict | None:
    """What a task asks of a worker: a GPU where any worker offers one."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers) else None


def report(share: float, line: str) -> None:
    """Pass a task's progress (share done, 0 to 1, and a line) on to whoever waits for it."""
    worker = get_worker()
    worker.log_event("progress", (worker.get_current_task(), share, line))


def as_they_end(client: Client, futures: dict[Future, str], progress) -> Iterator[tuple[str, Future]]:
    """(name, future) of every task once it has ended, while ``progress(share of all, line)`` is kept informed."""
    shares = dict.fromkeys((future.key for future in futures), 0.0)

    def note(key: str, share: float, line: str) -> None:
        if key in shares:
            shares[key] = max(shares[key], share)
            progress(sum(shares.values()) / len(shares), line)

    client.subscribe_topic("progress", lambda event: note(*event[1]))
    for future in as_completed(list(futures)):
        note(future.key, 1.0, f"{futures[future]} {'stopped' if future.exception() else 'done'}")
        yield futures[future], future


def result(name: str, future: Future):
    """What a task returned; its own error, or one that says that its process died."""
    try:
        return future.result()
    except KilledWorker as error:
        raise QlungError(
            f"{name}: its process died {error.allowed_failures + 1} times, often because memory ran out. Close other "
            "programs, or allow one task at a time with `taskset -c 0`; the same command goes on from here."
        ) from error
