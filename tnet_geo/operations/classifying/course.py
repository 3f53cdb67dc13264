"""One run of `classify` over a cluster: what is begun, what becomes of what breaks, when it stops."""

# mypy: disable-error-code="no-untyped-call"
# Much of distributed carries no types.

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from distributed import Client, KilledWorker

from tnet_geo.errors import ClusterLost, Stopped
from tnet_geo.operations.classifying.partitions import Partition
from tnet_geo.operations.classifying.rescue import rescue_partition
from tnet_geo.operations.classifying.tasks import Job, classify_partition
from tnet_geo.operations.cluster import Task, outcome, run_graph, threads_of
from tnet_geo.operations.forecasting.forecast import Cost
from tnet_geo.operations.stopping import Stop

__all__ = ["Course"]

RESCUES = 5
"""Rescues of one partition that may end with the death of their worker, which no site is to blame for."""


class Course:
    """Partitions on their way through a cluster."""

    def __init__(self, job: Job, client: Client, partitions: Sequence[Partition], begun: float) -> None:
        """`begun`: what `time.monotonic` said when the call began, from which on a deadline counts."""
        self.hands = threads_of(client)
        self._job, self._client, self._partitions = job, client, partitions
        self._begun = begun
        self._sites_left = sum(len(part.sites) for part in partitions)
        self._cost = Cost()
        self._lost: Stopped | None = None

    def run(self, stop: Stop) -> Cost:
        """Have all partitions answered and published, or those in hand once `stop` is asked for.

        Raises:
            PlaceLost, ClusterLost: as soon as all that is in hand has ended.
        """
        begun = time.monotonic()
        run_graph(
            self._client,
            self._tasks(),
            ahead=0,  # what waits in a worker could not be held back
            stopped=lambda: stop.asked or self._lost is not None,
        )
        if self._lost is not None:
            raise self._lost
        return replace(self._cost, seconds=time.monotonic() - begun)

    def _tasks(self) -> Iterator[Task]:
        for part in self._partitions:
            arguments = self._job, part, self._seconds(part)
            self._sites_left -= len(part.sites)
            yield Task(classify_partition, arguments, partial(self._answered, part))

    def _seconds(self, part: Partition) -> float | None:
        """Its share of what is left of the deadline: that of its sites, for as many workers as there are."""
        deadline = self._job.budget.deadline
        if deadline is None:
            return None
        left = max(0.0, deadline - (time.monotonic() - self._begun))
        share = len(part.sites) * self.hands / max(self._sites_left, 1)
        return left * min(1.0, share)

    def _answered(self, part: Partition, future: Any) -> list[Task]:
        result = outcome(future)
        if isinstance(result, Cost):
            self._cost += result
        elif isinstance(result, Stopped):
            self._lost = self._lost or result
        else:
            return [self._rescue(part, isolated=isinstance(result, KilledWorker), tries=RESCUES)]
        return []

    def _rescue(self, part: Partition, *, isolated: bool, tries: int) -> Task:
        call = partial(rescue_partition, isolated=isolated)
        return Task(call, (self._job, part, self._seconds(part)), partial(self._rescued, part, tries))

    def _rescued(self, part: Partition, tries: int, future: Any) -> list[Task]:
        result = outcome(future)
        if isinstance(result, KilledWorker) and tries > 1:
            return [self._rescue(part, isolated=True, tries=tries - 1)]
        if isinstance(result, Cost):
            self._cost += result
        elif isinstance(result, Stopped):
            self._lost = self._lost or result
        else:
            cause = " ".join(f"{type(result).__name__}: {result}".split())[:300]
            self._lost = self._lost or ClusterLost("A worker", cause)
        return []
