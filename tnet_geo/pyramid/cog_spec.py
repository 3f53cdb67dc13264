"""A pyramid in blocks of the sizes that a file has: which blocks a tile is made of, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tnet_geo.grid import Tile, Window
from tnet_geo.pyramid.decoded import Place
from tnet_geo.pyramid.tiles import RasterSpec, Region

__all__ = ["CogSpec", "Part", "cells_of", "parts_of", "runs_of"]

LONGEST_RUN = 4
"""Blocks that one call of GDAL decodes: a call costs as much as a small block."""


@dataclass(frozen=True, slots=True)
class CogSpec(RasterSpec):
    """A pyramid whose levels may be cut into blocks of different sizes: costs are those of each level."""

    block_shapes: tuple[tuple[int, int], ...] = ()
    """Rows and columns of a block, by level; a level made in memory has one block."""

    def tile_chunks(self, tile: Tile) -> int:
        """How many blocks of its level `tile` is made of; none for ground beyond the scene."""
        overlap = self.overlap(tile)
        return 0 if overlap is None else len(self.blocks_of(tile.level, overlap[1]))

    def tile_bytes(self, tile: Tile) -> int:
        """Bytes of those blocks, decoded, validity included."""
        return self.cost([tile])[1]

    def cost(self, tiles: Iterable[Tile]) -> tuple[int, int]:
        """Blocks that `tiles` are made of together, and the bytes of them."""
        per_pixel = self.bands * np.dtype(self.dtype).itemsize + (0 if self.all_valid else 1)
        chunks = pixels = 0
        for tile in tiles:
            own = self.tile_chunks(tile)
            if own:
                high, wide = self.block_shapes[tile.level]
                chunks += own
                pixels += own * high * wide
        return chunks, pixels * per_pixel

    def blocks_of(self, level: int, region: Region) -> list[Place]:
        """The blocks that hold a region of a level, row by row."""
        (high, wide), (rows, cols) = self.block_shapes[level], region
        down = range(rows.start // high, -(-rows.stop // high))
        across = range(cols.start // wide, -(-cols.stop // wide))
        return [(level, row, col) for row in down for col in across]

    def window_of(self, block: Place) -> Window:
        """Pixels of its level that a block holds; those at the edge hold fewer."""
        level, row, col = block
        (high, wide), (rows, cols) = self.block_shapes[level], self.shapes[level]
        return Window(row * high, col * wide, min(high, rows - row * high), min(wide, cols - col * wide))


@dataclass(frozen=True, slots=True)
class Part:
    """What one block gives to one place of a batch."""

    index: int
    here: Region
    there: Region


def parts_of(spec: CogSpec, tiles: Sequence[Tile]) -> dict[Place, list[Part]]:
    """What every block gives to the batch, in the order in which tiles ask for blocks."""
    found: dict[Place, list[Part]] = {}
    for index, tile in enumerate(tiles):
        overlap = spec.overlap(tile)
        if overlap is None:
            continue
        (top, left), (rows, cols) = (side.start for side in overlap[0]), overlap[1]
        for at in spec.blocks_of(tile.level, overlap[1]):
            window = spec.window_of(at)
            first_row, last_row = max(rows.start, window.row), min(rows.stop, window.bottom)
            first_col, last_col = max(cols.start, window.col), min(cols.stop, window.right)
            down, right = top - rows.start, left - cols.start
            here = slice(first_row + down, last_row + down), slice(first_col + right, last_col + right)
            there = (
                slice(first_row - window.row, last_row - window.row),
                slice(first_col - window.col, last_col - window.col),
            )
            found.setdefault(at, []).append(Part(index, here, there))
    return found


def cells_of(window: Window, block_shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of the blocks that hold a window."""
    high, wide = block_shape
    down = range(window.row // high, -(-window.bottom // high))
    return [(row, col) for row in down for col in range(window.col // wide, -(-window.right // wide))]


def runs_of(blocks: Sequence[Place], longest: int = LONGEST_RUN) -> list[list[Place]]:
    """Blocks of one level in groups that lie side by side in one row.

    >>> runs_of([(0, 1, 4), (0, 0, 0), (0, 1, 3)])
    [[(0, 0, 0)], [(0, 1, 3), (0, 1, 4)]]
    """
    runs: list[list[Place]] = []
    for at in sorted(blocks):
        level, row, col = at
        if runs and runs[-1][-1] == (level, row, col - 1) and len(runs[-1]) < longest:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs
