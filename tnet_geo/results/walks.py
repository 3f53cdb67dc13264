"""Stored answers as objects again: one walk with its looks, ready to be drawn."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tnet_geo.grid import Tile, Window
from tnet_geo.trail import EndedBy, Look

__all__ = ["Walk", "walks_of", "window_of"]

_UNIT = 2.0**-24
"""Half the distance from 1 to the next float32: what one addition may round away, of its result."""


ENDINGS: Mapping[EndedBy, str] = {
    "complete": "nothing was left to look at",
    "tiles": "ended by its budget of tiles",
    "stop_at": "ended when it was sure enough",
    "bytes": "ended by its budget of bytes",
    "deadline": "ended by the clock",
}
"""Why a walk looked no further, in words."""


@dataclass(frozen=True, slots=True)
class Walk:
    """One site's answer and everything that it looked at."""

    site_id: str
    scene_id: str
    label: str
    confidence: float
    expected: str | None
    probabilities: tuple[float, ...]
    """In the order of the run's classes."""
    logit: float
    bias: float
    bytes_decoded: int
    ended_by: EndedBy
    window: Window
    """The site, in native pixels."""
    lon: float | None
    lat: float | None
    looks: tuple[Look, ...]
    windows: tuple[Window, ...]
    """What each look covers, in native pixels."""
    geometries: tuple[bytes | None, ...]
    """The same on the globe, WKB; None where nobody knows."""

    @property
    def wrong(self) -> bool:
        """Whether the manifest knows better."""
        return self.expected is not None and self.expected != self.label

    @property
    def ending(self) -> str:
        """Why it looked no further, in words."""
        return ENDINGS[self.ended_by]

    def weightiest(self, most: int) -> list[Look]:
        """All looks, or the first and those of most evidence, in the order in which they were made."""
        first, *rest = self.looks
        best = sorted(rest, key=lambda look: -abs(look.evidence))[: most - 1]
        return [first, *sorted(best, key=lambda look: look.order)]

    @property
    def total(self) -> float:
        """The bias and the evidence of all looks, added up without rounding to float32."""
        return math.fsum([self.bias, *(look.evidence for look in self.looks)])

    @property
    def rounding(self) -> float:
        """How far `logit` may be from `total`: what float32 can lose when it adds that many numbers."""
        size = math.fsum([abs(self.bias), *(abs(look.evidence) for look in self.looks)])
        return (len(self.looks) + 1) * _UNIT * size

    @property
    def half_px(self) -> int:
        """Lattice step that the network looked with, in pixels of any level."""
        return self.windows[0].height >> (self.looks[0].tile.level + 1)

    @property
    def pixel_fraction(self) -> float:
        """Pixels read at any level over native pixels of the site."""
        return len(self.looks) * (2 * self.half_px) ** 2 / (self.window.height * self.window.width)


def walks_of(
    predictions: Iterable[Mapping[str, Any]], trails: Iterable[Mapping[str, Any]]
) -> dict[str, Walk]:
    """Rows of the two tables as one walk per site, looks in the order in which they were made."""
    looks: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in trails:
        looks[row["site_id"]].append(row)
    return {row["site_id"]: _walk(row, looks[row["site_id"]]) for row in predictions}


def _walk(row: Mapping[str, Any], looks: list[Mapping[str, Any]]) -> Walk:
    looks = sorted(looks, key=lambda look: int(look["look"]))
    same = (
        "site_id",
        "scene_id",
        "label",
        "confidence",
        "expected",
        "logit",
        "bias",
        "bytes_decoded",
        "ended_by",
        "lon",
        "lat",
    )
    return Walk(
        **{name: row[name] for name in same},
        probabilities=tuple(row["probabilities"]),
        window=window_of(row),
        looks=tuple(_look(look) for look in looks),
        windows=tuple(window_of(look) for look in looks),
        geometries=tuple(look["geometry"] for look in looks),
    )


def _look(row: Mapping[str, Any]) -> Look:
    return Look(
        order=row["look"],
        depth=row["depth"],
        tile=Tile(row["level"], row["row"], row["col"]),
        parent=row["parent"],
        probability=row["probability"],
        path_log_probability=row["path_log_probability"],
        evidence=row["evidence"],
    )


def window_of(row: Mapping[str, Any]) -> Window:
    """What a row of either table covers, in native pixels."""
    return Window(row["row_off"], row["col_off"], row["height"], row["width"])
