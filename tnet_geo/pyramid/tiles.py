"""Pixels of tiles, wherever they are kept: what is asked for, what comes back, and what it cost."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tnet_geo.grid import Tile

__all__ = ["RasterSpec", "ReadCount", "ReadMeter", "Region", "TileBatch", "TileReader", "cleaned"]

Region = tuple[slice, slice]
"""Rows and columns of an array, as numpy slices it."""


@dataclass(frozen=True, slots=True)
class RasterSpec:
    """What a reader's pyramid is: one scene at all its levels, on one lattice."""

    scene_id: str
    bands: int
    dtype: str
    """numpy's name of the pixels' type, e.g. `uint8`."""
    half_px: int
    """Lattice step of the tiles that the reader answers, in pixels of any level."""
    shapes: tuple[tuple[int, int], ...]
    """Rows and columns of every level, native first."""
    crs: str | None
    """WKT or authority code; None where the source has none."""
    transform: tuple[float, float, float, float, float, float] | None
    """Affine a, b, c, d, e, f of level 0: x = a col + b row + c, y = d col + e row + f."""
    digest: str
    """Names the content: source bytes, build settings and format version."""
    all_valid: bool = True
    """Whether every pixel of the scene is valid, so that no validity is stored."""
    chunk_shape: tuple[int, int] | None = None
    """Rows and columns of a stored chunk in pixels; None means a square of half_px."""
    nodata: float | None = None
    """Value that no band's pixel counts with; it may be NaN."""

    @property
    def levels(self) -> int:
        """Number of levels, native included."""
        return len(self.shapes)

    @property
    def base_px(self) -> int:
        """Side of a tile, in pixels of its level."""
        return 2 * self.half_px

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of level 0."""
        return self.shapes[0]

    @property
    def chunk_sides(self) -> tuple[int, int]:
        """Rows and columns of a stored chunk, in pixels."""
        return self.chunk_shape or (self.half_px, self.half_px)

    def overlap(self, tile: Tile) -> tuple[Region, Region] | None:
        """Where the scene's part of `tile` lies: in the tile, and in the level's arrays.

        Both are slices of rows and columns, of equal sizes. None for ground beyond the scene and
        for levels that the scene does not have.
        """
        if not 0 <= tile.level < len(self.shapes):
            return None
        rows, cols = self.shapes[tile.level]
        half = self.half_px
        top, left = tile.row * half, tile.col * half
        first_row, last_row = max(0, top), min(top + 2 * half, rows)
        first_col, last_col = max(0, left), min(left + 2 * half, cols)
        if first_row >= last_row or first_col >= last_col:
            return None
        here = slice(first_row - top, last_row - top), slice(first_col - left, last_col - left)
        return here, (slice(first_row, last_row), slice(first_col, last_col))

    def tile_chunks(self, tile: Tile) -> int:
        """How many stored chunks of pixels `tile` is made of; none for ground beyond the scene."""
        overlap = self.overlap(tile)
        if overlap is None:
            return 0
        high, wide = self.chunk_sides
        rows, cols = overlap[1]
        down = -(-rows.stop // high) - rows.start // high
        across = -(-cols.stop // wide) - cols.start // wide
        return int(down * across)

    def tile_bytes(self, tile: Tile) -> int:
        """Bytes of the stored chunks that `tile` is made of, decoded, validity included."""
        return self.tile_chunks(tile) * self.chunk_bytes

    def cost(self, tiles: Iterable[Tile]) -> tuple[int, int]:
        """Chunks that `tiles` are made of together, and the bytes of them."""
        chunks = sum(map(self.tile_chunks, tiles))
        return chunks, chunks * self.chunk_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a stored chunk, decoded, with its validity where that is stored."""
        high, wide = self.chunk_sides
        per_pixel = self.bands * np.dtype(self.dtype).itemsize + (0 if self.all_valid else 1)
        return int(high * wide * per_pixel)


@dataclass(frozen=True, slots=True)
class TileBatch:
    """The pixels of n tiles in the order in which they were asked for; B is the reader's base_px."""

    pixels: NDArray[Any]
    """[n, bands, B, B] in the source's dtype; 0 beyond the scene and where a value does not count."""
    validity: NDArray[np.uint8]
    """[n, B, B], share of valid native pixels below each pixel, 0 to 255; 0 beyond the scene."""


