"""Walks written from their definition: one site, one tile at a time, nothing of the engine. And scenes."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.networks import small_network
from tests.rasters import random_pixels
from tnet_geo.grid import Tile, Window, children, disjoint_tiles, footprint, root_of
from tnet_geo.inference import Budget, Engine, SiteTask, WalkResult, position_in
from tnet_geo.inference.walks import usual_path
from tnet_geo.model import Places, TraversalNetwork, WalkSettings
from tnet_geo.pyramid import MemoryReader, RasterSpec, ReadMeter, TileBatch, TileReader

HALF_PX = 8
BATCH = 4
TEMPERATURES = (0.8, 0.5, 0.9, 0.4)
TILE_BYTES = (2 * HALF_PX) ** 2 * 3
CODED = {"position": {"form": "code", "coordinates": "path"}, "location": {"position": True, "parent": True}}


def network(seed: int, **how: Any) -> TraversalNetwork:
    return small_network(seed, base_px=2 * HALF_PX, **how)


def walked(
    looker: TraversalNetwork, walk: WalkSettings, budget: Budget, tasks: Sequence[SiteTask], **how: Any
) -> list[WalkResult]:
    """Of the engine, all sites being answered."""
    usual = {"temperatures": TEMPERATURES, "batch_looks": BATCH, "in_flight": 8}
    results = list(Engine(looker, walk, budget=budget, **(usual | how)).walk(tasks))
    assert all(isinstance(result, WalkResult) for result in results)
    return [result for result in results if isinstance(result, WalkResult)]


def tiles_of(result: WalkResult) -> list[Tile]:
    return [wish.tile for wish in result.walk.looked]


@dataclass(frozen=True)
class Seen:
    """One look: where, how it was come to, and what came of it."""

    tile: Tile
    path: tuple[int, int]
    log_probability: float
    features: Tensor
    children: list[tuple[Tile, tuple[int, int], float, float]]
    """Candidates in row-major order: tile, path, logit, log-probability of the path."""


@dataclass
class PlainWalk:
    """The oracle. batch_looks: a tile is looked at in a batch of that shape, beside nothing."""

    network: TraversalNetwork
    settings: WalkSettings
    budget: Budget = field(default_factory=Budget)
    temperatures: Sequence[float] = (1.0,)
    batch_looks: int = BATCH
    clock: Callable[[], float] = lambda: 0.0

    def __call__(self, site: SiteTask) -> PlainWalk:
        """Walk one site; what was found lies in the attributes."""
        self.site, self.looks, self.ended_by = site, [], "complete"
        self.half_px = site.reader.spec.half_px
        self.root = root_of(site.window, self.half_px)
        if self.budget.tiles is None:
            self._depth_by_depth()
        else:
            self._best_first(self.budget.tiles)
        self.logits = self._answer()
        return self

    @property
    def tiles(self) -> list[Tile]:
        return [look.tile for look in self.looks]

    @property
    def bytes(self) -> int:
        return sum(self.site.reader.spec.tile_bytes(tile) for tile in set(self.tiles))

    def _depth_by_depth(self) -> None:
        wishes: list[tuple[Tile, tuple[int, int], float, Tensor | None]] = [(self.root, (0, 0), 0.0, None)]
        if self.settings.policy == "dense":
            native = disjoint_tiles(self.site.window, 0, self.half_px)
            wishes = [(tile, usual_path(self.root, tile), 0.0, None) for tile in native]
        while wishes:
            seen = [self._look(*wish) for wish in wishes if self._affords(wish[0])]
            wishes = [wish for look in seen for wish in self._kept(look)]
            if self.settings.duplicates == "once":
                first = {wish[0]: wish for wish in reversed(wishes)}
                wishes = [wish for n, wish in enumerate(wishes) if first[wish[0]] is wish]
            # a budget ends only what could have gone on
            if any(self._affordable(wish[0]) for wish in wishes) and self._ends():
                return

    def _kept(self, look: Seen) -> list[tuple[Tile, tuple[int, int], float, Tensor | None]]:
        depth = self.root.level - look.tile.level
        best = sorted(range(len(look.children)), key=lambda n: (-look.children[n][2], n))
        best = best[: self.settings.keep_at(depth)]
        chosen = sorted(best) if self.settings.order == "window" else best
        return [(*look.children[n][:2], look.children[n][3], look.features) for n in chosen]

    def _best_first(self, most: int) -> None:
        self._affords(self.root)
        frontier = self._found(self._look(self.root, (0, 0), 0.0, None))
        while frontier:
            best = max(range(len(frontier)), key=lambda n: (frontier[n][2], -n))
            tile, path, log_probability, above = frontier.pop(best)
            if tile in self.tiles:
                continue
            if len(self.looks) == most:
                self.ended_by = "tiles"
                return
            # a budget ends only what could have gone on
            ahead = {tile, *(other for other, *_ in frontier)} - set(self.tiles)
            goes_on = any(map(self._affordable, ahead)) if self.budget.bytes else True
            if goes_on and self._ends():
                return
            if self._affords(tile):
                frontier += self._found(self._look(tile, path, log_probability, above))

    @staticmethod
    def _found(look: Seen) -> list[tuple[Tile, tuple[int, int], float, Tensor | None]]:
        return [(tile, path, log, look.features) for tile, path, _, log in look.children]

    def _affordable(self, tile: Tile) -> bool:
        if self.budget.bytes is None or not self.looks or tile in self.tiles:
            return True
        return self.bytes + self.site.reader.spec.tile_bytes(tile) <= self.budget.bytes

    def _affords(self, tile: Tile) -> bool:
        if self._affordable(tile):
            return True
        self.ended_by = "bytes"
        return False

    def _ends(self) -> bool:
        """Whether time or confidence say that it is enough."""
        if self.budget.deadline is not None and self.clock() >= self.budget.deadline:
            self.ended_by = "deadline"
            return True
        if self.budget.stop_at is not None and self.confidence() >= self.budget.stop_at:
            self.ended_by = "stop_at"
            return True
        return False

    def confidence(self) -> float:
        """Calibrated, of what would be answered now."""
        z = self._answer().double().numpy()
        z = z / self.temperatures[min(len(self.looks), len(self.temperatures)) - 1]
        shares = np.exp(z - z.max())
        return float(shares.max() / shares.sum())

    def _answer(self) -> Tensor:
        bag = torch.stack([look.features for look in self.looks])[None]
        with torch.inference_mode():
            return self.network.aggregate(bag, torch.ones(bag.shape[:2], dtype=torch.bool)).logits[0]

    def _look(self, tile: Tile, path: tuple[int, int], log_probability: float, above: Tensor | None) -> Seen:
        read = self.site.reader.read([tile])
        depth = self.root.level - tile.level
        pixels = torch.zeros(self.batch_looks, *read.pixels.shape[1:])
        pixels[0] = torch.from_numpy(read.pixels[0].astype(np.float32))
        validity = torch.full((self.batch_looks, *read.validity.shape[1:]), 255, dtype=torch.uint8)
        validity[0] = torch.from_numpy(read.validity[0])
        places, parent = Places.root(self.batch_looks), torch.zeros(self.batch_looks, self._width)
        places.depth[0] = depth
        places.centre[0] = torch.tensor(position_in(self.root, tile))
        places.path[0] = torch.tensor([(2 * step + 1) / 3**depth - 1 for step in path])
        if above is not None:
            parent[0] = above
        with torch.inference_mode():
            output = self.network.look(self.network.scale(pixels, validity), places, parent)
        found = self._children(tile, path, log_probability, read.validity[0], output.child_logits[0].tolist())
        look = Seen(tile, path, log_probability, output.features[0], found)
        self.looks.append(look)
        return look

    @property
    def _width(self) -> int:
        return int(self.network.backbone.features)

    def _children(
        self,
        tile: Tile,
        path: tuple[int, int],
        above: float,
        validity: NDArray[np.uint8],
        logits: Sequence[float],
    ) -> list[tuple[Tile, tuple[int, int], float, float]]:
        if tile.level == 0:
            return []
        able = []
        for k, child in enumerate(children(tile)):
            down, right = k // 3 * self.half_px // 2, k % 3 * self.half_px // 2
            there = validity[down : down + self.half_px, right : right + self.half_px]
            if there.max() > 0 and footprint(child, self.half_px).touches(self.site.window):
                able.append((child, (3 * path[0] + k // 3, 3 * path[1] + k % 3), logits[k]))
        if not able:
            return []
        top = max(logit for *_, logit in able)
        total = sum(math.exp(logit - top) for *_, logit in able)
        return [
            (child, way, logit, above + math.log(math.exp(logit - top) / total)) for child, way, logit in able
        ]


class Ticks:
    """A clock that tells how many tiles have been read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class CountedReader:
    """Each tile that is read takes one second of a clock."""

    def __init__(self, reader: TileReader, clock: Ticks) -> None:
        self._reader, self._clock = reader, clock
        self.spec, self.meter = reader.spec, reader.meter

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        self._clock.now += len(tiles)
        return self._reader.read(tiles)

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        self._clock.now += len(tiles)
        return self._reader.submit(tiles)


