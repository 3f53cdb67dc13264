"""Walks over some sites for a few seconds, as `classify` walks them: how fast they go, what they take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tnet_geo.errors import TnetGeoError
from tnet_geo.imagery import Site
from tnet_geo.operations.classifying.tasks import Job, loaded
from tnet_geo.operations.forecasting.forecast import NOTHING_READ, Cost, MeteredArchive, cost_of
from tnet_geo.pyramid import ReadCount

__all__ = ["Walked", "load", "walk_some"]

GROWTH = 4
"""How many times as many sites are walked together as before, while there is time for more."""
LEAP = 16
"""Of what has been timed the rest of the time may be so many times as much; else it is timed again."""


@dataclass(frozen=True, slots=True)
class Walked:
    """What became of the first sites of a list."""

    each: tuple[Cost, ...] = ()
    """What their walks took, in their order; nothing where a site was set aside."""
    refused: int = 0
    """Those that were set aside."""
    read: ReadCount = NOTHING_READ
    """What all of them took of the network."""
    tiles: int = 0
    seconds: float = 0.0
    """Looks, and wall time, of the largest group that was walked together: how fast walks go."""


def load(job: Job) -> None:
    """In a worker: be ready to walk."""
    loaded(job)


def walk_some(job: Job, sites: Sequence[Site], seconds: float) -> Walked:
    """In a worker: walk as many of the sites, in their order, as the time lasts, all of them to the end.

    The first one only warms up what computes, and takes none of the time. Then come groups that grow from a
    few sites on, because the looks of few sites fill no batch; the first group is walked however long it
    takes. A group in which a site breaks its walk, which `classify` would set aside, is the last and does
    not count.

    Raises:
        TnetGeoError: what ends a run of `classify`, too.
    """
    classifier, archive = loaded(job)
    metered = MeteredArchive(archive)
    each: list[Cost] = []
    best, tiles, took = 0, 0, 0.0
    begun, count = 0.0, 1
    while count and len(each) < len(sites):
        group = sites[len(each) : len(each) + count]
        before = time.perf_counter()
        try:
            costs = [cost_of([outcome]) for outcome in classifier.answer(metered, group)]
        except TnetGeoError:
            raise
        except Exception:  # noqa: BLE001 - a defect that one site meets says nothing of the others
            break
        now = time.perf_counter()
        looks = sum(cost.tiles for cost in costs)
        if len(group) >= best and looks:
            best, tiles, took = len(group), looks, now - before
        if each:
            fits = int(len(group) * (begun + seconds - now) / (now - before))
            count = max(fits, 0) if fits <= LEAP * len(group) else GROWTH * len(group)
        else:
            begun, count = now, GROWTH
        each += costs
    refused = sum(not cost.tiles for cost in each)
    return Walked(tuple(each), refused, metered.lap(), tiles, took)
