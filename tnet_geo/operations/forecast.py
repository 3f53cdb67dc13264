"""What a classification is going to cost, said before it begins and kept beside what it did cost."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from tnet_geo.imagery import Site
from tnet_geo.inference import Classifier
from tnet_geo.inference.budgets import Budget
from tnet_geo.model.network import TraversalNetwork
from tnet_geo.pyramid import SceneArchive
from tnet_geo.pyramid.tiles import ReadCount, ReadMeter, TileReader
from tnet_geo.trail import Answer, Failure

__all__ = ["Cost", "MeteredArchive", "beside", "cost_of", "forecast", "macs_of"]

NO_BUDGET = Budget()
NOTHING_READ = ReadCount()
SWEEP_AT = 1024
"""Readers that a metered archive remembers before it looks which of them are gone."""


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
    budget: Budget = NO_BUDGET,
    workers: int = 1,
    seconds: float = 1.0,
) -> Cost:
    """What `classifier` is going to spend on `sites`, from arithmetic and a probe of about `seconds`.

    The probe walks a few of the sites in this process, on the classifier's device; 0: none is made, and
    the cost is that of arithmetic, without seconds. Nothing is written. Never raises for a site that
    cannot be read: the run itself will set it aside.
    """
    raise NotImplementedError


def beside(
    predicted: Cost, measured: Cost, network: TraversalNetwork
) -> dict[str, dict[str, int | float | None]]:
    """The fields `predicted` and `measured` of a `RunRecord`; the multiply-accumulates of the fact are
    those of its looks in `network`."""
    return {
        "predicted": _plain(predicted),
        "measured": _plain(replace(measured, macs=macs_of(network, measured))),
    }


def macs_of(network: TraversalNetwork, cost: Cost) -> int:
    """Multiply-accumulates of the looks, decisions and sites of a cost."""
    raise NotImplementedError


def _plain(cost: Cost) -> dict[str, int | float | None]:
    found: dict[str, int | float | None] = {field.name: getattr(cost, field.name) for field in fields(cost)}
    if cost.seconds is not None:
        found["seconds"] = round(cost.seconds, 3)
    return found


def cost_of(outcomes: Iterable[Answer | Failure], read: ReadCount = NOTHING_READ) -> Cost:
    """What answers took: their trails and bytes, and what `MeteredArchive.taken` says of the network."""
    sites = tiles = decisions = decoded = 0
    for outcome in outcomes:
        sites += 1
        if isinstance(outcome, Answer):
            tiles += len(outcome.trail)
            decisions += sum(look.tile.level > 0 for look in outcome.trail.looks)
            decoded += outcome.bytes_decoded
    return Cost(sites, tiles, decisions, decoded, read.bytes_fetched, read.requests)


class MeteredArchive:
    """An archive that knows what all of its readers have read, however many there were.

    Otherwise it is the archive that it was made of. Any thread may ask.
    """

    def __init__(self, archive: SceneArchive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._past = ReadCount()
        self._readers: dict[int, tuple[weakref.ref[TileReader], ReadMeter]] = {}
        self._sweep_at = SWEEP_AT

    @property
    def place(self) -> str:
        """Of the archive."""
        return self._archive.place

    @property
    def canvas(self) -> str:
        """Of the archive."""
        return self._archive.canvas

    def check_lattice(self, half_px: int) -> None:
        """See `SceneArchive`."""
        self._archive.check_lattice(half_px)

    def adopt(self, site: Site) -> Site:
        """See `SceneArchive`."""
        return self._archive.adopt(site)

    def digest(self, scene_id: str) -> str | None:
        """See `SceneArchive`."""
        return self._archive.digest(scene_id)

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
            self._past = _sum(self._past, self._readers.pop(key)[1].snapshot())

    def taken(self) -> ReadCount:
        """What has been read so far."""
        with self._lock:
            found = self._past
            for _, meter in self._readers.values():
                found = _sum(found, meter.snapshot())
            return found


def _sum(one: ReadCount, other: ReadCount) -> ReadCount:
    names = [field.name for field in fields(one)]
    return ReadCount(**{name: getattr(one, name) + getattr(other, name) for name in names})