class LateReader:
    """Hands tiles over from another thread, later ones often first."""

    def __init__(self, reader: TileReader, seed: int) -> None:
        self._reader, self._chance = reader, random.Random(seed)

    @property
    def spec(self) -> RasterSpec:
        return self._reader.spec

    @property
    def meter(self) -> ReadMeter:
        return self._reader.meter

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        return self._reader.read(tiles)

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        future: Future[TileBatch] = Future()
        late = threading.Timer(self._chance.uniform(0, 0.004), lambda: future.set_result(self.read(tiles)))
        late.daemon = True
        late.start()
        return future


def scene(seed: int, side: int, *, valid: float = 1.0, half_px: int = HALF_PX) -> MemoryReader:
    """A square scene; below 1, `valid` is about the share of its blocks of 24 px that hold pixels."""
    pixels = random_pixels(seed, (side, side))
    if valid == 1.0:
        return MemoryReader.of(pixels, half_px)
    chance, blocks = np.random.default_rng(seed), -(-side // 24)
    kept = (chance.random((blocks, blocks)) < valid).astype(np.uint8) * 255
    kept[0, 0] = 255
    validity = np.kron(kept, np.ones((24, 24), np.uint8))[:side, :side]
    return MemoryReader.of(pixels, half_px, validity=validity)


def sites(count: int, *, side: int = 128) -> list[SiteTask]:
    """Scenes of many sizes; whole ones and windows of them, with and without ground that is not valid."""
    chance, found = np.random.default_rng(count), []
    for n in range(count):
        here = int(chance.integers(side // 4, side + 1))
        window = Window(0, 0, here, here)
        if n % 3 == 2:
            row, col = (int(chance.integers(0, here // 2)) for _ in range(2))
            window = Window(row, col, *(int(chance.integers(4, here // 2 + 1)) for _ in range(2)))
        found.append(SiteTask(f"site {n}", scene(n, here, valid=(1.0, 0.6)[n % 2]), window))
    return found
