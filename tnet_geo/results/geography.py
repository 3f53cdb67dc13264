"""Windows of pixels as footprints on the globe: polygons in OGC:CRS84 (longitude, latitude)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.exceptions import ProjError
from shapely.affinity import translate

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
    # From point to point the shorter way around: the whole Earth is a long way in short steps.
    east = np.unwrap(np.append(lon[:-1], lon[0]), period=360)
    ring = np.stack([east, np.append(lat[:-1], lat[0])], axis=-1)
    if abs(east[-1] - east[0]) > 180:  # once around: a pole lies inside
        pole = 90.0 if lat[:-1].mean() > 0 else -90.0
        ring = np.concatenate([ring, [(east[-1], pole), (east[0], pole)]])
    ring[:, 0] -= 360 * np.floor((ring[:, 0].min() + 180 + STRAIGHT_DEG) / 360)
    outline = _simple(ring)
    if ring[:, 0].max() > 180 + STRAIGHT_DEG or ring[:, 0].min() < -180 - STRAIGHT_DEG:
        return Footprint(float(lon[-1]), float(lat[-1]), _within(outline))
    return Footprint(float(lon[-1]), float(lat[-1]), outline)


def _within(outline: shapely.Polygon) -> shapely.Polygon | shapely.MultiPolygon:
    """Cut at the antimeridian, with what lies beyond it put in its place."""
    parts: list[shapely.Polygon] = []
    for turn in (-360, 0, 360):
        piece = shapely.intersection(outline, shapely.box(turn - 180, -90, turn + 180, 90))
        piece = translate(piece, xoff=-turn)
        parts += [
            part for part in shapely.get_parts(piece) if isinstance(part, shapely.Polygon) and part.area
        ]
    whole = shapely.union_all(parts)
    return whole if isinstance(whole, shapely.Polygon) else shapely.MultiPolygon(parts)


def _simple(ring: NDArray[np.float64]) -> shapely.Polygon:
    """The polygon of a ring [n, (lon, lat)] with no more corners than it needs."""
    polygon = shapely.Polygon(ring)
    simple = shapely.simplify(polygon, STRAIGHT_DEG)
    return simple if isinstance(simple, shapely.Polygon) else polygon
