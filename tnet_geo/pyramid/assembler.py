"""The quad-tree of a scene's shards, put together from the finest up, whatever the order of blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet_geo.grid import Window
from tnet_geo.pyramid.layout import SceneLayout
from tnet_geo.pyramid.reduce import halve

__all__ = ["Assembler", "Block", "Shard", "children_of", "shard_window", "shards_across"]

Block = tuple[NDArray[Any], NDArray[np.uint8] | None]
"""Pixels [bands, y, x] and validity [y, x] from 0 to 255; None means that all pixels are valid."""


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One shard of one level of a scene, counted in shards: `data` and `valid` have one each."""

    level: int
    row: int
    col: int

    @property
    def parent(self) -> Shard:
        """The shard that its reduced pixels are a quarter of."""
        return Shard(self.level + 1, self.row // 2, self.col // 2)


def shards_across(layout: SceneLayout, level: int) -> tuple[int, int]:
    """Rows and columns of shards at a level."""
    rows, cols = layout.shapes[level]
    return -(-rows // layout.shard_px), -(-cols // layout.shard_px)


def shard_window(layout: SceneLayout, shard: Shard) -> Window:
    """The pixels of its level that a shard holds: those at the edge are smaller."""
    rows, cols = layout.shapes[shard.level]
    side = layout.shard_px
    row, col = shard.row * side, shard.col * side
    return Window(row, col, min(side, rows - row), min(side, cols - col))


def children_of(layout: SceneLayout, shard: Shard) -> list[Shard]:
    """The one to four shards of the finer level that a shard above level 0 is made of."""
    rows, cols = shards_across(layout, shard.level - 1)
    return [
        Shard(shard.level - 1, row, col)
        for row in range(2 * shard.row, min(2 * shard.row + 2, rows))
        for col in range(2 * shard.col, min(2 * shard.col + 2, cols))
    ]


class Assembler:
    """Writes every shard of the subtree below `top` once, and reads nothing back.

    Finished blocks come in any order. Each is written and halved into its parent's buffer; a parent
    that has all its quarters is a finished block itself. Blocks that come in Z order keep one buffer
    a level in memory, rows of blocks one row a level; the pixels are the same in any order.
    """

    def __init__(self, layout: SceneLayout, top: Shard, write: Callable[[Shard, Block], None]) -> None:
        """`write` is given each shard once; blocks are never changed after they are handed over."""
        self.half: Block | None = None
        """The reduced block of `top`, as soon as it is written; None for the last level."""
        self._layout, self._top, self._write = layout, top, write
        self._open: dict[Shard, tuple[Block, int]] = {}

    def add(self, shard: Shard, block: Block) -> None:
        """Take in all pixels of one shard."""
        while True:
            self._write(shard, block)
            if shard.level == len(self._layout.shapes) - 1:
                return
            half = halve(*block, self._layout.nodata)
            if shard == self._top:
                self.half = half
                return
            finished = self._quarter(shard, half)
            if finished is None:
                return
            shard, block = shard.parent, finished

    def put(self, shard: Shard, half: Block) -> None:
        """Take in the reduced block of a shard that another task has written."""
        finished = self._quarter(shard, half)
        if finished is not None:
            self.add(shard.parent, finished)

    def _quarter(self, shard: Shard, half: Block) -> Block | None:
        """Put a half into its parent's buffer; the parent's block if it is complete."""
        parent = shard.parent
        block, missing = self._open.pop(parent) if parent in self._open else self._buffer(parent)
        pixels, validity = block
        part, valid = half
        side = self._layout.shard_px // 2
        top, left = shard.row % 2 * side, shard.col % 2 * side
        there = slice(top, top + part.shape[1]), slice(left, left + part.shape[2])
        pixels[:, *there] = part
        if validity is not None:
            validity[there] = 255 if valid is None else valid
        if missing > 1:
            self._open[parent] = block, missing - 1
            return None
        return block

    def _buffer(self, shard: Shard) -> tuple[Block, int]:
        """Room for a block, and how many quarters it waits for."""
        layout, window = self._layout, shard_window(self._layout, shard)
        pixels = np.empty((layout.bands, window.height, window.width), layout.dtype)
        validity = None if layout.all_valid else np.empty((window.height, window.width), np.uint8)
        return (pixels, validity), len(children_of(layout, shard))
