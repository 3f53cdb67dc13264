"""What a walk saw, as pictures that a screen can show: the ground below its root, and each of its looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tnet_geo.grid import Tile, Window, disjoint_tiles, footprint
from tnet_geo.pyramid import TileReader
from tnet_geo.results.walks import Walk

__all__ = ["Picture", "Scenery", "Scenes", "scenery_of"]

Picture = NDArray[np.uint8]
"""[rows, cols, 3], red, green, blue."""

PERCENTILES = (2, 98)
"""Of the valid pixels of a band that become black and white, where a pixel is no byte."""

NO_DATA = 128
"""The grey of ground that holds no valid pixel."""


class Scenes(Protocol):
    """Where scenes are read from; an `Archive` is one."""

    def reader(self, scene_id: str, half_px: int | None = None) -> TileReader:
        """Tiles of one scene on the lattice of `half_px`."""
        ...


@dataclass(frozen=True, slots=True)
class Scenery:
    """Pictures of one walk."""

    ground: Window
    """What `picture` shows, in native pixels: the root's tile, as far as there is a scene."""
    beyond: bool
    """Whether that is more than the site, whose edge is then worth drawing."""
    picture: Picture
    crops: tuple[Picture, ...]
    """One per look, [base_px, base_px, 3]: pixel for pixel what the network was given, no data in grey."""


def scenery_of(walk: Walk, scenes: Scenes, longest_px: int = 768) -> Scenery:
    """Read the ground of a walk at the finest level whose longer side has at most `longest_px` pixels.

    One stretch serves all pictures of a walk, so that a colour means the same in all of them.

    Raises:
        SceneMissing, TileUnreadable: the scene is gone or damaged.
        ArchiveMismatch: the archive's lattice is not the walk's.
    """
    reader = scenes.reader(walk.scene_id, walk.half_px)
    ground = _clipped(walk.windows[0], reader.spec.shape)
    beyond = not walk.window.contains(ground)
    level = 0
    while max(ground.height, ground.width) >> level > longest_px and level + 1 < reader.spec.levels:
        level += 1
    ground = _whole_pixels(ground, level)
    pixels, validity = _mosaic(reader, ground, level)
    stretch = _Stretch.of(pixels, validity)
    looks = reader.read([look.tile for look in walk.looks])
    crops = tuple(stretch.picture(*pair) for pair in zip(looks.pixels, looks.validity, strict=True))
    return Scenery(ground, beyond, stretch.picture(pixels, validity), crops)


def _clipped(window: Window, shape: tuple[int, int]) -> Window:
    """The part of a window that a scene of `shape` has."""
    height, width = min(window.bottom, shape[0]) - window.row, min(window.right, shape[1]) - window.col
    return Window(window.row, window.col, height, width)


def _whole_pixels(window: Window, level: int) -> Window:
    """The window grown to whole pixels of a level; its first pixel lies on the lattice already."""
    height, width = -(-window.height >> level) << level, -(-window.width >> level) << level
    return Window(window.row, window.col, height, width)


def _mosaic(reader: TileReader, ground: Window, level: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Pixels [bands, y, x] and validity [y, x] of `ground` at one level, put together from tiles."""
    half_px, side = reader.spec.half_px, reader.spec.base_px
    tiles = list(disjoint_tiles(ground, level, half_px))
    batch = reader.read(tiles)
    first = tiles[0]
    down = (max(tile.row for tile in tiles) - first.row) // 2 + 1
    across = len(tiles) // down
    pixels = batch.pixels.reshape(down, across, -1, side, side).transpose(2, 0, 3, 1, 4)
    validity = batch.validity.reshape(down, across, side, side).transpose(0, 2, 1, 3)
    here = _part(ground, footprint(Tile(level, first.row, first.col), half_px), level)
    whole = (down * side, across * side)
    return pixels.reshape(-1, *whole)[:, *here], validity.reshape(whole)[here]


def _part(ground: Window, origin: Window, level: int) -> tuple[slice, slice]:
    """Where `ground` lies in pixels of a level that begin at `origin`."""
    top, left = (ground.row - origin.row) >> level, (ground.col - origin.col) >> level
    return slice(top, top + (ground.height >> level)), slice(left, left + (ground.width >> level))


@dataclass(frozen=True, slots=True)
class _Stretch:
    """From pixels of any kind to bytes: which bands are shown, and what becomes black and white."""

    bands: tuple[int, int, int]
    limits: Sequence[tuple[float, float]] | None
    """Per shown band; None where pixels are bytes already."""

    @classmethod
    def of(cls, pixels: NDArray[Any], validity: NDArray[np.uint8]) -> _Stretch:
        bands = (0, 1, 2) if len(pixels) >= 3 else (0, 0, 0)
        if pixels.dtype == np.uint8:
            return cls(bands, None)
        limits = []
        for band in bands:
            values = pixels[band][(validity > 0) & np.isfinite(pixels[band])]
            low, high = np.percentile(values, PERCENTILES) if values.size else (0.0, 1.0)
            limits.append((float(low), float(max(high, np.nextafter(low, np.inf)))))
        return cls(bands, limits)

    def picture(self, pixels: NDArray[Any], validity: NDArray[np.uint8]) -> Picture:
        """Pixels [bands, y, x] as a picture [y, x, 3]; what is not valid is grey."""
        shown = pixels[list(self.bands)].transpose(1, 2, 0)
        if self.limits is not None:
            low, high = np.array(self.limits, np.float64).T
            share = np.nan_to_num((shown.astype(np.float64) - low) / (high - low))
            shown = np.clip(np.rint(255 * share), 0, 255)
        picture: Picture = np.where(validity[..., None] > 0, shown, NO_DATA).astype(np.uint8)
        return picture
