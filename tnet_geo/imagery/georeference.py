"""Where the pixels of a raster lie: its own transform, or the best affine one of its points or RPCs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import RPCTransformer

from tnet_geo.imagery.gdal import CPLE_BaseError

__all__ = ["Georeference", "GeoreferenceKind", "georeference_of"]

GeoreferenceKind = Literal["transform", "gcps", "rpcs"]
Coefficients = tuple[float, float, float, float, float, float]

RPC_STEPS = 11
"""Points along each side of the grid on which RPCs are evaluated."""


@dataclass(frozen=True, slots=True)
class Georeference:
    """CRS and transform of a raster, and how they are known."""

    crs: str | None
    """Authority and code where there is one, such as `EPSG:32633`, otherwise WKT."""
    transform: Coefficients | None
    """Affine a, b, c, d, e, f: x = a col + b row + c, y = d col + e row + f."""
    kind: GeoreferenceKind | None
    """What `transform` was taken from; None: there is none."""
    error_px: float | None
    """The largest distance of a point from where a fitted transform puts it, in pixels; None: not fitted."""


def georeference_of(dataset: Any) -> Georeference:
    """What an open dataset says of its place: its transform, else its points (GCPs), else its RPCs.

    Points and RPCs are fitted by least squares: a frame that is bent, or steep ground under RPCs, leaves
    `error_px`. RPCs are evaluated at their own mean height.
    """
    crs = _crs_text(dataset.crs) if _has_crs(dataset) else None
    if _is_usable(dataset.transform):
        return Georeference(crs, tuple(dataset.transform)[:6], "transform", None)
    points, points_crs = dataset.gcps
    if points:
        place = np.array([[point.col, point.row, point.x, point.y] for point in points], float)
        points_crs = points_crs or (dataset.crs if _has_crs(dataset) else None)
        fitted = _fitted(place, _is_geographic(points_crs))
        if fitted is not None:
            return Georeference(_crs_text(points_crs), fitted[0], "gcps", fitted[1])
    if dataset.rpcs is not None:
        fitted = _fitted(_rpc_points(dataset), longitudes=True)
        if fitted is not None:
            return Georeference("EPSG:4326", fitted[0], "rpcs", fitted[1])
    return Georeference(crs, None, None, None)


def _is_usable(transform: Affine) -> bool:
    """GDAL's answer where there is none is the identity; a transform onto a line places nothing."""
    known = not transform.is_identity and all(map(math.isfinite, transform[:6]))
    return known and transform.determinant != 0


def _has_crs(dataset: Any) -> bool:
    try:
        return bool(dataset.crs)
    except (CRSError, CPLE_BaseError):
        return False


def _crs_text(crs: CRS | None) -> str | None:
    """None also for keys that PROJ cannot turn into a CRS: the pixels are as good."""
    try:
        return _named(crs.to_wkt()) if crs else None
    except (CRSError, CPLE_BaseError):
        return None


@lru_cache(maxsize=256)
def _named(wkt: str) -> str:
    """The short name of a CRS if it is exactly that: GDAL names the nearest, with another ellipsoid too."""
    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority()
    return ":".join(authority) if authority and CRS.from_authority(*authority) == crs else wkt


def _is_geographic(crs: CRS | None) -> bool:
    return crs is not None and bool(crs.is_geographic)


def _rpc_points(dataset: Any) -> NDArray[np.float64]:
    """A grid over the frame as [points, (col, row, lon, lat)]; not finite where the RPCs do not converge."""
    across = np.linspace(0, dataset.width, RPC_STEPS)
    down = np.linspace(0, dataset.height, RPC_STEPS)
    cols, rows = (grid.ravel() for grid in np.meshgrid(across, down))
    height = np.full(cols.shape, dataset.rpcs.height_off)
    try:
        with RPCTransformer(dataset.rpcs) as model:
            lon, lat = model.xy(rows, cols, zs=height, offset="ul")
    except (RasterioError, CPLE_BaseError, ValueError):
        return np.full((1, 4), np.nan)
    return np.stack([cols, rows, np.asarray(lon), np.asarray(lat)], axis=1)


def _fitted(points: NDArray[np.float64], longitudes: bool) -> tuple[Coefficients, float] | None:
    """The affine transform nearest to points [n, (col, row, x, y)], and its largest error in pixels.

    None for fewer than three points, points on one line, and points that are not finite.
    """
    pixels, ground = points[:, :2], points[:, 2:].copy()
    if len(points) < 3 or not np.isfinite(points).all():
        return None
    if longitudes and np.ptp(ground[:, 0]) > 180:  # across the antimeridian
        ground[:, 0] %= 360
    middle, origin = pixels.mean(axis=0), ground.mean(axis=0)
    size = float(np.abs(pixels - middle).max()) or 1.0
    unit = (pixels - middle) / size
    # Points so near to a line would be fitted, and the picture beside it would lie anywhere.
    if np.linalg.matrix_rank(unit, tol=1e-6 * len(points)) < 2:
        return None
    design = np.column_stack([unit, np.ones(len(points))])
    solution = np.linalg.lstsq(design, ground - origin, rcond=None)[0]
    slope, start = solution[:2] / size, solution[2]  # ground - origin = (pixels - middle) @ slope + start
    if not np.isfinite(slope).all() or np.linalg.matrix_rank(solution[:2]) < 2:
        return None
    back = middle + (ground - origin - start) @ np.linalg.inv(slope)
    error = float(np.hypot(*(back - pixels).T).max())
    (a, d), (b, e) = slope.tolist()
    c, f = (origin + start - middle @ slope).tolist()
    return (a, b, c, d, e, f), error
