"""Scenes at all levels: reduced, stored, sealed, and read tile by tile."""

from tnet_geo.pyramid.archive import Archive, SceneArchive, create_archive, open_archive
from tnet_geo.pyramid.cog import CogReader
from tnet_geo.pyramid.cog_archive import CogArchive, cog_manifest, open_cogs
from tnet_geo.pyramid.memory import MemoryReader
from tnet_geo.pyramid.opening import open_scenes
from tnet_geo.pyramid.reader import SceneReader
from tnet_geo.pyramid.reduce import halve
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.pyramid.tiles import RasterSpec, ReadCount, ReadMeter, TileBatch, TileReader

__all__ = [
    "Archive",
    "ArchiveSettings",
    "CogArchive",
    "CogReader",
    "MemoryReader",
    "RasterSpec",
    "ReadCount",
    "ReadMeter",
    "SceneArchive",
    "SceneReader",
    "TileBatch",
    "TileReader",
    "cog_manifest",
    "create_archive",
    "halve",
    "open_archive",
    "open_cogs",
    "open_scenes",
]