def cleaned(pixels: NDArray[Any], validity: NDArray[np.uint8], nodata: float | None) -> NDArray[Any]:
    """Pixels [..., bands, y, x] with 0 wherever a value does not count, changed in place.

    A value counts when the validity [..., y, x] of its pixel is above 0, it is finite, and it is not
    `nodata`: what is below a mask, and the marks of missing values, never reach a network.
    """
    absent = np.broadcast_to((validity == 0)[..., None, :, :], pixels.shape)
    if pixels.dtype.kind == "f":
        absent = absent | ~np.isfinite(pixels)
    if nodata is not None and np.isfinite(nodata):
        absent = absent | (pixels == nodata)
    if absent.any():
        pixels[absent] = 0
    return pixels


@dataclass(frozen=True, slots=True)
class ReadCount:
    """What has been read so far."""

    tiles: int = 0
    chunks: int = 0
    bytes_decoded: int = 0
    bytes_fetched: int = 0
    requests: int = 0


class ReadMeter:
    """Counts what a reader has read. Any thread may add; a pickled meter begins at zero."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = ReadCount()

    def add(self, spec: RasterSpec, tiles: Iterable[Tile]) -> None:
        """Count one call's tiles, each distinct one once, with the chunks that they are made of."""
        distinct = set(tiles)
        chunks, decoded = spec.cost(distinct)
        with self._lock:
            seen = self._count
            self._count = replace(
                seen,
                tiles=seen.tiles + len(distinct),
                chunks=seen.chunks + chunks,
                bytes_decoded=seen.bytes_decoded + decoded,
            )

    def decoded(self, size: int, chunks: int) -> None:
        """Count what was decoded beside the chunks of tiles, as to make a level that is not stored."""
        with self._lock:
            seen = self._count
            self._count = replace(seen, bytes_decoded=seen.bytes_decoded + size, chunks=seen.chunks + chunks)

    def fetched(self, size: int, requests: int = 1) -> None:
        """Count what came over a network: bytes, headers of files included, and the requests for them."""
        with self._lock:
            seen = self._count
            self._count = replace(
                seen, bytes_fetched=seen.bytes_fetched + size, requests=seen.requests + requests
            )

    def snapshot(self) -> ReadCount:
        """The counts at this moment, all from the same moment."""
        with self._lock:
            return self._count

    def reset(self) -> ReadCount:
        """Begin at zero again; gives what had been counted."""
        with self._lock:
            seen, self._count = self._count, ReadCount()
            return seen

    @property
    def tiles(self) -> int:
        """Distinct tiles read, counted once per call."""
        return self.snapshot().tiles

    @property
    def chunks(self) -> int:
        """Stored chunks of pixels that those tiles are made of."""
        return self.snapshot().chunks

    @property
    def bytes_decoded(self) -> int:
        """Bytes of those chunks, decoded, validity included."""
        return self.snapshot().bytes_decoded

    @property
    def bytes_fetched(self) -> int:
        """Bytes that came over a network, headers of files included; 0 for local files."""
        return self.snapshot().bytes_fetched

    @property
    def requests(self) -> int:
        """Requests over a network; 0 for local files."""
        return self.snapshot().requests

    def __reduce__(self) -> tuple[type[ReadMeter], tuple[()]]:
        return ReadMeter, ()


class TileReader(Protocol):
    """Pixels of tiles, wherever they are kept. One contract, one test suite, many readers.

    order     the batch answers tiles as asked, duplicates included; a duplicate is read once
    shape     pixels [n, bands, B, B] in the source's dtype; validity uint8 [n, B, B]; B = 2 half_px
    outside   ground beyond the scene is pixel 0, validity 0; never an error
    clean     a value that does not count (invalid, nodata, not finite) is 0: see `cleaned`
    damage    TileUnreadable names scene, tile and cause; a bad chunk never becomes zeros
    cost      the meter grows by `spec.tile_bytes` of every distinct tile of a call
    threads   any thread may read; pickling gives a reader of the same source, meter at zero
    """

    @property
    def spec(self) -> RasterSpec:
        """The pyramid that is read."""
        ...

    @property
    def meter(self) -> ReadMeter:
        """What this reader has read so far."""
        ...

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        """The pixels of `tiles`. Raises: TileUnreadable."""
        ...

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        """The same without waiting: all reads are under way when this returns."""
        ...
