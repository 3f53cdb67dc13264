"""Windows of pixels as footprints on the globe: polygons in OGC:CRS84 (longitude, latitude)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.exceptions import ProjError

from tnet_geo.grid import Window

__all__ = ["Footprint", "Globe"]

STEPS = 16
"""Straight pieces per edge before it is projected; pieces that stay straight are joined again."""

STRAIGHT_DEG = 1e-8
"""About a millimetre: how far a joined piece may leave the projected edge."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a window lies on the globe, in degrees."""

    lon: float
    """Of the window's centre."""
    lat: float
    polygon: shapely.Polygon | shapely.MultiPolygon
    """Cut in two where it crosses the antimeridian."""


class Globe:
    """Puts windows on the globe; remembers the projections that it has met. For one thread."""

    def __init__(self) -> None:
        self._projections: dict[str, Transformer | None] = {}

    def footprints(
        self, windows: Sequence[Window], crs: str | None, transform: Sequence[float] | None
    ) -> list[Footprint | None]:
        """One footprint per window of native pixels, or None where nobody knows where it lies.

        That is so without `crs` or `transform`, where the reference system has no relation to the
        globe, and beyond the ground on which its projection is defined.
        """
        projection = None if crs is None else self._projection(crs)
        if projection is None or transform is None or not windows:
            return [None] * len(windows)
        points = np.stack([_outline(window) for window in windows])  # [n, points, (col, row)]
        a, b, c, d, e, f = transform
        col, row = points[..., 0], points[..., 1]
        lon, lat = projection.transform(a * col + b * row + c, d * col + e * row + f)
        return [_footprint(*place) for place in zip(np.asarray(lon), np.asarray(lat), strict=True)]

    def _projection(self, crs: str) -> Transformer | None:
        if crs not in self._projections:
            try:
                self._projections[crs] = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
            except ProjError:
                self._projections[crs] = None
        return self._projections[crs]


def _outline(window: Window) -> NDArray[np.float64]:
    """The ring, counter-clockwise where north is up, and the centre: [4 STEPS + 1, (col, row)]."""
    along = np.arange(STEPS) / STEPS
    zero, one = np.zeros(STEPS), np.ones(STEPS)
    cols = np.concatenate([zero, along, one, 1 - along, [0.5]])
    rows = np.concatenate([along, one, 1 - along, zero, [0.5]])
    return np.stack([window.col + cols * window.width, window.row + rows * window.height], axis=-1)


def _footprint(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> Footprint | None:
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    centre_lon, centre_lat = float(lon[-1]), float(lat[-1])
    crosses = float(np.ptp(lon)) > 180
    ring = np.stack([np.where(lon < 0, lon + 360, lon) if crosses else lon, lat], axis=-1)[:-1]
    outline = _simple(ring)
    if not crosses:
        return Footprint(centre_lon, centre_lat, outline)
    halves = (
        shapely.intersection(outline, shapely.box(0, -90, 180, 90)),
        shapely.transform(
            shapely.intersection(outline, shapely.box(180, -90, 360, 90)), lambda at: at - (360, 0)
        ),
    )
    parts = [half for half in halves if isinstance(half, shapely.Polygon) and not half.is_empty]
    return Footprint(centre_lon, centre_lat, shapely.MultiPolygon(parts))


def _simple(ring: NDArray[np.float64]) -> shapely.Polygon:
    """The polygon of a ring [n, (lon, lat)] with no more corners than it needs."""
    polygon = shapely.Polygon(ring)
    simple = shapely.simplify(polygon, STRAIGHT_DEG)
    return simple if isinstance(simple, shapely.Polygon) else polygon
