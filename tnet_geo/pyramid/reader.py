"""Tiles of one stored scene, read by tensorstore: all reads of a batch under way before any is awaited."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from tnet_geo.errors import ArchiveMismatch, SceneMissing, TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid.layout import SceneLayout, read_layout
from tnet_geo.pyramid.tiles import RasterSpec, ReadMeter, Region, TileBatch

__all__ = ["SceneReader"]


@cache
def _context() -> ts.Context:
    """One per process: its pools of threads, and a cache for the indexes of shards."""
    return ts.Context({"cache_pool": {"total_bytes_limit": 32 << 20}})


class SceneReader:
    """Answers tiles from a sealed scene of an archive; meets the contract of `TileReader`.

    Opening reads one small file; arrays are opened at the first look at their level, from what the
    seal says, without another read.
    """

    def __init__(self, path: str | Path, half_px: int | None = None) -> None:
        """`path` is the scene's folder; `half_px` a multiple of the stored one, which is the default.

        Raises:
            SceneMissing: there is no sealed scene.
            TileUnreadable: its seal is damaged.
            ArchiveMismatch: the archive cannot serve `half_px`.
        """
        self.path = Path(os.path.abspath(path))
        self._half_px = half_px
        scene_id, archive = self.path.name, str(self.path.parent.parent)
        try:
            self._layout = read_layout(self.path)
        except FileNotFoundError as error:
            raise SceneMissing(scene_id, archive) from error
        except (OSError, ValueError) as error:
            raise TileUnreadable(scene_id, "whole scene", str(error)) from error
        stored = self._layout.half_px
        if half_px is not None and (half_px < 1 or half_px % stored):
            raise ArchiveMismatch(archive, f"half_px {stored}", f"half_px {half_px}, no multiple of it,")
        self._spec = self._layout.spec(half_px)
        self._meter = ReadMeter()
        self._arrays: dict[tuple[int, str], ts.TensorStore] = {}

    @property
    def spec(self) -> RasterSpec:
        """The scene's pyramid on the reader's lattice."""
        return self._spec

    @property
    def meter(self) -> ReadMeter:
        """What this reader has read so far."""
        return self._meter

    def __reduce__(self) -> tuple[type[SceneReader], tuple[Path, int | None]]:
        return SceneReader, (self.path, self._half_px)

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        """The pixels of `tiles`; see `TileReader`. Raises: TileUnreadable."""
        return self.submit(tiles).result()

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        """The same without waiting: all reads are under way when this returns."""
        self._meter.add(self._spec, tiles)
        pending = _PendingBatch(self._spec, tiles)
        with ts.Batch() as batch:  # reads of one shard share its index and neighbouring ranges
            for tile in dict.fromkeys(tiles):
                overlap = self._spec.overlap(tile)
                if overlap is not None:
                    self._issue(pending, tile, overlap, batch)
        pending.all_issued()
        return pending.future

    def _issue(
        self, pending: _PendingBatch, tile: Tile, overlap: tuple[Region, Region], batch: ts.Batch
    ) -> None:
        """Start the reads of one tile."""
        here, there = overlap
        names = ("data",) if self._layout.all_valid else ("data", "valid")
        for name in names:
            try:
                array = self._array(tile.level, name)
                pending.add(tile, name, here, array[..., *there].read(batch=batch))
            except (ValueError, OSError) as error:
                pending.fail(tile, error)

    def _array(self, level: int, name: str) -> ts.TensorStore:
        """The open array of a level. Two threads may open it at once; either result serves."""
        array = self._arrays.get((level, name))
        if array is None:
            array = ts.open(_open_spec(self.path, self._layout, level, name), context=_context()).result()
            self._arrays[level, name] = array
        return array

    def read_level(self, level: int) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """A whole level: pixels [bands, y, x] and validity [y, x], None if all are valid; not metered.

        Raises: TileUnreadable.
        """
        try:
            pixels = self._array(level, "data").read().result()
            if self._layout.all_valid:
                return pixels, None
            return pixels, self._array(level, "valid").read().result()
        except (ValueError, OSError) as error:
            raise TileUnreadable(self.spec.scene_id, f"level {level}", _cause(error)) from error


def _open_spec(path: Path, layout: SceneLayout, level: int, name: str) -> dict[str, Any]:
    """What tensorstore needs to open an array that is known to exist and never to change."""
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{path}/{level}/{name}/"},
        "metadata": layout.array_metadata(level, name),
        "open": True,
        "assume_metadata": True,
        "fill_missing_data_reads": False,  # a lost shard is an error, never black
        "recheck_cached_metadata": "open",
        "recheck_cached_data": "open",
    }


class _PendingBatch:
    """A batch whose reads are under way; the last one to end completes the future."""

    def __init__(self, spec: RasterSpec, tiles: Sequence[Tile]) -> None:
        self.future: Future[TileBatch] = Future()
        self._spec, self._tiles = spec, tuple(tiles)
        self._lock = threading.Lock()
        self._open = 1  # released by all_issued, so that an early read cannot complete the batch
        self._parts: list[tuple[Tile, str, Region, ts.Future[Any]]] = []
        self._damage: dict[Tile, Exception] = {}

    def add(self, tile: Tile, name: str, here: Region, read: ts.Future[Any]) -> None:
        """Take in one read; `here` is its place in the tile."""
        with self._lock:
            self._open += 1
            self._parts.append((tile, name, here, read))
        read.add_done_callback(self._one_done)

    def fail(self, tile: Tile, error: Exception) -> None:
        """Remember that a read of `tile` failed."""
        self._damage.setdefault(tile, error)

    def all_issued(self) -> None:
        """No more reads will come."""
        self._one_done(None)

    def _one_done(self, _: object) -> None:
        with self._lock:
            self._open -= 1
            if self._open:
                return
        try:
            self.future.set_result(self._assembled())
        except Exception as error:  # noqa: BLE001  whoever waits for the future must hear of it
            self.future.set_exception(error)

    def _assembled(self) -> TileBatch:
        """The batch, every read being done."""
        spec, side = self._spec, self._spec.base_px
        places: dict[Tile, list[int]] = {}
        for index, tile in enumerate(self._tiles):
            places.setdefault(tile, []).append(index)
        pixels = np.zeros((len(self._tiles), spec.bands, side, side), spec.dtype)
        validity = np.zeros((len(self._tiles), side, side), np.uint8)
        for tile, name, here, read in self._parts:
            try:
                part = read.result()
            except (ValueError, OSError) as error:
                self.fail(tile, error)
                continue
            for index in places[tile]:
                if name == "valid":
                    validity[index, *here] = part
                else:
                    pixels[index, :, *here] = part
                    if spec.all_valid:
                        validity[index, *here] = 255
        for tile in self._tiles:
            if tile in self._damage:
                damage = self._damage[tile]
                raise TileUnreadable(spec.scene_id, _tile_text(tile), _cause(damage)) from damage
        return TileBatch(pixels, validity)


def _tile_text(tile: Tile) -> str:
    return f"tile (level {tile.level}, row {tile.row}, column {tile.col})"


def _cause(error: Exception) -> str:
    """tensorstore's message without its trail of source lines and of the whole open specification."""
    return re.sub(r"\s*\[(source locations|tensorstore_spec).*", "", str(error), flags=re.DOTALL)
