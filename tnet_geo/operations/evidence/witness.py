"""An archive that remembers which tiles its readers were asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future

from tnet_geo.grid import Tile
from tnet_geo.operations.around import ArchiveAround
from tnet_geo.pyramid import RasterSpec, ReadMeter, SceneArchive, TileBatch, TileReader

__all__ = ["WatchedArchive"]


class WatchedArchive(ArchiveAround):
    """Remembers, by scene, what it was asked for."""

    def __init__(self, archive: SceneArchive) -> None:
        super().__init__(archive)
        self.asked: dict[str, set[Tile]] = defaultdict(set)
        """By scene_id."""

    def reader(self, scene_id: str, half_px: int | None = None) -> TileReader:
        """See `SceneArchive`."""
        return _WatchedReader(self._archive.reader(scene_id, half_px), self.asked[scene_id])


class _WatchedReader:
    """Otherwise the reader that it was made of."""

    def __init__(self, reader: TileReader, asked: set[Tile]) -> None:
        self._reader, self._asked = reader, asked

    @property
    def spec(self) -> RasterSpec:
        """Of the reader."""
        return self._reader.spec

    @property
    def meter(self) -> ReadMeter:
        """Of the reader."""
        return self._reader.meter

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        """See `TileReader`."""
        self._asked.update(tiles)
        return self._reader.read(tiles)

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        """See `TileReader`."""
        self._asked.update(tiles)
        return self._reader.submit(tiles)
