"""Tasks in processes through Dask: on this machine, one per core or GPU, or on a cluster that already runs."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, WorkerPlugin, as_completed, get_worker
from distributed.system import MEMORY_LIMIT

from .. import paths
from ..errors import ConfigError, QlungError

TASK_BYTES = 2 * 10**9  # a process with torch, its notebook's kernel and a demo model
# Dask asks for freed memory to go back to the system at once. Training then spends as long on getting it again as on
# computing: keep it.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**30}


class OneGPU(WorkerPlugin):
    """Every worker sees one GPU: of those that this process may use (CUDA_VISIBLE_DEVICES), the one of its number."""

    def __init__(self, gpus: int):
        self.names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        self.names = self.names if self.names != [""] else [str(n) for n in range(gpus)]

    def setup(self, worker):
        os.environ["CUDA_VISIBLE_DEVICES"] = self.names[int(worker.name) % len(self.names)]


@contextlib.contextmanager
def connect(tasks: int, scheduler="", jobs: int = 0) -> Iterator[Client]:
    """A client of a cluster or a scheduler's address, or of ``jobs`` processes here, given one task each at a time.

    By default there is one process per GPU, else one per usable core (fewer where memory is short), and no more than
    ``tasks``. Without a GPU each computes with one thread (or OMP_NUM_THREADS): a run's bits don't depend on how many
    run at once.
    """
    if scheduler:
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise ConfigError(f"no scheduler answers at '{scheduler}' ({error}): start `dask scheduler`.") from error
        with client:
            client.wait_for_workers(1)
            yield client
        return
    if jobs < 0:
        raise ConfigError(f"jobs={jobs}: give the number of processes, or 0 for one per GPU or core")
    gpus, cores = torch.cuda.device_count(), paths.cores()
    jobs = jobs or min(tasks, gpus or max(1, min(cores, MEMORY_LIMIT // TASK_BYTES)))
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // jobs) if gpus else 1))
    with dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP_MEMORY}), LocalCluster(
        n_workers=jobs, threads_per_worker=1, memory_limit=0, env={"OMP_NUM_THREADS": threads}, host="127.0.0.1",
        scheduler_port=0, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
    ) as cluster, Client(cluster) as client:  # fmt: skip
        if gpus:
            client.register_plugin(OneGPU(gpus))
        yield client


def run(client: Client, tasks: dict[str, Callable], progress) -> Iterator[tuple[str, Future]]:
    """Call every task in a worker, and yield its name and future once it has ended.

    Parameters
    ----------
    tasks : dict of str to callable
        By a name that is unique on the scheduler: two who run a task of the same name share it. If a worker offers the
        resource GPU, every task takes one.
    progress : callable
        Receives the share of all tasks done, 0 to 1, and a line.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    resources = {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers) else None
    shares = dict.fromkeys(tasks, 0.0)

    def note(name: str, share: float, line: str) -> None:
        if name in shares:
            shares[name] = max(shares[name], share)
            progress(sum(shares.values()) / len(shares), line)

    client.subscribe_topic("progress", lambda event: note(*event[1]))
    futures = [client.submit(task, key=name, resources=resources) for name, task in tasks.items()]
    for future in as_completed(futures):
        note(future.key, 1.0, f"{future.key} {'stopped' if future.exception() else 'done'}")
        yield future.key, future


def report(share: float, line: str) -> None:
    """Pass a task's progress (share done, 0 to 1, and a line) on to whoever waits for it."""
    get_worker().log_event("progress", (get_worker().get_current_task(), share, line))


def result(name: str, future: Future):
    """What a task returned; its own error, or one that says that its process died."""
    try:
        return future.result()
    except KilledWorker as error:
        raise QlungError(
            f"{name}: its process died {error.allowed_failures + 1} times, often because memory ran out. Close other "
            "programs, or allow one task at a time with `taskset -c 0`; the same command goes on from here."
        ) from error
