"""A table of windows over scenes as a manifest: windows in pixels or in map coordinates."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path

from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from tnet_geo.errors import InvalidManifest
from tnet_geo.grid import Window
from tnet_geo.imagery.manifest import REQUIRED, WINDOW, Manifest, write_manifest
from tnet_geo.imagery.raster import RasterInfo, open_raster

__all__ = ["manifest_from_windows"]

BOUNDS = ("min_x", "min_y", "max_x", "max_y")
_KEPT = ("site_id", "scene", "scene_id", "label", "split", "date")


def manifest_from_windows(table: str | Path, out: str | Path) -> Manifest:
    """Write the manifest of a CSV of windows.

    Columns: site_id and scene (relative to the CSV), and either `row_off, col_off, height, width` in native
    pixels or `min_x, min_y, max_x, max_y` in map coordinates of column `crs` (by default the scene's own;
    rounded outwards to whole pixels and clipped to the scene). scene_id, label, split (`none` is none) and date
    are kept; other columns are ignored.

    Raises:
        InvalidManifest: a column is missing, a number is none, or a window misses its scene.
        SourceUnreadable: map coordinates over a scene that cannot be opened.
        OutputExists: `out` is there.
    """
    name = str(table)
    try:
        with Path(table).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidManifest(name, f"cannot be read ({error})", "name a CSV file") from error
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise InvalidManifest(name, f"has no column {missing[0]!r}", f"add it; it has {', '.join(columns)}")
    in_map = all(column in columns for column in BOUNDS)
    if not in_map and any(column not in columns for column in WINDOW):
        remedy = f"give {', '.join(WINDOW)} in pixels, or {', '.join(BOUNDS)} in map coordinates"
        raise InvalidManifest(name, "has no windows", remedy)
    folder, home = Path(table).absolute().parent, Path(out).absolute().parent
    scenes = _Scenes(name, folder)
    return write_manifest([_row(row, scenes, in_map, home) for row in rows], out)


class _Scenes:
    """Headers of the scenes of a table, each opened once."""

    def __init__(self, table: str, folder: Path) -> None:
        self.table, self._folder = table, folder
        self._known: dict[str, RasterInfo] = {}

    def path(self, scene: str) -> str:
        """Absolute, or the URI as it is."""
        return scene if "://" in scene else os.path.normpath(self._folder / scene)

    def info(self, scene: str) -> RasterInfo:
        """The header of a scene."""
        path = self.path(scene)
        if path not in self._known:
            with open_raster(path) as raster:
                self._known[path] = raster.info
        return self._known[path]


def _row(row: Mapping[str, str], scenes: _Scenes, in_map: bool, home: Path) -> dict[str, object]:
    kept: dict[str, object] = {key: row[key] or None for key in _KEPT if key in row}
    if str(kept.get("split")).lower() == "none":
        kept["split"] = None
    place = scenes.path(row["scene"])
    inside = "://" not in place and Path(place).is_relative_to(home)
    kept["scene"] = Path(place).relative_to(home).as_posix() if inside else place
    site = row["site_id"]
    try:
        numbers = [float(row[column]) for column in (BOUNDS if in_map else WINDOW)]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("not finite")
    except (TypeError, ValueError) as error:
        raise InvalidManifest(
            scenes.table, f"has no window of numbers at site {site!r}", "fill it in"
        ) from error
    if not in_map and any(number % 1 for number in numbers):
        raise InvalidManifest(
            scenes.table, f"has part of a pixel in the window of site {site!r}", "give whole pixels"
        )
    window = _from_map(site, numbers, row, scenes) if in_map else Window(*(int(number) for number in numbers))
    return kept | dict(zip(WINDOW, (window.row, window.col, window.height, window.width), strict=True))


def _from_map(site: str, bounds: list[float], row: Mapping[str, str], scenes: _Scenes) -> Window:
    """Whole pixels of the scene that the bounds touch."""
    info = scenes.info(row["scene"])
    if info.transform is None or info.crs is None:
        what = f"has map coordinates at site {site!r}, and its scene has no georeference"
        raise InvalidManifest(scenes.table, what, "give its window in pixels")
    given = row.get("crs") or info.crs
    try:
        if CRS.from_user_input(given) != CRS.from_user_input(info.crs):
            turn = Transformer.from_crs(given, info.crs, always_xy=True)
            left, bottom, right, top = bounds
            bounds = list(turn.transform_bounds(left, bottom, right, top, errcheck=True))
    except ProjError as error:
        cause = str(error).splitlines()[0]
        raise InvalidManifest(
            scenes.table, f"has coordinates at site {site!r} that {given} cannot place ({cause})", "mend them"
        ) from error
    to_pixel = ~Affine(*info.transform)
    corners = [to_pixel * (x, y) for x in bounds[0::2] for y in bounds[1::2]]
    tiny = 1e-6  # map coordinates of a pixel's own edge must not reach into its neighbour
    left = max(0, math.floor(min(x for x, _ in corners) + tiny))
    top = max(0, math.floor(min(y for _, y in corners) + tiny))
    right = min(info.shape[1], math.ceil(max(x for x, _ in corners) - tiny))
    bottom = min(info.shape[0], math.ceil(max(y for _, y in corners) - tiny))
    if right <= left or bottom <= top:
        raise InvalidManifest(
            scenes.table, f"has a window at site {site!r} that misses its scene", "check its crs and order"
        )
    return Window(top, left, bottom - top, right - left)
