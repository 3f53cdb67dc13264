"""How large a pixel is on the ground, in metres, whatever the reference system measures in."""

from __future__ import annotations

import math
from functools import lru_cache

from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError

from tnet_geo.grid import Window
from tnet_geo.pyramid.tiles import RasterSpec

__all__ = ["pixel_m"]

_EARTH = Geod(ellps="WGS84")


def pixel_m(spec: RasterSpec, window: Window | None = None) -> float | None:
    """The side of a native pixel in metres, in the middle of `window` (of the scene without one).

    It is measured on the ellipsoid: degrees are no metres, and those of Web Mercator are too long by a
    factor of two at 60 degrees. A pixel that is no square has the side of a square of the same area.

    None where nobody knows where the scene lies, or beyond the ground on which its projection is defined.
    """
    projection = None if spec.crs is None else _to_globe(spec.crs)
    if projection is None or spec.transform is None:
        return None
    rows, cols = spec.shape
    middle = window or Window(0, 0, rows, cols)
    row, col = middle.row + middle.height / 2, middle.col + middle.width / 2
    a, b, c, d, e, f = spec.transform
    x, y = a * col + b * row + c, d * col + e * row + f
    # From one side of the middle pixel to the other, along a row and along a column.
    east, north = [x - a / 2, x + a / 2, x - b / 2, x + b / 2], [y - d / 2, y + d / 2, y - e / 2, y + e / 2]
    lon, lat = projection.transform(east, north)
    if not all(map(math.isfinite, (*lon, *lat))):
        return None
    along, _, wide = _EARTH.inv(lon[0], lat[0], lon[1], lat[1])
    down, _, high = _EARTH.inv(lon[2], lat[2], lon[3], lat[3])
    area = wide * high * abs(math.sin(math.radians(along - down)))
    return math.sqrt(area) or None


@lru_cache(maxsize=256)
def _to_globe(crs: str) -> Transformer | None:
    """From a reference system to longitude and latitude; None if it has no relation to the globe."""
    try:
        return Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    except ProjError:
        return None
