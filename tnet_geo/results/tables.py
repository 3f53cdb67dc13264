"""Answers as rows of the tables `predictions` and `trails`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import shapely

from tnet_geo.grid import Window, footprint
from tnet_geo.results.geography import Footprint, Globe
from tnet_geo.results.schema import PREDICTIONS, TRAILS, PredictionRow

__all__ = ["prediction_table", "trail_table"]


def prediction_table(rows: Sequence[PredictionRow]) -> pa.Table:
    """One row per answer, in the order given; schema `PREDICTIONS`."""
    globe = Globe()
    places = [globe.footprints([row.window], row.crs, row.transform)[0] for row in rows]
    records = [_prediction(row, place) for row, place in zip(rows, places, strict=True)]
    return pa.Table.from_pylist(records, PREDICTIONS)


def trail_table(rows: Sequence[PredictionRow]) -> pa.Table:
    """One row per look, walk after walk; schema `TRAILS`.

    A look's window is its whole tile, also where that reaches beyond the site or the scene.
    """
    globe = Globe()
    return pa.Table.from_pylist([record for row in rows for record in _looks(row, globe)], TRAILS)


def _prediction(row: PredictionRow, place: Footprint | None) -> dict[str, Any]:
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
        **_place(place),
    }


def _looks(row: PredictionRow, globe: Globe) -> list[dict[str, Any]]:
    looks = row.answer.trail.looks
    windows = [footprint(look.tile, row.half_px) for look in looks]
    places = globe.footprints(windows, row.crs, row.transform)
    return [
        {
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
            **_window(window),
            **_place(place),
        }
        for look, window, place in zip(looks, windows, places, strict=True)
    ]


def _window(window: Window) -> dict[str, int]:
    return {"row_off": window.row, "col_off": window.col, "height": window.height, "width": window.width}


def _place(place: Footprint | None) -> dict[str, Any]:
    if place is None:
        return {"lon": None, "lat": None, "bbox": None, "geometry": None}
    bounds = map(float, place.polygon.bounds)
    return {
        "lon": place.lon,
        "lat": place.lat,
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
        "geometry": shapely.to_wkb(place.polygon),
    }
