"""One walk as a state machine without I/O: which tiles it wants next, and what it has seen.

The engine reads and computes for many walks at once; a walk only decides.
"""

from __future__ import annotations

import heapq
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet_geo.grid import Tile, Window, child, children, disjoint_tiles, footprint, root_of
from tnet_geo.inference.budgets import NO_BUDGET, Budget
from tnet_geo.model.choice import top_children
from tnet_geo.model.places import Places
from tnet_geo.model.settings import WalkSettings
from tnet_geo.pyramid.tiles import TileBatch, TileReader
from tnet_geo.trail import EndedBy

__all__ = [
    "Place",
    "SiteTask",
    "Walk",
    "Wish",
    "candidates_of",
    "path_centre",
    "places_of",
    "position_in",
    "usual_path",
]

Place = tuple[int, tuple[float, float], tuple[float, float]]
"""Depth, centre and path of one look, see `Places`."""


@dataclass(frozen=True, slots=True)
class SiteTask:
    """One site to be walked: its window and the pyramid that holds its pixels."""

    site_id: str
    reader: TileReader
    window: Window
    examine: Callable[[TileBatch], None] | None = None
    """Called with the first tiles of the walk; raises SetAside if they are not to be walked."""


@dataclass(slots=True)
class Wish:
    """A tile to look at, and how the walk came to it."""

    tile: Tile
    depth: int
    parent: int | None
    probability: float
    path_log_probability: float
    path: tuple[int, int]
    """Row and column of the path's cell: 3 times the parent's, plus which window down and right."""


def position_in(root: Tile, tile: Tile) -> tuple[float, float]:
    """The tile's centre in its root, rows then columns: -1 and 1 are the root's edges.

    >>> position_in(Tile(1, 0, 0), Tile(0, 0, 1))
    (-0.5, 0.0)
    """
    scale = 2.0 ** (tile.level - root.level)
    return (tile.row + 1) * scale - root.row - 1, (tile.col + 1) * scale - root.col - 1


def path_centre(path: tuple[int, int], depth: int, windows: int = 3) -> tuple[float, float]:
    """The centre of a path's cell, from -1 to 1: of windows^depth cells along a side.

    >>> path_centre((0, 2), 1)[1]
    0.6666666666666667
    """
    cells = windows**depth
    return (2 * path[0] + 1) / cells - 1, (2 * path[1] + 1) / cells - 1


def usual_path(root: Tile, tile: Tile) -> tuple[int, int]:
    """A path from the root to a tile that no walk has led to: the lower right parent of every tile.

    >>> usual_path(Tile(2, 0, 0), Tile(0, 2, 6))
    (3, 8)
    """
    depth = root.level - tile.level
    rows, cols = tile.row - (root.row << depth), tile.col - (root.col << depth)
    return _usual_steps(rows, depth), _usual_steps(cols, depth)


