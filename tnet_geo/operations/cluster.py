"""Dask clusters: started and stopped by the command, or reached by address; and tasks over them."""

# mypy: disable-error-code="no-untyped-call"
# Much of distributed carries no types.

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, as_completed

from tnet_geo.errors import UsageError

__all__ = ["cluster", "run_tasks", "threads_of"]

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
}


@contextmanager
def cluster(workers: int | None, scheduler: str | None) -> Iterator[Client]:
    """A client of the cluster at `scheduler`, or of a local one that lives as long as the block.

    The local one has `workers` processes of one thread each, by default one for every core that this
    process may use.

    Raises:
        UsageError: nothing answers at `scheduler`.
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
        return Client(scheduler, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"No Dask scheduler answers at {scheduler} ({error}): check the address.") from error


def threads_of(client: Client) -> int:
    """How many tasks the cluster works on at once; 1 while its workers are still to come."""
    return sum(client.nthreads().values()) or 1


def run_tasks(
    client: Client,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    on_done: Callable[[Item, Result | Exception], None],
) -> None:
    """Call `function` on every item in the cluster, and `on_done` here with each result as it comes.

    A task that fails, or whose worker dies again and again, gives its exception instead of a result;
    the others go on. Few tasks are under way at a time, so that neither items nor results pile up.
    """
    waiting = iter(items)
    at_hand = {}
    done = as_completed(loop=client.loop)

    def submit(count: int) -> None:
        for item in islice(waiting, count):
            future = client.submit(function, item, pure=False)
            at_hand[future] = item
            done.add(future)

    submit(2 * threads_of(client) + 2)
    for future in done:
        item = at_hand.pop(future)
        failure = future.exception()
        on_done(item, future.result() if failure is None else failure)
        future.release()
        submit(1)
