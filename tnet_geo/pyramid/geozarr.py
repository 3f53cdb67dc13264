"""What other software reads in a scene's zarr.json: GeoZarr's three conventions, and OME-Zarr 0.5.

Measured to be opened by xarray DataTree, rio-tiler's GeoZarr reader, zarr-cm and ome-zarr-models:
levels as groups `0`, `1`, ..., each with an array `data`, assets named like the groups, dimensions
`c, y, x`. Readers match the conventions by UUID; the URLs name their releases v0.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pyproj import CRS

__all__ = ["array_attributes", "group_attributes", "level_transform"]

Affine = tuple[float, float, float, float, float, float]
Json = dict[str, Any]

RELEASE = "v0.1"
UUIDS = {
    "multiscales": "d35379db-88df-4056-af3a-620245f8e347",
    "proj": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "spatial": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
}
DESCRIPTIONS = {
    "multiscales": "Multiscale layout of zarr datasets",
    "proj": "Coordinate reference system information for geospatial data",
    "spatial": "Spatial coordinate information",
}


def array_attributes(crs: str | None, transform: Affine | None, shape: tuple[int, int], level: int) -> Json:
    """Attributes of the arrays of one level; `transform` is that of level 0, `shape` the level's."""
    return {
        "zarr_conventions": _declared("spatial", *(["proj"] if crs else [])),
        "spatial:dimensions": ["y", "x"],
        **_spatial(transform, shape, level),
        **_projection(crs),
    }


def group_attributes(
    name: str, crs: str | None, transform: Affine | None, shapes: Sequence[tuple[int, int]]
) -> Json:
    """Attributes of the scene's group; `shapes` are the rows and columns of its levels."""
    return {
        "zarr_conventions": _declared("multiscales", "spatial", *(["proj"] if crs else [])),
        "multiscales": {
            "layout": [_layout_entry(level, shape, transform) for level, shape in enumerate(shapes)],
            "resampling_method": "average",
        },
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": _bbox(transform, shapes[0]),
        **_spatial(transform, shapes[0], 0),
        **_projection(crs),
        "ome": {"version": "0.5", "multiscales": [_ome(name, len(shapes))]},
    }


def level_transform(transform: Affine, level: int) -> Affine:
    """The affine transform of `level`, whose pixels cover 2^level native ones a side.

    >>> level_transform((0.5, 0.0, 100.0, 0.0, -0.5, 900.0), 2)
    (2.0, 0.0, 100.0, 0.0, -2.0, 900.0)
    """
    a, b, c, d, e, f = transform
    scale = 2.0**level
    return a * scale, b * scale, c, d * scale, e * scale, f


def _declared(*names: str) -> list[Json]:
    """Entries of `zarr_conventions`."""
    return [
        {
            "uuid": UUIDS[name],
            "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/{RELEASE}/schema.json",
            "spec_url": f"https://github.com/zarr-conventions/{name}/blob/{RELEASE}/README.md",
            "name": name,
            "description": DESCRIPTIONS[name],
        }
        for name in names
    ]


def _spatial(transform: Affine | None, shape: tuple[int, int], level: int) -> Json:
    """Where pixels lie. A scene without georeference lies in its own native pixels, y down."""
    affine = level_transform(transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), level)
    return {
        "spatial:transform": list(affine),
        "spatial:shape": list(shape),
        "spatial:registration": "pixel",
    }


@lru_cache(maxsize=64)
def _code_or_wkt(crs: str) -> tuple[str, str]:
    """Key and value that name a CRS: its authority code where it has one, WKT2 otherwise."""
    if re.fullmatch(r"[A-Za-z]+:\w+", crs):
        return "proj:code", crs
    known = CRS.from_user_input(crs)
    authority = known.to_authority(min_confidence=100)
    if authority:
        return "proj:code", ":".join(authority)
    return "proj:wkt2", known.to_wkt("WKT2_2019")


def _projection(crs: str | None) -> Json:
    """The CRS under the key that suits it; nothing without one."""
    return dict([_code_or_wkt(crs)]) if crs else {}


def _layout_entry(level: int, shape: tuple[int, int], transform: Affine | None) -> Json:
    """One level of `multiscales`: relative to the level that it was made of."""
    entry: Json = {"asset": str(level)}
    if level:
        entry["derived_from"] = str(level - 1)
    step = 2.0 if level else 1.0
    entry["transform"] = {"scale": [step, step], "translation": [0.0, 0.0]}
    return entry | _spatial(transform, shape, level)


def _bbox(transform: Affine | None, shape: tuple[int, int]) -> list[float]:
    """Smallest and largest x and y of the scene's four corners: min x, min y, max x, max y."""
    a, b, c, d, e, f = transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    corners = [(row, col) for row in (0, shape[0]) for col in (0, shape[1])]
    xs = [a * col + b * row + c for row, col in corners]
    ys = [d * col + e * row + f for row, col in corners]
    return [min(xs), min(ys), max(xs), max(ys)]


def _ome(name: str, levels: int) -> Json:
    """OME-Zarr multiscales; translations place the centres of coarse pixels, in native pixels."""
    axes = [{"name": "c", "type": "channel"}, *({"name": k, "type": "space"} for k in "yx")]
    datasets = [
        {
            "path": f"{level}/data",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 2.0**level, 2.0**level]},
                {"type": "translation", "translation": [0.0, *[(2.0**level - 1) / 2] * 2]},
            ],
        }
        for level in range(levels)
    ]
    return {"name": name, "axes": axes, "datasets": datasets}
