"""A table of windows over scenes as a manifest: windows in pixels or in map coordinates."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from shapely.geometry.base import BaseGeometry

from tnet_geo.errors import InvalidManifest, SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.manifest import (
    ABOUT,
    REQUIRED,
    WINDOW,
    Manifest,
    Site,
    folder_of,
    scene_id_of,
    scene_place,
    scene_text,
    write_manifest,
)
from tnet_geo.imagery.raster import RasterInfo, open_raster
from tnet_geo.imagery.windows_table import Row, WindowTable, read_windows

__all__ = ["manifest_from_windows"]

BOUNDS = ("min_x", "min_y", "max_x", "max_y")
_KNOWN = (*REQUIRED, "scene_id", "label", "split", "date", *ABOUT, *WINDOW, *BOUNDS, "crs")
_PIXELS_HELP = f"give {', '.join(WINDOW)} in pixels, or {', '.join(BOUNDS)} in map coordinates"
_TINY = 1e-6
"""Pixels: bounds on a pixel's own edge must not reach into its neighbour by rounding."""
_STEPS = 21
"""Pieces of an edge that bends when it is turned into another reference system, as PROJ takes for bounds."""

_log = logging.getLogger(__name__)


def manifest_from_windows(table: str | Path, out: str | Path, *, layer: str | None = None) -> Manifest:
    """Write the manifest of a table of windows: CSV, GeoJSON, GeoPackage, GeoParquet or Parquet.

    Columns: site_id and scene (relative to the table), and either `row_off, col_off, height, width` in native
    pixels or `min_x, min_y, max_x, max_y` in map coordinates of column `crs` (by default the scene's own), or
    the shape of the row; what lies between pixels is rounded outwards. Windows are clipped to their scenes.
    scene_id, label, split (`none` is none), date, gsd, country, footprint and cloud_cover are kept; other
    columns are ignored, which is logged. `layer` is needed where a GeoPackage has several.

    Raises:
        InvalidManifest: a column is missing, a window is not one of numbers or misses its scene, map
            coordinates cannot be placed because the scene cannot be opened or has no georeference, or the
            table cannot be read.
        OutputExists: `out` is there.
    """
    name = str(table)
    read = read_windows(Path(table), layer)
    for column in REQUIRED:
        if column not in read.columns:
            remedy = f"add it; it has {', '.join(read.columns)}"
            raise InvalidManifest(name, f"has no column {column!r}", remedy)
    if not (read.shapes or any(set(window) <= set(read.columns) for window in (WINDOW, BOUNDS))):
        raise InvalidManifest(name, "has no windows", _PIXELS_HELP)
    ignored = [column for column in read.columns if column not in _KNOWN]
    if ignored:
        _log.info("%s: columns that are not used: %s", name, ", ".join(ignored))
    windows = _Windows(name, read, folder_of(table), folder_of(out))
    return write_manifest([windows.site(row) for row in read.rows], out)


