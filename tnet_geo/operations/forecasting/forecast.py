"""What a classification is going to cost, said before it begins and kept beside what it did cost."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import islice

import numpy as np
import torch
from dask.system import CPU_COUNT

from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.imagery.remote import is_remote
from tnet_geo.inference import Classifier, SiteTask, WalkResult
from tnet_geo.inference.budgets import Budget
from tnet_geo.model.counting import aggregation_macs, look_macs
from tnet_geo.model.network import TraversalNetwork
from tnet_geo.operations.around import ArchiveAround
from tnet_geo.operations.forecasting.survey import Survey, survey
from tnet_geo.pyramid import CogArchive, MemoryReader, ReadCount, SceneArchive, TileReader
from tnet_geo.pyramid.tiles import ReadMeter
from tnet_geo.trail import Answer, Failure

__all__ = [
    "Cost",
    "MeteredArchive",
    "beside",
    "cost_of",
    "expected_total",
    "forecast",
    "in_time",
    "look_seconds",
    "macs_of",
]

NOTHING_READ = ReadCount()
SWEEP_AT = 1024
"""Readers that a metered archive remembers before it looks which of them are gone."""
SURVEY_SECONDS = 1.0
"""What looking up sites may take before a run."""
MOST_FAR_COGS = 64
"""Of those the headers are read before a run: each takes requests, which its walk makes once more."""
MADE_UP = 8
"""Made-up sites that are walked together to time looks; twice as many each time."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What walks over some sites take, or took. Costs of different sites add up, but for `seconds`."""

    sites: int = 0
    """Those that are set aside too."""
    tiles: int = 0
    """Looks of the sites that have an answer."""
    decisions: int = 0
    """Of those, looks whose children were scored: all that are not native."""
    bytes_decoded: int = 0
    """Of the chunks that those tiles are made of, validity included."""
    bytes_fetched: int = 0
    """Over a network; 0 for local files."""
    requests: int = 0
    """Over a network; 0 for local files."""
    macs: int = 0
    """Multiply-accumulates."""
    seconds: float | None = None
    """Wall time of the walks with all workers, from the first task to the last; None: not known."""

    def __add__(self, other: Cost) -> Cost:
        """Of both; their seconds are left out, for nobody knows whether they passed at the same time."""
        names = [field.name for field in fields(self) if field.name != "seconds"]
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in names})


def forecast(
    classifier: Classifier,
    archive: SceneArchive,
    sites: Sequence[Site],
    *,
    workers: int = 1,
    look_seconds: float | None = None,
) -> Cost:
    """What `classifier` is going to spend on `sites` with so many workers, by arithmetic, in about a second.

    Headers of scenes are read, of many sites those of some that chance has drawn; no pixels are. What only
    pixels tell is left aside, see `expected_cost`. look_seconds: what one look takes here, as the function
    of that name says; None: nothing is said of time. A site that cannot be read makes no error here: the
    run itself sets it aside.
    """
    walk, budget = classifier.walk, classifier.budget
    most = MOST_FAR_COGS if isinstance(archive, CogArchive) and _is_far(archive) else None
    found = survey(archive, sites, classifier.half_px, walk, budget, seconds=SURVEY_SECONDS, most=most)
    cost = expected_total(found)
    if look_seconds is not None:
        hands = min(workers, CPU_COUNT) if classifier.engine.device.type == "cpu" else workers
        cost = in_time(replace(cost, seconds=cost.tiles * look_seconds / hands), budget)
    return replace(cost, macs=macs_of(classifier.bundle.network, cost))


def _is_far(archive: CogArchive) -> bool:
    return any(map(is_remote, islice(archive.sources.values(), 1)))


def expected_total(found: Survey) -> Cost:
    """What all sites take together by arithmetic, from those that were looked up; without time and macs."""
    return Cost(
        sites=found.sites,
        tiles=round(found.total([each.expected.tiles for each in found.known])),
        decisions=round(found.total([each.expected.decisions for each in found.known])),
        bytes_decoded=round(found.total([each.expected.bytes_decoded for each in found.known])),
        bytes_fetched=round(found.total([each.fetched for each in found.known])),
        requests=round(found.total([each.requests for each in found.known])),
    )


def in_time(cost: Cost, budget: Budget) -> Cost:
    """The part of a cost that a deadline leaves: a first look at every site, more while it lasts."""
    if budget.deadline is None or not cost.seconds or cost.seconds <= budget.deadline:
        return cost
    rate = cost.tiles / cost.seconds
    tiles = min(cost.tiles, max(cost.sites, round(rate * budget.deadline)))
    share = tiles / cost.tiles
    parts = ("decisions", "bytes_decoded", "bytes_fetched", "requests")
    cut = {name: round(share * getattr(cost, name)) for name in parts}
    return replace(cost, tiles=tiles, seconds=tiles / rate, **cut)


