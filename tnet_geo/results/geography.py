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
        """One footprint per window of native pixels of one scene; see `located`."""
        return self.located(windows, crs, [transform] * len(windows))

    def located(
        self, windows: Sequence[Window], crs: str | None, transforms: Sequence[Sequence[float] | None]
    ) -> list[Footprint | None]:
        """One footprint per window of native pixels, or None where nobody knows where it lies.

        That is so without `crs`, or a window's own transform, where the reference system has no relation
        to the globe, and beyond the ground on which its projection is defined.
        """
        found: list[Footprint | None] = [None] * len(windows)
        projection = None if crs is None else self._projection(crs)
        known = [n for n, transform in enumerate(transforms) if transform is not None]
        if projection is None or not known:
            return found
        sides = np.array([(w.col, w.row, w.width, w.height) for w in (windows[n] for n in known)], np.float64)
        affine = np.array([transforms[n] for n in known], np.float64)
        lon, lat = _projected(projection, sides, affine, steps=2)
        straight = _straight(lon, lat)
        corners = _corners(lon[straight], lat[straight])
        for n, footprint in zip(np.array(known)[straight], corners, strict=True):
            found[n] = footprint
        lon, lat = _projected(projection, sides[~straight], affine[~straight], steps=STEPS)
        for n, ring_lon, ring_lat in zip(np.array(known)[~straight], lon, lat, strict=True):
            found[n] = _footprint(ring_lon, ring_lat)
        return found

    def _projection(self, crs: str) -> Transformer | None:
        if crs not in self._projections:
            try:
                self._projections[crs] = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
            except ProjError:
                self._projections[crs] = None
        return self._projections[crs]


def _projected(
    projection: Transformer, sides: NDArray[np.float64], affine: NDArray[np.float64], *, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude of outlines and centres: [n, 4 steps + 1] each.

    sides [n, (col, row, width, height)], affine [n, 6]. The ring is counter-clockwise where north is up,
    `steps` points an edge.
    """
    along = np.arange(steps) / steps
    zero, one = np.zeros(steps), np.ones(steps)
    across = np.concatenate([zero, along, one, 1 - along, [0.5]])
    down = np.concatenate([along, one, 1 - along, zero, [0.5]])
    col, row = sides[:, 0:1] + across * sides[:, 2:3], sides[:, 1:2] + down * sides[:, 3:4]
    a, b, c, d, e, f = (affine[:, n : n + 1] for n in range(6))
    lon, lat = projection.transform(a * col + b * row + c, d * col + e * row + f)
    return np.asarray(lon), np.asarray(lat)


def _straight(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of outlines of two points an edge, which lie on the globe with edges as straight as can be.

    An edge that does not leave its chord in the middle leaves it nowhere: it is short. bool [n].
    """
    ring = np.stack([lon[:, :-1], lat[:, :-1]], axis=-1)
    with np.errstate(invalid="ignore"):  # beyond the ground of a projection there are infinities
        middle = (ring[:, 0::2] + np.roll(ring[:, 0::2], -1, axis=1)) / 2
        off = np.abs(ring[:, 1::2] - middle).max(axis=(1, 2))
        inside = (np.abs(ring[..., 0]) < 180 - 1).all(axis=1) & (np.abs(ring[..., 1]) < 90 - 1).all(axis=1)
        straight: NDArray[np.bool_] = inside & (off < STRAIGHT_DEG / 4)
    return straight


def _corners(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> list[Footprint]:
    """Footprints of outlines whose edges are straight."""
    rings = np.stack([lon[:, :-1:2], lat[:, :-1:2]], axis=-1)
    polygons = shapely.polygons(np.concatenate([rings, rings[:, :1]], axis=1))
    assert isinstance(polygons, np.ndarray)  # as many as there are outlines
    centres = zip(lon[:, -1].tolist(), lat[:, -1].tolist(), polygons, strict=True)
    return [Footprint(*centre) for centre in centres]


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
