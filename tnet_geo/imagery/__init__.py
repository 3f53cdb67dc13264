"""What the world gives: rasters, windows over them, and the tables that list them."""

from tnet_geo.imagery.check import ManifestCheck, Problem, check_manifest
from tnet_geo.imagery.datasets import DataSet, data_set, data_sets
from tnet_geo.imagery.fmow import FmowOptions, manifest_from_fmow
from tnet_geo.imagery.folder import manifest_from_folder
from tnet_geo.imagery.manifest import Manifest, Site, read_manifest, write_manifest
from tnet_geo.imagery.raster import RasterInfo, RasterSource, open_raster, source_digest
from tnet_geo.imagery.report import LeftOut, ManifestReport, report_of
from tnet_geo.imagery.splits import split_of
from tnet_geo.imagery.stac import manifest_from_stac
from tnet_geo.imagery.windows import manifest_from_windows

__all__ = [
    "DataSet",
    "FmowOptions",
    "LeftOut",
    "Manifest",
    "ManifestCheck",
    "ManifestReport",
    "Problem",
    "RasterInfo",
    "RasterSource",
    "Site",
    "check_manifest",
    "data_set",
    "data_sets",
    "manifest_from_fmow",
    "manifest_from_folder",
    "manifest_from_stac",
    "manifest_from_windows",
    "open_raster",
    "read_manifest",
    "report_of",
    "source_digest",
    "split_of",
    "write_manifest",
]
