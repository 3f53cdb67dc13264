"""Dask clusters: started and stopped by the command, or reached by address; and tasks over them."""

# mypy: disable-error-code="no-untyped-call"
# Much of distributed carries no types.

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster, Worker, WorkerPlugin, as_completed

from tnet_geo.errors import ClusterLost, UsageError

__all__ = ["Task", "cluster", "memory_of", "outcome", "run_graph", "run_tasks", "threads_of"]

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # threads that spin at barriers starve each other on shared cores
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MALLOC_ARENA_MAX": "1",  # another one gives memory back after every pass: see `keep_freed_memory`
}

# Spilling covers only what Dask itself holds, which is little: our buffers are bounded by us.
SETTINGS = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,  # tasks are planned to fit; memory once taken stays resident
    # What it samples is kept for an hour: 0.2 MB a second in each worker, while memory is to stay the same.
    "distributed.worker.profile.enabled": False,
    # After that time a worker that died, and has not come back yet, is given up for good: on a busy machine
    # it takes longer than the 15 s of the default, and a cluster without workers waits for ever.
    "distributed.deploy.lost-worker-timeout": "1 hour",
}


RECONNECT_SECONDS = 60.0
"""How long a scheduler that went away may take to come back."""


class OwnWorker(WorkerPlugin):
    """Makes a worker process of ours take no SIGTERM, and see one device."""

    name = "tnet-geo"

    def __init__(self, devices: Sequence[str] = ()) -> None:
        self._devices = tuple(devices)

    def setup(self, worker: Worker) -> None:
        """In the worker's main thread, before its first task."""
        # Schedulers of jobs send SIGTERM to all processes; the command then waits for what is in hand.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self._devices:  # before CUDA is initialised: each worker has its own as cuda:0
            os.environ["CUDA_VISIBLE_DEVICES"] = self._devices[int(worker.name) % len(self._devices)]


@contextmanager
def cluster(
    workers: int | None,
    scheduler: str | None,
    memory_bytes: int | None = None,
    *,
    devices: Sequence[str] = (),
    tries: int = 4,
) -> Iterator[Client]:
    """A client of the cluster at `scheduler`, or of a local one that lives as long as the block.

    The local one has `workers` processes of one thread each, by default one for each of `devices` (as
    CUDA_VISIBLE_DEVICES has them) or else for every core that this process may use; each may take
    `memory_bytes`, by default its share of what this machine has. A task whose worker dies is tried
    `tries` times; a cluster that is there has its own number.

    Raises:
        UsageError: nothing answers at `scheduler`, or its workers run other versions of what they share.
        ClusterLost: workers of this machine do not start.
    """
    if scheduler is not None:
        with _connected(scheduler) as client:
            yield client
        return
    # Allocators and pools of threads read their variables once, when a process begins.
    early = dask.config.get("distributed.nanny.pre-spawn-environ") | WORKER_ENVIRONMENT
    own = {"distributed.scheduler.allowed-failures": tries - 1, "distributed.nanny.pre-spawn-environ": early}
    with (
        dask.config.set(SETTINGS | own),
        _local(workers or len(devices) or CPU_COUNT, memory_bytes) as local,
        Client(local, set_as_default=False) as client,
    ):
        client.register_plugin(OwnWorker(devices))
        yield client


def _local(workers: int, memory_bytes: int | None) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=memory_bytes or "auto",
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            env=WORKER_ENVIRONMENT,  # whatever this process has
        )
    except (RuntimeError, OSError) as error:  # one was killed, or there is no room for it
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ClusterLost("The cluster of this machine", f"its workers do not start: {cause}") from error


