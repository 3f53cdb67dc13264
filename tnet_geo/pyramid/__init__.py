"""Scenes at all levels: reduced, stored, sealed, and read tile by tile."""

from tnet_geo.pyramid.archive import Archive, SceneArchive, create_archive, open_archive
from tnet_geo.pyramid.memory import MemoryReader
from tnet_geo.pyramid.reader import SceneReader
from tnet_geo.pyramid.reduce import halve
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.pyramid.tiles import RasterSpec, ReadCount, ReadMeter, TileBatch, TileReader

__all__ = [
    "Archive",
    "ArchiveSettings",
    "MemoryReader",
    "RasterSpec",
    "ReadCount",
    "ReadMeter",
    "SceneArchive",
    "SceneReader",
    "TileBatch",
    "TileReader",
    "create_archive",
    "halve",
    "open_archive",
]
