"""Some sites of a manifest, drawn by chance: where they lie, and what arithmetic expects of their walks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tnet_geo.errors import SetAside
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.inference.budgets import Budget
from tnet_geo.model.settings import WalkSettings
from tnet_geo.operations.forecasting.expected import Expected, expected_cost
from tnet_geo.operations.forecasting.fetches import Fetches
from tnet_geo.pyramid import SceneArchive, TileReader

__all__ = ["Known", "Survey", "survey"]

AT_ONCE = 16
"""Scenes whose headers are read at once; far ones take their time to answer."""
ROUND = 256
"""Sites that are looked up before the clock is looked at."""


@dataclass(frozen=True, slots=True)
class Known:
    """A site that was looked up, and what arithmetic expects of its walk."""

    site: Site
    expected: Expected
    requests: float
    fetched: float
    """Bytes over a network."""


@dataclass(frozen=True)
class Survey:
    """Sites in an order that chance has made."""

    known: tuple[Known, ...]
    refused: int
    """Sites that have no scene, or one whose header cannot be read."""
    sites: int
    """Of the manifest."""

    @property
    def drawn(self) -> int:
        """How many of them were looked up."""
        return len(self.known) + self.refused

    def total(self, each: Sequence[float]) -> float:
        """What all sites take together, from what those that are known take."""
        return sum(each) * self.sites / self.drawn if self.drawn else 0.0

    def error(self, each: Sequence[float]) -> float:
        """Standard error of that total as a share of it; 0 where all sites were looked up."""
        count, mean = len(each), sum(each) / max(len(each), 1)
        if self.drawn == self.sites or count < 2 or not mean:
            return 0.0
        spread = float(np.std(each, ddof=1)) / mean
        return spread * math.sqrt((1 - self.drawn / self.sites) / count)


def survey(
    archive: SceneArchive,
    sites: Sequence[Site],
    half_px: int,
    walk: WalkSettings,
    budget: Budget,
    *,
    seconds: float,
    most: int | None = None,
) -> Survey:
    """Look up sites until all, or `most`, are known or the time is over; headers are read, and no pixels.

    The same sites, in the same order, however long it takes: only how many there are depends on it.
    """
    order = np.random.default_rng(0).permutation(len(sites)).tolist()[:most]
    fetches = Fetches(archive)

    def look_up(number: int) -> Known | None:
        found = _found(archive, sites[number], half_px)
        if found is None:
            return None
        reader, window = found
        expected = expected_cost(reader.spec, window, walk, budget)
        return Known(sites[number], expected, *fetches.of(reader, window, expected))

    known: list[Known | None] = []
    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for some in _rounds(order):
            known += threads.map(look_up, some)
            if time.monotonic() - begun > seconds:
                break
    there = tuple(each for each in known if each is not None)
    return Survey(there, len(known) - len(there), len(sites))


def _rounds(order: Sequence[int]) -> Iterator[Sequence[int]]:
    """Few at first: nobody knows how fast the archive answers."""
    start, size = 0, AT_ONCE
    while start < len(order):
        yield order[start : start + size]
        start, size = start + size, min(2 * size, ROUND)


def _found(archive: SceneArchive, site: Site, half_px: int) -> tuple[TileReader, Window] | None:
    """Where a site lies; None where its walk could not begin."""
    try:
        stored = archive.adopt(site)
        reader = archive.reader(stored.scene_id, half_px)
    except SetAside:
        return None
    scene = Window(0, 0, *reader.spec.shape)
    window = stored.window or scene
    return (reader, window) if scene.contains(window) else None