def _connected(scheduler: str) -> Client:
    try:
        client = Client(scheduler, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"No Dask scheduler answers at {scheduler} ({error}): check the address.") from error
    try:
        client.get_versions(check=True)
    except ValueError as error:
        client.close()
        raise UsageError(
            f"The cluster at {scheduler} cannot be used ({' '.join(str(error).split())}): "
            "install the same versions there as here."
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what is lost is told by our errors
    client._timeout = RECONNECT_SECONDS  # has no public name but that of the first connection
    return client


def memory_of(client: Client) -> int | None:
    """Bytes that the smallest worker may take for each of its threads; None where nothing is said."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [each["memory_limit"] // each["nthreads"] for each in workers if each["memory_limit"]]
    return min(limits, default=None)


def threads_of(client: Client) -> int:
    """How many tasks the cluster works on at once; 1 while its workers are still to come."""
    return sum(client.nthreads().values()) or 1


@dataclass(frozen=True)
class Task:
    """One call in the cluster, and what is to be done here when it has ended."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    """Futures among them are the results of other tasks, which go from worker to worker."""
    on_done: Callable[[Any], Iterable[Task] | None]
    """Called with the future, which may hold a result or an exception; gives tasks that follow from it."""


def run_graph(
    client: Client,
    tasks: Iterable[Task],
    *,
    ahead: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Run tasks, and those that follow from them, which come first.

    A task that fails, or whose worker dies again and again, ends with an exception in its future; the
    others go on. Few tasks are under way at a time, so that neither arguments nor results pile up:
    `ahead` more than there are threads, by default as many again. From when `stopped` says so none is begun.

    A scheduler that comes back after a while is given the tasks again that it had; those with futures
    among their arguments end with an exception.

    Raises:
        ClusterLost: the scheduler went away.
    """
    waiting, following = iter(tasks), deque[Task]()
    at_hand: dict[Any, Task] = {}
    done = as_completed(loop=client.loop)

    def fill() -> None:
        threads = _threads_once_there(client)
        limit = threads + (threads + 2 if ahead is None else ahead)
        while len(at_hand) < limit and not stopped():
            task = following.popleft() if following else next(waiting, None)
            if task is None:
                return
            future = client.submit(task.function, *task.arguments, pure=False)
            at_hand[future] = task
            done.add(future)

    fill()
    for future in done:
        task = at_hand.pop(future)
        if _is_lost(future) and not any(isinstance(part, Future) for part in task.arguments):
            following.appendleft(task)
        else:
            following.extend(task.on_done(future) or ())
        fill()


def _is_lost(future: Any) -> bool:
    """Whether the scheduler that had a task is gone, and its result with it."""
    return future.cancelled() or isinstance(outcome(future), CancelledError)


def _threads_once_there(client: Client) -> int:
    """See `threads_of`; the client may have to find its scheduler again first. Raises: ClusterLost."""
    while True:
        _await_scheduler(client)
        try:
            return threads_of(client)
        except OSError:
            time.sleep(0.1)


def _await_scheduler(client: Client) -> None:
    """Until the client has found its scheduler again. Raises: ClusterLost."""
    address = client.scheduler.address if client.scheduler is not None else "nowhere"
    while client.status == "connecting":
        time.sleep(0.1)
    if client.status != "running":
        gone = f"it went away and did not come back within {RECONNECT_SECONDS:.0f} s"
        raise ClusterLost(f"The Dask scheduler at {address}", gone)


def run_tasks(
    client: Client,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    on_done: Callable[[Item, Result | Exception], None],
) -> None:
    """Call `function` on every item in the cluster, and `on_done` here with each result as it comes.

    A task that fails gives its exception instead of a result; see `run_graph`.
    """

    def taken(item: Item) -> Callable[[Any], None]:
        return lambda future: on_done(item, outcome(future))

    run_graph(client, (Task(function, (item,), taken(item)) for item in items))


def outcome(future: Any) -> Any:
    """The result of a task that has ended, or its exception."""
    try:
        # A result may be gone with its worker; then the task runs again here, and may fail this time.
        return future.result()
    except Exception as error:  # noqa: BLE001 - for the caller to judge
        return error
