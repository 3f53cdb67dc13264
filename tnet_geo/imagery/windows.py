"""A table of windows over scenes as a manifest: windows in pixels or in map coordinates."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from tnet_geo.errors import InvalidManifest, SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.manifest import (
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

__all__ = ["manifest_from_windows"]

BOUNDS = ("min_x", "min_y", "max_x", "max_y")
_KNOWN = (*REQUIRED, "scene_id", "label", "split", "date", *WINDOW, *BOUNDS, "crs")
_PIXELS_HELP = f"give {', '.join(WINDOW)} in pixels, or {', '.join(BOUNDS)} in map coordinates"
_TINY = 1e-6
"""Pixels: bounds on a pixel's own edge must not reach into its neighbour by rounding."""

_log = logging.getLogger(__name__)


def manifest_from_windows(table: str | Path, out: str | Path) -> Manifest:
    """Write the manifest of a CSV of windows.

    Columns: site_id and scene (relative to the CSV), and either `row_off, col_off, height, width` in native
    pixels or `min_x, min_y, max_x, max_y` in map coordinates of column `crs` (by default the scene's own),
    rounded outwards to whole pixels. Windows are clipped to their scenes. scene_id, label, split (`none` is
    none) and date are kept; other columns are ignored, which is logged.

    Raises:
        InvalidManifest: a column is missing, a window is not one of numbers or misses its scene, or map
            coordinates cannot be placed because the scene cannot be opened or has no georeference.
        OutputExists: `out` is there.
    """
    name = str(table)
    columns, rows = _read(Path(table))
    for column in REQUIRED:
        if column not in columns:
            raise InvalidManifest(name, f"has no column {column!r}", f"add it; it has {', '.join(columns)}")
    if not any(set(window) <= set(columns) for window in (WINDOW, BOUNDS)):
        raise InvalidManifest(name, "has no windows", _PIXELS_HELP)
    ignored = [column for column in columns if column not in _KNOWN]
    if ignored:
        _log.info("%s: columns that are not used: %s", name, ", ".join(ignored))
    windows = _Windows(name, folder_of(table), folder_of(out))
    return write_manifest([windows.site(row) for row in rows], out)


def _read(table: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """Names of the columns, and rows without white space around values; what is missing is empty."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            rows = [{key: value.strip() for key, value in row.items() if key} for row in reader]
            return reader.fieldnames or (), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        cause = getattr(error, "strerror", None) or error
        raise InvalidManifest(str(table), f"cannot be read ({cause})", "name a CSV file") from error


@dataclass
class _Windows:
    """Rows of a table as sites; each scene's header is read once."""

    table: str
    folder: Path
    home: Path
    """Where the manifest will lie."""
    _headers: dict[str, RasterInfo | SourceUnreadable] = field(default_factory=dict)

    def site(self, row: Mapping[str, str]) -> Site:
        name, scene = row["site_id"], row["scene"]
        if not name or not scene:
            missing = "site_id" if not name else "scene"
            raise InvalidManifest(self.table, f"has a row without {missing}: {dict(row)}", "fill it in")
        place = scene_place(scene, self.folder)
        header = self._header(place)
        if any(row.get(column) for column in WINDOW):
            window = self._pixels(row)
        else:
            window = self._outwards(row, header)
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

    def _outwards(self, row: Mapping[str, str], header: RasterInfo | SourceUnreadable) -> Window:
        """Whole pixels that the bounds touch, beyond the scene too."""
        name, bounds = row["site_id"], self._numbers(row, BOUNDS)
        if isinstance(header, SourceUnreadable):
            self._refuse(
                name, f"map coordinates over a scene that cannot be read ({header.cause})", "mend it"
            )
        if header.transform is None:
            self._refuse(
                name, "map coordinates over a scene without georeference", "give its window in pixels"
            )
        if bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
            self._refuse(name, "a minimum that is not below its maximum", f"give {', '.join(BOUNDS)}")
        if row.get("crs"):
            bounds = self._turned(name, bounds, row["crs"], header.crs)
        a, b, c, d, e, f = tuple(~Affine(*header.transform))[:6]
        corners = [(a * x + b * y + c, d * x + e * y + f) for x in bounds[0::2] for y in bounds[1::2]]
        cols, rows = zip(*corners, strict=True)
        left, top = math.floor(min(cols) + _TINY), math.floor(min(rows) + _TINY)
        right, bottom = math.ceil(max(cols) - _TINY), math.ceil(max(rows) - _TINY)
        return Window(top, left, max(1, bottom - top), max(1, right - left))

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