@dataclass
class _Windows:
    """Rows of a table as sites; each scene's header is read once."""

    table: str
    read: WindowTable
    folder: Path
    home: Path
    """Where the manifest will lie."""
    _headers: dict[str, RasterInfo | SourceUnreadable] = field(default_factory=dict)

    def site(self, line: Row) -> Site:
        row = line.text
        name, scene = row["site_id"], row["scene"]
        if not name or not scene:
            missing = "site_id" if not name else "scene"
            raise InvalidManifest(self.table, f"has a row without {missing}: {dict(row)}", "fill it in")
        place = scene_place(scene, self.folder)
        header = self._header(place)
        if any(row.get(column) for column in WINDOW):
            window = self._pixels(row)
        elif line.shape is not None:
            window = self._around(name, self._placed(name, header), line.shape)
        else:
            window = self._outwards(row, self._placed(name, header))
        if isinstance(header, RasterInfo):
            window = self._clipped(name, window, header.shape)
        split = row.get("split", "")
        return Site(
            site_id=name,
            scene=place,
            scene_id=row.get("scene_id") or scene_id_of(scene_text(place, self.home)),
            window=window,
            label=row.get("label") or None,
            split=None if split.lower() == "none" else split or None,
            date=row.get("date") or None,
            gsd=self._fact(row, "gsd"),
            country=row.get("country") or None,
            footprint=row.get("footprint") or None,
            cloud_cover=self._fact(row, "cloud_cover"),
        )

    def _header(self, place: str) -> RasterInfo | SourceUnreadable:
        """A scene that cannot be read is no reason to refuse the others: the build sets it aside."""
        if place not in self._headers:
            try:
                with open_raster(place) as raster:
                    self._headers[place] = raster.info
            except SourceUnreadable as error:
                self._headers[place] = error
        return self._headers[place]

    def _refuse(self, site: str, what: str, remedy: str) -> NoReturn:
        raise InvalidManifest(self.table, f"has {what} at site {site!r}", remedy)

    def _numbers(self, row: Mapping[str, str], columns: Sequence[str]) -> list[float]:
        try:
            numbers = [float(row.get(column, "")) for column in columns]
        except ValueError:
            self._refuse(row["site_id"], "no window of numbers", _PIXELS_HELP)
        if not all(map(math.isfinite, numbers)):
            self._refuse(row["site_id"], "a window that is not finite", _PIXELS_HELP)
        return numbers

    def _pixels(self, row: Mapping[str, str]) -> Window:
        numbers = self._numbers(row, WINDOW)
        if any(number % 1 for number in numbers):
            self._refuse(row["site_id"], "a window with part of a pixel", "give whole pixels")
        if min(numbers[2:]) < 1:
            self._refuse(row["site_id"], "a window without pixels", "give a height and width of 1 or more")
        return Window(*map(int, numbers))

    def _fact(self, row: Mapping[str, str], column: str) -> float | None:
        if not row.get(column):
            return None
        try:
            return float(row[column])
        except ValueError:
            self._refuse(row["site_id"], f"the {column} {row[column]!r}", "write a number, or nothing")

    def _placed(self, name: str, header: RasterInfo | SourceUnreadable) -> RasterInfo:
        """The header of a scene that map coordinates can be placed in."""
        if isinstance(header, SourceUnreadable):
            self._refuse(
                name, f"map coordinates over a scene that cannot be read ({header.cause})", "mend it"
            )
        if header.transform is None:
            self._refuse(
                name, "map coordinates over a scene without georeference", "give its window in pixels"
            )
        return header

    def _outwards(self, row: Mapping[str, str], header: RasterInfo) -> Window:
        """Whole pixels that the bounds touch, beyond the scene too."""
        name, bounds = row["site_id"], self._numbers(row, BOUNDS)
        if bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
            self._refuse(name, "a minimum that is not below its maximum", f"give {', '.join(BOUNDS)}")
        if row.get("crs"):
            bounds = self._turned(name, bounds, row["crs"], header.crs)
        return _pixels_of(np.array([(x, y) for x in bounds[0::2] for y in bounds[1::2]]), header)

    def _around(self, name: str, header: RasterInfo, shape: BaseGeometry) -> Window:
        """Whole pixels from the first to the last that the shape touches, beyond the scene too."""
        given, own = self.read.crs, header.crs
        points = shapely.get_coordinates(shape)
        if given is not None and own is None:
            what = "a shape with a reference system, and its scene has none"
            self._refuse(name, what, "give its window in pixels")
        if given is not None and own is not None:
            try:
                points = _bent(shape, given, own)
            except ProjError as error:
                cause = " ".join(str(error).split())
                self._refuse(name, f"a shape that cannot be placed ({cause})", "check it and its crs")
        if not np.isfinite(points).all():
            self._refuse(name, "a shape that is not finite", "check it and its crs")
        return _pixels_of(points, header)

    def _turned(self, name: str, bounds: list[float], given: str, own: str | None) -> list[float]:
        """Bounds in the scene's own CRS, around the edges as they bend."""
        if own is None:
            self._refuse(name, "a crs, and its scene has none", "leave it empty for coordinates of the scene")
        try:
            if CRS.from_user_input(given) == CRS.from_user_input(own):
                return bounds
            turn = Transformer.from_crs(given, own, always_xy=True)
            west, south, east, north = bounds
            turned = list(turn.transform_bounds(west, south, east, north, errcheck=True))
        except ProjError as error:
            cause = " ".join(str(error).split())
            self._refuse(name, f"bounds that {given} cannot place ({cause})", "check its crs and numbers")
        if not all(map(math.isfinite, turned)):
            self._refuse(name, f"bounds that {given} cannot place", "check its crs and numbers")
        return turned

    def _clipped(self, name: str, window: Window, shape: tuple[int, int]) -> Window:
        top, left = max(0, window.row), max(0, window.col)
        bottom, right = min(shape[0], window.bottom), min(shape[1], window.right)
        if bottom <= top or right <= left:
            what = f"a window outside its scene of {shape[0]} rows and {shape[1]} columns"
            self._refuse(name, what, "check its numbers, their order and their crs")
        return Window(top, left, bottom - top, right - left)


def _pixels_of(points: NDArray[np.float64], header: RasterInfo) -> Window:
    """Whole pixels around `points` [n, 2], x and y in the scene's reference system."""
    assert header.transform is not None  # for mypy: `_placed` has seen to it
    a, b, c, d, e, f = tuple(~Affine(*header.transform))[:6]
    x, y = points.T
    cols, rows = a * x + b * y + c, d * x + e * y + f
    left, top = math.floor(cols.min() + _TINY), math.floor(rows.min() + _TINY)
    right, bottom = math.ceil(cols.max() - _TINY), math.ceil(rows.max() - _TINY)
    return Window(top, left, max(1, bottom - top), max(1, right - left))


def _bent(shape: BaseGeometry, given: str, own: str) -> NDArray[np.float64]:
    """Points [n, 2] along the edges of a shape, turned from one reference system into another."""
    if CRS.from_user_input(given) == CRS.from_user_input(own):
        return shapely.get_coordinates(shape)
    reach = float(np.ptp(shapely.get_coordinates(shape), axis=0).max())
    points = shapely.get_coordinates(shapely.segmentize(shape, reach / _STEPS) if reach > 0 else shape)
    turn = Transformer.from_crs(given, own, always_xy=True)
    return np.column_stack(turn.transform(points[:, 0], points[:, 1], errcheck=True))
