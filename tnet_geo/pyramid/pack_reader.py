"""Tiles of one packed site, from a folder or an object store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import lru_cache, partial
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from tnet_geo.errors import ArchiveMismatch, PlaceUnusable, SceneMissing, TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid.batches import REMOTE_READS, cause_of, open_sealed, submit_batch
from tnet_geo.pyramid.pack_index import opened_pack, pack_table
from tnet_geo.pyramid.pack_layout import PACKS, Pack
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.tiles import RasterSpec, ReadMeter, TileBatch

__all__ = ["PackReader", "find_packed", "packed_digest"]

OPEN_ARRAYS = 1024
"""Arrays of packs that stay open: some kB each."""


def find_packed(store: Store, scene_id: str, half_px: int | None = None) -> PackReader | None:
    """Tiles of a scene in one of the packs of the archive in `store`; None if it is in none.

    Raises:
        TileUnreadable: the pack's seal or index is damaged.
        ArchiveMismatch: the archive cannot serve `half_px`.
    """
    place = pack_table(store).find(scene_id)
    return None if place is None else PackReader(store, scene_id, *place, half_px=half_px)


def packed_digest(store: Store, scene_id: str) -> str | None:
    """What names the content of a packed scene of the archive in `store`; None if it is in no pack."""
    return pack_table(store).digest(scene_id)


class PackReader:
    """Answers tiles of one site of a sealed pack; meets the contract of `TileReader`.

    The seal and the index of a pack, and its open arrays, serve all of its sites in the process. From an
    object store the meter counts bytes and requests as `RemoteReads` says.
    """

    def __init__(
        self, store: Store, scene_id: str, pack_id: str, slot: int, *, half_px: int | None = None
    ) -> None:
        """Prefer `find_packed`, which knows pack and slot. `store` is that of the archive.

        Raises:
            SceneMissing: there is no such site.
            TileUnreadable: the pack's seal or index is damaged, or the place does not answer.
            ArchiveMismatch: the archive cannot serve `half_px`.
        """
        self._store, self._pack_id, self._slot, self._half_px = store, pack_id, slot, half_px
        try:
            pack = opened_pack(store, pack_id)
        except (OSError, ValueError, PlaceUnusable) as error:
            raise TileUnreadable(scene_id, "whole site", str(error)) from error
        if pack is None or pack.scene_id(slot) != scene_id:
            raise SceneMissing(scene_id, store.url)
        stored = pack.layout.half_px
        if half_px is not None and (half_px < 1 or half_px % stored):
            raise ArchiveMismatch(store.url, f"half_px {stored}", f"half_px {half_px}, no multiple of it,")
        self._pack = pack
        self._spec = pack.spec(slot, half_px)
        self._meter = ReadMeter()
        self._remote = None if store.local else self._meter

    @property
    def store(self) -> Store:
        """The archive's place."""
        return self._store

    @property
    def pack_id(self) -> str:
        """The pack that the site is in."""
        return self._pack_id

    @property
    def slot(self) -> int:
        """Where it is in there."""
        return self._slot

    @property
    def spec(self) -> RasterSpec:
        """The site's pyramid on the reader's lattice."""
        return self._spec

    @property
    def meter(self) -> ReadMeter:
        """What this reader has read so far."""
        return self._meter

    def __reduce__(self) -> tuple[Any, ...]:
        facts = self._store, self._spec.scene_id, self._pack_id, self._slot
        return partial(PackReader, half_px=self._half_px), facts

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        """The pixels of `tiles`; see `TileReader`. Raises: TileUnreadable."""
        return self.submit(tiles).result()

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        """The same without waiting: all reads are under way when this returns."""
        self._meter.add(self._spec, tiles)
        return submit_batch(self._spec, tiles, self._array, self._remote)

    def _array(self, level: int, name: str) -> ts.TensorStore:
        """The site's part of an array: `data` [bands, y, x] or `valid` [y, x]."""
        return _opened_array(self._store, self._pack_id, level, name)[self._slot]

    def read_level(self, level: int) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """A whole level: pixels [bands, y, x] as stored, and validity [y, x], None if all are valid.

        Pixels that do not count are what the source has there. Tiles and chunks are not metered.

        Raises: TileUnreadable.
        """
        try:
            with REMOTE_READS.counted(self._remote):
                pixels = self._array(level, "data").read().result()
                validity = None if self._spec.all_valid else self._array(level, "valid").read().result()
        except (ValueError, OSError) as error:
            raise TileUnreadable(self._spec.scene_id, f"level {level}", cause_of(error)) from error
        return pixels, validity


@lru_cache(maxsize=OPEN_ARRAYS)
def _opened_array(store: Store, pack_id: str, level: int, name: str) -> ts.TensorStore:
    """An array of a sealed pack. Raises: ValueError, OSError."""
    pack: Pack | None = opened_pack(store, pack_id)
    if pack is None:
        raise ValueError(f"pack {pack_id} is gone")
    kvstore = store.kvstore(f"{PACKS}/{pack_id}/{level}/{name}")
    return open_sealed(kvstore, pack.layout.array_metadata(level, name))
