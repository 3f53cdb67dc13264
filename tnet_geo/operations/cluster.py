"""Dask clusters: started and stopped by the command, or reached by address; and tasks over them."""

# mypy: disable-error-code="no-untyped-call"
# Much of distributed carries no types.

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, as_completed

from tnet_geo.errors import UsageError

__all__ = ["Task", "cluster", "memory_of", "outcome", "run_graph", "run_tasks", "threads_of"]

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # threads that spin at barriers starve each other on shared cores
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MALLOC_ARENA_MAX": "2",
}

# Spilling covers only what Dask itself holds, which is little: our buffers are bounded by us.
SETTINGS = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,  # tasks are planned to fit; memory once taken stays resident
}


@contextmanager
def cluster(workers: int | None, scheduler: str | None, memory_bytes: int | None = None) -> Iterator[Client]:
    """A client of the cluster at `scheduler`, or of a local one that lives as long as the block.

    The local one has `workers` processes of one thread each, by default one for every core that this
    process may use; each may take `memory_bytes`, by default its share of what this machine has.

    Raises:
        UsageError: nothing answers at `scheduler`, or its workers run other versions of what they share.
    """
    if scheduler is not None:
        with _connected(scheduler) as client:
            yield client
        return
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=workers or CPU_COUNT,
            threads_per_worker=1,
            memory_limit=memory_bytes or "auto",
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            env=WORKER_ENVIRONMENT,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


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


def run_graph(client: Client, tasks: Iterable[Task]) -> None:
    """Run tasks, and those that follow from them, which come first.

    A task that fails, or whose worker dies again and again, ends with an exception in its future; the
    others go on. Few tasks are under way at a time, so that neither arguments nor results pile up.
    """
    waiting, following = iter(tasks), deque[Task]()
    at_hand: dict[Any, Task] = {}
    done = as_completed(loop=client.loop)
    limit = 2 * threads_of(client) + 2

    def fill() -> None:
        while len(at_hand) < limit:
            task = following.popleft() if following else next(waiting, None)
            if task is None:
                return
            future = client.submit(task.function, *task.arguments, pure=False)
            at_hand[future] = task
            done.add(future)

    fill()
    for future in done:
        following.extend(at_hand.pop(future).on_done(future) or ())
        fill()


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
    failure = future.exception()
    return future.result() if failure is None else failure