def _usual_steps(step: int, depth: int) -> int:
    """Along one axis; tiles that reach beyond the root count as its last."""
    cell, weight = 0, 1
    for above in range(depth - 1, -1, -1):
        parent = min(max(step // 2, 0), (2 << above) - 2)
        cell += weight * min(max(step - 2 * parent, 0), 2)
        step, weight = parent, 3 * weight
    return cell


def places_of(each: Sequence[Place]) -> Places:
    """The places of several looks as tensors."""
    depth, centre, path = zip(*each, strict=True)
    return Places(torch.tensor(depth), torch.tensor(centre), torch.tensor(path))


def candidates_of(tile: Tile, window: Window, validity: NDArray[np.uint8], half_px: int) -> NDArray[np.bool_]:
    """Which of a tile's nine children touch the window and hold a valid pixel: bool [9].

    `validity` [B, B] is the tile's own, so that no child has to be read to be ruled out: a child none
    of whose pixels was valid at the parent's level is not a candidate. A native tile has no children.
    """
    found = np.zeros(9, dtype=np.bool_)
    if tile.level == 0:
        return found
    if window.contains(footprint(tile, half_px)) and validity.all():
        return ~found
    quarter = half_px // 2
    for k, below in enumerate(children(tile)):
        row, col = k // 3 * quarter, k % 3 * quarter
        valid = validity[row : row + half_px, col : col + half_px].any()
        found[k] = valid and footprint(below, half_px).touches(window)
    return found


class Walk:
    """The walk of one site. `wanted` are the tiles of its next looks; empty: it has ended."""

    def __init__(self, task: SiteTask, settings: WalkSettings, budget: Budget = NO_BUDGET) -> None:
        self.task = task
        self.root = root_of(task.window, task.reader.spec.half_px)
        self._settings, self._budget = settings, budget
        self._chance = np.random.default_rng([settings.seed, zlib.crc32(task.site_id.encode())])
        self._looked: list[Wish] = []
        self._features: list[Tensor] = []
        self._frontier: list[tuple[float, int, Wish]] = []
        self._taken: set[Tile] = set()
        self._bytes = 0
        self._ended_by: EndedBy = "complete"
        self._wishes = self._affordable(self._first_wishes())

    def _first_wishes(self) -> list[Wish]:
        if self._settings.policy != "dense":
            return [Wish(self.root, 0, None, 1.0, 0.0, (0, 0))]
        native = disjoint_tiles(self.task.window, 0, self.task.reader.spec.half_px)
        return [Wish(tile, self.root.level, None, 1.0, 0.0, usual_path(self.root, tile)) for tile in native]

    @property
    def wanted(self) -> list[Tile]:
        """Tiles of the next looks; distinct, unless shared children are looked at twice."""
        return [wish.tile for wish in self._wishes]

    @property
    def ends(self) -> bool:
        """Whether nothing can follow the wanted looks, whatever they say."""
        settings = self._settings
        if settings.policy == "dense":
            return True
        if self._budget.tiles is not None:
            last = len(self._looked) + len(self._wishes) >= self._budget.tiles
            return last or (not self._frontier and self._wishes[0].tile.level == 0)
        return not settings.keep or self._wishes[0].tile.level == 0

    @property
    def ended_by(self) -> EndedBy:
        """Why there are no more looks, once there are none."""
        return self._ended_by

    def stop(self, reason: EndedBy) -> None:
        """Want nothing more."""
        self._wishes, self._ended_by = [], reason

    @property
    def places(self) -> Places:
        """Where the wanted tiles lie."""
        return places_of([self.place(n) for n in range(len(self._wishes))])

    def place(self, n: int) -> Place:
        """Where the wanted tile `n` lies."""
        wish = self._wishes[n]
        return wish.depth, position_in(self.root, wish.tile), path_centre(wish.path, wish.depth)

    def parents(self, features: int) -> Tensor:
        """float32 [n, features]: those of the looks that chose the wanted tiles, zero where none did."""
        if not self._features:
            return torch.zeros(len(self._wishes), features)
        rows = [wish.parent for wish in self._wishes if wish.parent is not None]
        return self.features[rows]

    @property
    def looked(self) -> Sequence[Wish]:
        """Every look so far, in order."""
        return self._looked

    @property
    def features(self) -> Tensor:
        """float32 [looks, F], in the order of `looked`."""
        return torch.cat(self._features)

    def candidates(self, n: int, validity: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which children of the wanted tile `n` may be chosen, from the tile's validity [B, B]: bool [9]."""
        if self._settings.policy == "dense":
            return np.zeros(9, dtype=np.bool_)
        half_px = self.task.reader.spec.half_px
        return candidates_of(self._wishes[n].tile, self.task.window, validity, half_px)

    def observe(self, features: Tensor, child_logits: Tensor, candidates: NDArray[np.bool_]) -> None:
        """Take in the looks at the wanted tiles and choose the next.

        features [n, F], child_logits [n, 9] and candidates [n, 9] in the order of `wanted`.
        """
        first, ends = len(self._looked), self.ends
        seen, self._wishes = self._wishes, []
        self._looked.extend(seen)
        self._features.append(features)
        if self._budget.tiles is not None:
            self._extend_frontier(seen, first, child_logits, candidates)
            self._wishes = self._best()
        elif not ends:
            self._wishes = self._affordable(self._kept(seen, first, child_logits, candidates))

    def _kept(
        self, seen: Sequence[Wish], first: int, child_logits: Tensor, candidates: NDArray[np.bool_]
    ) -> list[Wish]:
        """The best children of every tile of this depth."""
        scores = self._scores(child_logits)
        picks = top_children(scores, torch.from_numpy(candidates), self._settings.keep_at(seen[0].depth))
        shares = _shares(
            torch.zeros_like(child_logits) if self._settings.policy == "random" else child_logits, candidates
        )
        wishes: list[Wish] = []
        wished: set[Tile] = set()  # of a child that two parents share, the first parent is named
        for n, (wish, chosen) in enumerate(zip(seen, picks, strict=True)):
            for k in sorted(chosen) if self._settings.order == "window" else chosen:
                below = _below(wish, k, first + n, shares[n][k])
                if self._settings.duplicates == "twice" or below.tile not in wished:
                    wished.add(below.tile)
                    wishes.append(below)
        return wishes

    def _scores(self, child_logits: Tensor) -> Tensor:
        if self._settings.policy == "random":
            return torch.from_numpy(self._chance.random(tuple(child_logits.shape)))
        return child_logits

    def _extend_frontier(
        self, seen: Sequence[Wish], first: int, child_logits: Tensor, candidates: NDArray[np.bool_]
    ) -> None:
        """Add the children of what was seen; of equally probable paths the one found first is first."""
        for n, (wish, shares) in enumerate(zip(seen, _shares(child_logits, candidates), strict=True)):
            for k in np.flatnonzero(candidates[n]).tolist():
                below = _below(wish, k, first + n, shares[k])
                heapq.heappush(self._frontier, (-below.path_log_probability, 9 * (first + n) + k, below))

    def _best(self) -> list[Wish]:
        """The best tile of the frontier that was not looked at yet and that the budget has room for."""
        while self._frontier:
            wish = self._frontier[0][2]
            if wish.tile not in self._taken and len(self._looked) == self._budget.tiles:
                self._ended_by = "tiles"
                return []
            heapq.heappop(self._frontier)
            if wish.tile not in self._taken and (fits := self._affordable([wish])):
                return fits
        return []

    def _affordable(self, wishes: list[Wish]) -> list[Wish]:
        """Those whose bytes the budget has left, one after another; the first look is never refused."""
        limit, fits = self._budget.bytes, []
        for wish in wishes:
            size = 0 if wish.tile in self._taken else self.task.reader.spec.tile_bytes(wish.tile)
            if limit is not None and self._taken and self._bytes + size > limit:
                self._ended_by = "bytes"
                continue
            self._taken.add(wish.tile)
            self._bytes += size
            fits.append(wish)
        return fits


def _below(wish: Wish, k: int, order: int, share: float) -> Wish:
    """The wish for child k of the look `order` at `wish`, to which it gave the probability `share`."""
    path = 3 * wish.path[0] + k // 3, 3 * wish.path[1] + k % 3
    log_probability = wish.path_log_probability + math.log(max(share, 1e-300))
    return Wish(child(wish.tile, k), wish.depth + 1, order, share, log_probability, path)


def _shares(logits: Tensor, masks: NDArray[np.bool_]) -> list[list[float]]:
    """Softmax over each parent's candidates, in double precision; rows without any are zero."""
    masked = logits.double().masked_fill(~torch.from_numpy(masks), -torch.inf)
    rows: list[list[float]] = torch.softmax(masked, dim=1).nan_to_num(0.0).tolist()
    return rows
