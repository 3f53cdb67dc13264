"""Answers as rows of the tables `predictions` and `trails`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from tnet_geo.grid import Window, footprint
from tnet_geo.results.geography import Footprint, Globe
from tnet_geo.results.schema import PREDICTIONS, TRAILS, PredictionRow
from tnet_geo.trail import Look

__all__ = ["prediction_table", "trail_table"]

NOWHERE: dict[str, Any] = {"lon": None, "lat": None, "bbox": None, "geometry": None}


def prediction_table(rows: Sequence[PredictionRow]) -> pa.Table:
    """One row per answer, in the order given; schema `PREDICTIONS`."""
    places = _places(rows, [row.window for row in rows])
    records = [{**_prediction(row), **place} for row, place in zip(rows, places, strict=True)]
    return pa.Table.from_pylist(records, PREDICTIONS)


def trail_table(rows: Sequence[PredictionRow]) -> pa.Table:
    """One row per look, walk after walk; schema `TRAILS`.

    A look's window is its whole tile, also where that reaches beyond the site or the scene.
    """
    looks = [(row, look) for row in rows for look in row.answer.trail.looks]
    windows = [footprint(look.tile, row.half_px) for row, look in looks]
    places = _places([row for row, _ in looks], windows)
    records = [
        {**_look(*each), **_window(window), **place}
        for each, window, place in zip(looks, windows, places, strict=True)
    ]
    return pa.Table.from_pylist(records, TRAILS)


def _places(rows: Sequence[PredictionRow], windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Where windows of the scenes of rows lie: all of one reference system at once, which is quick."""
    globe = Globe()
    found: list[Footprint | None] = [None] * len(rows)
    groups: dict[str | None, list[int]] = {}
    for n, row in enumerate(rows):
        groups.setdefault(row.crs, []).append(n)
    for crs, group in groups.items():
        located = globe.located([windows[n] for n in group], crs, [rows[n].transform for n in group])
        for n, place in zip(group, located, strict=True):
            found[n] = place
    polygons = np.array([None if place is None else place.polygon for place in found], dtype=object)
    geometries, bounds = shapely.to_wkb(polygons), shapely.bounds(polygons).tolist()
    return [
        NOWHERE
        if place is None
        else {"lon": place.lon, "lat": place.lat, "bbox": _bbox(sides), "geometry": geometry}
        for place, geometry, sides in zip(found, geometries, bounds, strict=True)
    ]


def _bbox(sides: Sequence[float]) -> dict[str, float]:
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True))


def _prediction(row: PredictionRow) -> dict[str, Any]:
    answer = row.answer
    best = max(range(len(answer.logits)), key=answer.logits.__getitem__)
    return {
        "site_id": answer.site_id,
        "scene_id": row.scene_id,
        "label": answer.label,
        "confidence": answer.confidence,
        "expected": row.expected,
        "split": row.split,
        "date": row.date,
        "tiles": len(answer.trail),
        "bytes_decoded": answer.bytes_decoded,
        "ended_by": answer.ended_by,
        "logit": answer.logits[best],
        "bias": answer.bias,
        "probabilities": answer.probabilities,
        **_window(row.window),
    }


def _look(row: PredictionRow, look: Look) -> dict[str, Any]:
    return {
        "site_id": row.answer.site_id,
        "look": look.order,
        "depth": look.depth,
        "level": look.tile.level,
        "row": look.tile.row,
        "col": look.tile.col,
        "parent": look.parent,
        "probability": look.probability,
        "path_log_probability": look.path_log_probability,
        "evidence": look.evidence,
    }


def _window(window: Window) -> dict[str, int]:
    return {"row_off": window.row, "col_off": window.col, "height": window.height, "width": window.width}
