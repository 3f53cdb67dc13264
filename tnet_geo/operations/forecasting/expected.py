"""What the walk of one site takes, by arithmetic: how many tiles of every level, and their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from tnet_geo.grid import Tile, Window, disjoint_tiles, root_of
from tnet_geo.inference.budgets import Budget
from tnet_geo.model.settings import WalkSettings
from tnet_geo.pyramid.tiles import RasterSpec

__all__ = ["Expected", "Layer", "expected_cost", "looks_by_level"]

PLACES_A_SIDE = 5
"""Rows, and columns, of tiles of one level whose bytes stand for those of all."""


class Layer(NamedTuple):
    """What one walk is expected to take of one level."""

    level: int
    tiles: float
    bytes_decoded: float


class Expected(NamedTuple):
    """What one walk is expected to take."""

    tiles: float
    decisions: float
    """Looks at tiles that are not native: children are scored there."""
    bytes_decoded: float
    levels: tuple[Layer, ...]
    """The same of each level that is looked at, coarsest first."""


def expected_cost(spec: RasterSpec, window: Window, walk: WalkSettings, budget: Budget) -> Expected:
    """What a walk over `window` takes if all tiles of a level are as likely, and all that it keeps differ.

    Tiles, and bytes where all tiles of a level have the same, are then exact without limits that depend
    on what is seen: a child that two tiles of a depth keep is looked at once, one without a valid pixel
    never, and `stop_at` ends walks early. Of all these it is the upper bound.
    """
    return _expected(_Cut.of(spec), window, walk, budget)


class _Cut(NamedTuple):
    """Of a spec what bytes depend on: many scenes are alike."""

    spec: RasterSpec
    key: tuple[object, ...]

    @classmethod
    def of(cls, spec: RasterSpec) -> _Cut:
        blocks = getattr(spec, "block_shapes", None)
        return cls(spec, (spec.half_px, spec.shapes, spec.chunk_shape, spec.chunk_bytes, blocks))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Cut) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=1 << 14)
def _expected(cut: _Cut, window: Window, walk: WalkSettings, budget: Budget) -> Expected:
    looks = looks_by_level(window, cut.spec.half_px, walk, budget)
    sizes = _mean_bytes(cut.spec, window, walk, looks)
    if budget.bytes is not None:
        looks = _within(looks, sizes, budget.bytes)
    layers = tuple(Layer(level, count, count * sizes[level]) for level, count in looks.items())
    tiles = sum(looks.values())
    return Expected(tiles, tiles - looks.get(0, 0), sum(layer.bytes_decoded for layer in layers), layers)


def _within(looks: dict[int, float], sizes: dict[int, float], most: int) -> dict[int, float]:
    """The looks that fit into so many bytes, coarse ones first; the first always does."""
    found: dict[int, float] = {}
    left = float(most)
    for level, count in looks.items():
        fits = min(count, max(0.0, left) // sizes[level]) if sizes[level] else count
        if not found:
            fits = max(fits, 1)
        left -= fits * sizes[level]
        if fits:
            found[level] = fits
    return found


def looks_by_level(window: Window, half_px: int, walk: WalkSettings, budget: Budget) -> dict[int, float]:
    """Looks that a walk makes at every level, coarsest first, bytes and what is seen left aside.

    >>> looks_by_level(Window(0, 0, 896, 896), 112, WalkSettings(keep=(2, 1)), Budget())
    {2: 1, 1: 2, 0: 2}
    """
    root = root_of(window, half_px)
    if walk.policy == "dense":
        return {0: sum(1 for _ in disjoint_tiles(window, 0, half_px))}
    places = {}
    for level in range(root.level, -1, -1):
        down, across = _strips(root, window, level, half_px)
        places[level] = len(down) * len(across)
    if budget.tiles is not None:
        return _spread_looks(places, budget.tiles)
    looks: dict[int, float] = {root.level: 1}
    for level in range(root.level - 1, -1, -1):
        kept = looks[level + 1] * walk.keep_at(root.level - level - 1)
        looks[level] = kept if walk.duplicates == "twice" else min(kept, places[level])
        if not kept:
            break
    return {level: count for level, count in looks.items() if count}


def _spread_looks(places: dict[int, int], tiles: int) -> dict[int, float]:
    """A best-first walk: about as many looks at every level, as far as it has tiles."""
    looks: dict[int, float] = dict.fromkeys(places, 0)
    left = min(tiles, sum(places.values()))
    while left:
        for level, count in places.items():
            if left and looks[level] < count:
                looks[level] += 1
                left -= 1
    return {level: count for level, count in looks.items() if count}


def _strips(root: Tile, window: Window, level: int, half_px: int) -> tuple[range, range]:
    """Rows and columns of the tiles of a level that lie in the root and touch the window."""
    depth, step = root.level - level, half_px << level
    return (
        _strip(root.row << depth, (2 << depth) - 1, step, window.row, window.bottom),
        _strip(root.col << depth, (2 << depth) - 1, step, window.col, window.right),
    )


def _strip(first: int, count: int, step: int, start: int, stop: int) -> range:
    """Of `count` lattice steps from `first` those whose two halves touch the span."""
    low = max(first, start // step - 1)
    high = min(first + count - 1, -(-stop // step) - 1)
    return range(low, high + 1)


def _spread(steps: range) -> Iterator[int]:
    """Some of them, evenly spread; all if they are few."""
    few = min(len(steps), PLACES_A_SIDE)
    return (steps[(2 * n + 1) * len(steps) // (2 * few)] for n in range(few))


def _mean_bytes(
    spec: RasterSpec, window: Window, walk: WalkSettings, levels: Iterable[int]
) -> dict[int, float]:
    """Of one tile of each level, all that a walk may come to being as likely."""
    if walk.policy == "dense":
        native = list(disjoint_tiles(window, 0, spec.half_px))
        return {0: sum(map(spec.tile_bytes, native)) / len(native)}
    root, means = root_of(window, spec.half_px), {}
    for level in levels:
        down, across = _strips(root, window, level, spec.half_px)
        tiles = [Tile(level, row, col) for row in _spread(down) for col in _spread(across)]
        means[level] = sum(map(spec.tile_bytes, tiles)) / len(tiles)
    return means
