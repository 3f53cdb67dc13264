"""What the world gives: rasters, windows over them, and the tables that list them."""

from tnet_geo.imagery.folder import manifest_from_folder
from tnet_geo.imagery.manifest import Manifest, Site, read_manifest, write_manifest
from tnet_geo.imagery.raster import RasterInfo, RasterSource, open_raster, source_digest
from tnet_geo.imagery.splits import split_of
from tnet_geo.imagery.windows import manifest_from_windows

__all__ = [
    "Manifest",
    "RasterInfo",
    "RasterSource",
    "Site",
    "manifest_from_folder",
    "manifest_from_windows",
    "open_raster",
    "read_manifest",
    "source_digest",
    "split_of",
    "write_manifest",
]
