"""Blocks of a source raster, each of its pixels decoded once."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet_geo.grid import Window
from tnet_geo.imagery.raster import RasterSource

__all__ = ["Block", "blocks_of"]

Block = tuple[NDArray[Any], NDArray[np.uint8] | None]
"""Pixels [bands, y, x] and validity [y, x] from 0 to 255; None means that all pixels are valid."""

IN_MEMORY_BYTES = 256 << 20
"""Sources without inner tiles that decode to more than this pass through a file."""


@contextmanager
def blocks_of(raster: RasterSource, block_px: int, folder: Path) -> Iterator[Callable[[Window], Block]]:
    """What reads a window of `raster` when windows of `block_px` are asked for in any order.

    A source with inner tiles, or one that is a single block, is read as it is. JPEG, PNG and striped
    TIFF have no random access: each step back decodes from the top. They are decoded once, in bands
    from top to bottom, into memory or, when they are large, into an uncompressed file in `folder`
    that is gone afterwards.

    Raises: SourceUnreadable.
    """
    info = raster.info
    rows, cols = info.shape
    if info.tiled or max(rows, cols) <= block_px:
        yield raster.read
        return
    with (
        _room(folder, (info.bands, rows, cols), info.dtype) as pixels,
        _room(folder, (rows, cols), "uint8") as validity,
    ):
        for top in range(0, rows, block_px):
            band = Window(top, 0, min(block_px, rows - top), cols)
            pixels[:, band.row : band.bottom], valid = raster.read(band)
            validity[band.row : band.bottom] = 255 if valid is None else valid

        def read(window: Window) -> Block:
            there = slice(window.row, window.bottom), slice(window.col, window.right)
            valid = None if info.all_valid else np.array(validity[there])
            return np.array(pixels[:, *there]), valid

        yield read


@contextmanager
def _room(folder: Path, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[Any]]:
    """An array in memory, or in a file of `folder` that has no name for long."""
    if math.prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY_BYTES:
        yield np.empty(shape, dtype)
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        yield np.memmap(file, dtype, mode="w+", shape=shape)
