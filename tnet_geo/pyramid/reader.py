"""Tiles of one stored scene, from a folder or an object store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from tnet_geo.errors import ArchiveMismatch, PlaceUnusable, SceneMissing, TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid.batches import REMOTE_READS, cause_of, open_sealed, submit_batch
from tnet_geo.pyramid.layout import SEAL, SceneLayout
from tnet_geo.pyramid.store import Store, open_store
from tnet_geo.pyramid.tiles import RasterSpec, ReadMeter, TileBatch

__all__ = ["SceneReader"]


class SceneReader:
    """Answers tiles from a sealed scene of an archive; meets the contract of `TileReader`.

    Opening reads one small object; arrays are opened at the first look at their level, from what the
    seal says, without another read. From an object store the meter counts bytes and requests as
    `RemoteReads` says, retries and the indexes of shards among them.
    """

    def __init__(self, place: str | Path | Store, half_px: int | None = None) -> None:
        """`place` is the scene's own; `half_px` a multiple of the stored one, which is the default.

        Raises:
            SceneMissing: there is no sealed scene.
            TileUnreadable: its seal is damaged, or the place does not answer.
            ArchiveMismatch: the archive cannot serve `half_px`.
        """
        self._store = place if isinstance(place, Store) else open_store(place)
        self._half_px = half_px
        scene_id, archive = self._store.name, self._store.url.rsplit("/", 2)[0]
        try:
            seal = self._store.read(SEAL)
            if seal is None:
                raise SceneMissing(scene_id, archive)
            self._layout = SceneLayout.from_seal(seal)
        except (OSError, ValueError, PlaceUnusable) as error:
            raise TileUnreadable(scene_id, "whole scene", str(error)) from error
        stored = self._layout.half_px
        if half_px is not None and (half_px < 1 or half_px % stored):
            raise ArchiveMismatch(archive, f"half_px {stored}", f"half_px {half_px}, no multiple of it,")
        self._spec = self._layout.spec(half_px)
        self._meter = ReadMeter()
        self._remote = None if self._store.local else self._meter
        if self._remote is not None:
            self._remote.fetched(len(seal))
        self._arrays: dict[tuple[int, str], ts.TensorStore] = {}

    @property
    def place(self) -> str:
        """The scene's folder, absolute, or its address."""
        return self._store.url

    @property
    def path(self) -> Path:
        """The same as a path."""
        return Path(self._store.url)

    @property
    def spec(self) -> RasterSpec:
        """The scene's pyramid on the reader's lattice."""
        return self._spec

    @property
    def meter(self) -> ReadMeter:
        """What this reader has read so far."""
        return self._meter

    def __reduce__(self) -> tuple[type[SceneReader], tuple[Store, int | None]]:
        return SceneReader, (self._store, self._half_px)

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        """The pixels of `tiles`; see `TileReader`. Raises: TileUnreadable."""
        return self.submit(tiles).result()

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        """The same without waiting: all reads are under way when this returns."""
        self._meter.add(self._spec, tiles)
        return submit_batch(self._spec, tiles, self._array, self._remote)

    def _array(self, level: int, name: str) -> ts.TensorStore:
        """The open array of a level. Two threads may open it at once; either result serves."""
        array = self._arrays.get((level, name))
        if array is None:
            kvstore = self._store.kvstore(f"{level}/{name}")
            array = open_sealed(kvstore, self._layout.array_metadata(level, name))
            self._arrays[level, name] = array
        return array

    def read_level(self, level: int) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """A whole level: pixels [bands, y, x] as stored, and validity [y, x], None if all are valid.

        Pixels that do not count are what the source has there. Tiles and chunks are not metered.

        Raises: TileUnreadable.
        """
        try:
            with REMOTE_READS.counted(self._remote):
                pixels = self._array(level, "data").read().result()
                validity = None if self._layout.all_valid else self._array(level, "valid").read().result()
        except (ValueError, OSError) as error:
            raise TileUnreadable(self.spec.scene_id, f"level {level}", cause_of(error)) from error
        return pixels, validity
