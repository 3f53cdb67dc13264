"""About how many requests and bytes a walk takes from an archive that is far away, before one is made."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from tnet_geo.errors import SetAside
from tnet_geo.grid import Window
from tnet_geo.imagery.remote import remote_file
from tnet_geo.operations.forecasting.expected import Expected
from tnet_geo.pyramid import Archive, CogReader, SceneArchive
from tnet_geo.pyramid.pack_index import opened_pack
from tnet_geo.pyramid.pack_layout import PACKS
from tnet_geo.pyramid.pack_reader import PackReader

if TYPE_CHECKING:
    from tnet_geo.pyramid.tiles import RasterSpec, TileReader

__all__ = ["Fetches"]

SCENES_WEIGHED = 3
"""Scenes whose stored bytes are compared with what they decode to."""
NEAR = 64 << 10
"""Ranges nearer to each other than this are one request."""
INDEX_ENTRY = 16
"""Bytes of a chunk in the index of its shard."""


class Fetches:
    """Of one archive. Any thread may ask. Local files take neither requests nor fetched bytes.

    What opening took is what the reader's meter says. Of a pyramid a tile is two ranges, for two rows of
    chunks, and of every shard in whose middle a walk comes first its index is one. Of a COG a tile is as
    many ranges as it has rows of blocks. A level is never more than itself: ranges that lie near each other
    are one, and chunks are fetched once. Bytes are decoded ones times how much smaller some of the scenes
    are as they are stored. Real walks take fewer requests where tiles are neighbours, and more where they
    lie on the edge of shards.
    """

    def __init__(self, archive: SceneArchive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._weighed: dict[str, float] = {}
        self._shards: set[tuple[str, int, int, int]] = set()

    def of(self, reader: TileReader, window: Window, expected: Expected) -> tuple[float, float]:
        """Requests, and bytes over the network, of one walk with a reader that has just been opened."""
        archive, opened, spec = self._archive, reader.meter.snapshot(), reader.spec
        far = isinstance(archive, Archive) and not archive.store.local
        if not far and not opened.requests:
            return 0.0, 0.0
        requests, fetched = float(opened.requests), float(opened.bytes_fetched)
        rows = 2.0 if far else 1 + spec.base_px / spec.chunk_sides[0]
        share = self._share(reader)
        for layer in expected.levels:
            stored = share * _level_bytes(spec, layer.level)
            requests += min(rows * layer.tiles, 1 + stored // NEAR)
            fetched += min(share * layer.bytes_decoded, stored)
        if isinstance(archive, Archive) and far:
            indexes = self._indexes(reader, window, expected, archive.settings.shard_px)
            requests += indexes
            fetched += indexes * INDEX_ENTRY * archive.settings.shard_chunks**2
        return requests, fetched

    def _indexes(self, reader: TileReader, window: Window, expected: Expected, shard_px: int) -> int:
        """Shards on the way to the middle of a window that no walk before has come to."""
        name = reader.pack_id if isinstance(reader, PackReader) else reader.spec.scene_id
        row, col = window.row + window.height // 2, window.col + window.width // 2
        levels = [layer.level for layer in expected.levels[1:]]  # the coarsest comes with its index
        met = {(name, at, row // (shard_px << at), col // (shard_px << at)) for at in levels}
        with self._lock:
            new = met - self._shards
            self._shards |= new
        return len(new)

    def _share(self, reader: TileReader) -> float:
        """Stored bytes for each decoded one, of this scene or of others that were weighed before."""
        name = reader.pack_id if isinstance(reader, PackReader) else reader.spec.scene_id
        with self._lock:
            if name not in self._weighed and len(self._weighed) < SCENES_WEIGHED:
                self._weighed[name] = self._weigh(reader)
            return self._weighed.get(name) or sum(self._weighed.values()) / len(self._weighed)

    def _weigh(self, reader: TileReader) -> float:
        spec, archive = reader.spec, self._archive
        decoded = sum(_level_bytes(spec, level) for level in range(spec.levels))
        try:
            if isinstance(reader, CogReader):
                return remote_file(reader.source).size / decoded
            assert isinstance(archive, Archive), "others are local"
            if isinstance(reader, PackReader):
                pack = opened_pack(archive.store, reader.pack_id)
                decoded *= pack.layout.sites if pack else 1
                store = archive.store.at(PACKS, reader.pack_id)
            else:
                store = archive.scene_store(spec.scene_id)
            return sum(size for key, size in store.sizes() if "/c/" in key) / decoded
        except SetAside:
            return 1.0


def _level_bytes(spec: RasterSpec, level: int) -> int:
    """Of all its pixels, decoded, with their validity where that is stored."""
    rows, cols = spec.shapes[level]
    return rows * cols * (spec.bands * np.dtype(spec.dtype).itemsize + (0 if spec.all_valid else 1))