def look_seconds(classifier: Classifier, seconds: float = 1.0) -> float:
    """What one look takes in one worker on the classifier's device, measured on made-up pixels.

    It takes about `seconds`. Reading is not among it. On a CPU one thread computes, as in a worker.
    """
    facts, half = classifier.bundle.facts, classifier.half_px
    shape = facts.network.pixels.bands, 4 * half, 4 * half
    pixels = np.random.default_rng(0).integers(0, 120, shape).astype(facts.network.pixels.dtype)
    reader, window = MemoryReader.of(pixels, half), Window(0, 0, 4 * half, 4 * half)
    begun, count = time.perf_counter(), 1
    with _one_thread():
        while True:
            tasks = [SiteTask(f"made-up {n}", reader, window) for n in range(count)]
            before = time.perf_counter()
            walked = classifier.engine.walk(tasks, seconds=math.inf)
            looks = sum(len(each.walk.looked) for each in walked if isinstance(each, WalkResult))
            took = time.perf_counter() - before
            if count > 1 and time.perf_counter() - begun + 2 * took > seconds:
                return took / looks
            count = max(2 * count, MADE_UP)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def beside(
    predicted: Cost, measured: Cost, network: TraversalNetwork
) -> dict[str, dict[str, int | float | None]]:
    """The fields `predicted` and `measured` of a `RunRecord`.

    The multiply-accumulates of the fact are those of its looks in `network`.
    """
    fact = replace(measured, macs=macs_of(network, measured))
    return {"predicted": _plain(predicted), "measured": _plain(fact)}


def macs_of(network: TraversalNetwork, cost: Cost) -> int:
    """Multiply-accumulates of the looks, decisions and answers of a cost."""
    parts, one = look_macs(network), aggregation_macs(network, 1)
    more = aggregation_macs(network, 2) - one
    looks = cost.tiles * (parts.look + more) + cost.decisions * parts.location
    return looks + cost.sites * (parts.classifier + one - more)


def _plain(cost: Cost) -> dict[str, int | float | None]:
    found: dict[str, int | float | None] = {field.name: getattr(cost, field.name) for field in fields(cost)}
    if cost.seconds is not None:
        found["seconds"] = round(cost.seconds, 3)
    return found


def cost_of(outcomes: Iterable[Answer | Failure], read: ReadCount = NOTHING_READ) -> Cost:
    """What answers took: their trails and bytes, and what `MeteredArchive.lap` says of the network."""
    sites = tiles = decisions = decoded = 0
    for outcome in outcomes:
        sites += 1
        if isinstance(outcome, Answer):
            tiles += len(outcome.trail)
            decisions += sum(look.tile.level > 0 for look in outcome.trail.looks)
            decoded += outcome.bytes_decoded
    return Cost(sites, tiles, decisions, decoded, read.bytes_fetched, read.requests)


class MeteredArchive(ArchiveAround):
    """An archive that knows what all of its readers have read, however many there were.

    Any thread may ask.
    """

    def __init__(self, archive: SceneArchive) -> None:
        super().__init__(archive)
        self._lock = threading.Lock()
        self._past = NOTHING_READ
        self._readers: dict[int, tuple[weakref.ref[TileReader], ReadMeter]] = {}
        self._sweep_at = SWEEP_AT

    def reader(self, scene_id: str, half_px: int | None = None) -> TileReader:
        """See `SceneArchive`."""
        reader = self._archive.reader(scene_id, half_px)
        with self._lock:
            known = self._readers.get(id(reader))
            if known is None or known[0]() is not reader:  # archives may hand out one reader many times
                self._retire([id(reader)] if known else [])
                self._readers[id(reader)] = weakref.ref(reader), reader.meter
            if len(self._readers) >= self._sweep_at:
                self._retire([key for key, (alive, _) in self._readers.items() if alive() is None])
                self._sweep_at = max(SWEEP_AT, 2 * len(self._readers))
        return reader

    def _retire(self, keys: Iterable[int]) -> None:
        """Keep the counts of readers that are gone."""
        for key in keys:
            self._past = _sum(self._past, self._readers.pop(key)[1].reset())

    def lap(self) -> ReadCount:
        """What has been read since the last lap, or since the beginning."""
        with self._lock:
            found, self._past = self._past, NOTHING_READ
            for _, meter in self._readers.values():
                found = _sum(found, meter.reset())
            return found


def _sum(one: ReadCount, other: ReadCount) -> ReadCount:
    names = [field.name for field in fields(one)]
    return ReadCount(**{name: getattr(one, name) + getattr(other, name) for name in names})
