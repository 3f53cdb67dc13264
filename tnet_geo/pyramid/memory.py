"""A TileReader over arrays in memory: training sets that fit, tests, and pictures that are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet_geo.grid import Tile, last_level
from tnet_geo.pyramid.reduce import halve
from tnet_geo.pyramid.tiles import RasterSpec, ReadMeter, TileBatch, TileReader, cleaned

__all__ = ["MemoryReader"]

Level = tuple[NDArray[Any], NDArray[np.uint8] | None]
"""Pixels [bands, y, x] and validity [y, x] of one level; None means that all pixels are valid."""


class MemoryReader:
    """Answers tiles from arrays that lie in memory decoded; meets the contract of `TileReader`.

    It meters what a stored pyramid of the same lattice would have decoded, so that costs compare.

    >>> reader = MemoryReader.of(np.ones((3, 100, 100), np.uint8), half_px=32)
    >>> reader.read([Tile(0, 1, 1)]).pixels.shape, reader.spec.levels
    ((1, 3, 64, 64), 2)
    """

    def __init__(self, spec: RasterSpec, levels: Sequence[Level]) -> None:
        """`levels` holds one pair of arrays for every shape of `spec`, as they are stored."""
        self.spec = spec
        self.meter = ReadMeter()
        self._levels = tuple(_clean(level, spec.nodata) for level in levels)

    @classmethod
    def of(
        cls,
        array: NDArray[Any],
        half_px: int,
        validity: NDArray[np.uint8] | None = None,
        *,
        nodata: float | None = None,
        scene_id: str = "memory",
    ) -> MemoryReader:
        """A pyramid of `array` [bands, y, x], reduced exactly as an archive's would be.

        `validity` is uint8 [y, x], 255 where a pixel is valid; None means that all are. `nodata` is a
        value that does not count in any band.
        """
        pair: Level = (array, validity)
        levels = [pair]
        for _ in range(last_level((array.shape[1], array.shape[2]), half_px)):
            pair = halve(*pair, nodata)
            levels.append(pair)
        return cls._over(levels, half_px, nodata, scene_id)

    @classmethod
    def central(cls, array: NDArray[np.float32], half_px: int, *, scene_id: str = "memory") -> MemoryReader:
        """A pyramid of `array` [bands, y, x], all valid, made by resizing without antialiasing.

        Of each square of 2^level pixels a side it holds the mean of the four in the middle: what bilinear
        interpolation reads. Source: published TNet (NeurIPS 2021). No archive is made so, because the
        other pixels are never looked at.
        """
        count = last_level((array.shape[1], array.shape[2]), half_px) + 1
        levels: list[Level] = [(_middle(array, level), None) for level in range(count)]
        return cls._over(levels, half_px, None, scene_id)

    @classmethod
    def _over(
        cls, levels: Sequence[Level], half_px: int, nodata: float | None, scene_id: str
    ) -> MemoryReader:
        array, validity = levels[0]
        shapes = tuple((int(pixels.shape[1]), int(pixels.shape[2])) for pixels, _ in levels)
        spec = RasterSpec(
            scene_id=scene_id,
            bands=int(array.shape[0]),
            dtype=array.dtype.name,
            half_px=half_px,
            shapes=shapes,
            crs=None,
            transform=None,
            digest="",
            all_valid=validity is None,
            nodata=nodata,
        )
        return cls(spec, levels)

    @classmethod
    def load(cls, reader: TileReader) -> MemoryReader:
        """All levels of a reader's scene, decoded once and kept. Raises: TileUnreadable."""
        return cls(reader.spec, [_whole(reader, level) for level in range(reader.spec.levels)])

    def level(self, level: int) -> Level:
        """All pixels of a level [bands, y, x], clean, and their validity [y, x], None if all are valid."""
        return self._levels[level]

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        """The pixels of `tiles`; see `TileReader`."""
        spec, side = self.spec, self.spec.base_px
        pixels = np.zeros((len(tiles), spec.bands, side, side), spec.dtype)
        validity = np.zeros((len(tiles), side, side), np.uint8)
        for index, tile in enumerate(tiles):
            overlap = spec.overlap(tile)
            if overlap is not None:
                here, there = overlap
                level_pixels, level_validity = self._levels[tile.level]
                pixels[index, :, *here] = level_pixels[:, *there]
                validity[index, *here] = 255 if level_validity is None else level_validity[there]
        self.meter.add(spec, tiles)
        return TileBatch(pixels, validity)

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        """The same as `read`, in the shape of a future that is done."""
        future: Future[TileBatch] = Future()
        future.set_result(self.read(tiles))
        return future


def _middle(array: NDArray[np.float32], level: int) -> NDArray[np.float32]:
    """Level `level` of `array` [bands, y, x]: see `MemoryReader.central`."""
    if level == 0:
        return array
    rows, cols = (_middle_pairs(side, level) for side in array.shape[1:])
    means: NDArray[np.float32] = array[:, rows].mean(axis=2)[:, :, cols].mean(axis=3)
    return means


def _middle_pairs(side: int, level: int) -> NDArray[np.int64]:
    """Along an axis of `side` pixels, the two in the middle of each 2^level: int64 [cells, 2]."""
    first = (np.arange(-(-side >> level)) << level) + (1 << (level - 1)) - 1
    return np.minimum(np.stack([first, first + 1], axis=1), side - 1)


def _clean(level: Level, nodata: float | None) -> Level:
    """A level in which what does not count is 0; the caller's array is left as it is."""
    pixels, validity = level
    if validity is None and nodata is None and pixels.dtype.kind != "f":
        return level
    shown = np.full(pixels.shape[1:], 255, np.uint8) if validity is None else validity
    return cleaned(pixels.copy(), shown, nodata), validity


def _whole(reader: TileReader, level: int) -> Level:
    """One level put together from tiles that do not overlap."""
    spec, side = reader.spec, reader.spec.base_px
    rows, cols = spec.shapes[level]
    down, across = -(-rows // side), -(-cols // side)
    batch = reader.read([Tile(level, 2 * row, 2 * col) for row in range(down) for col in range(across)])
    pixels = batch.pixels.reshape(down, across, spec.bands, side, side).transpose(2, 0, 3, 1, 4)
    validity = batch.validity.reshape(down, across, side, side).transpose(0, 2, 1, 3)
    whole = down * side, across * side
    shown = np.ascontiguousarray(pixels.reshape(spec.bands, *whole)[:, :rows, :cols])
    return shown, None if spec.all_valid else np.ascontiguousarray(validity.reshape(whole)[:rows, :cols])
