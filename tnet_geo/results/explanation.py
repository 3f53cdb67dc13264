"""One walk in words: its looks as a tree, and how their evidence adds up to the answer's logit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import shapely

from tnet_geo.grid import Window
from tnet_geo.results.query import Results
from tnet_geo.results.walks import Walk
from tnet_geo.trail import EndedBy
from tnet_geo.units import bytes_text

__all__ = ["Explanation", "LookFacts", "explain"]

HEAD = ("look", "tile", "rows", "columns", "chosen", "log path", "evidence")


@dataclass(frozen=True, slots=True)
class LookFacts:
    """One look as it stands in the table `trails`."""

    look: int
    """Position in the walk; the root is 0. Pictures and trees count from 1."""
    depth: int
    level: int
    row: int
    col: int
    parent: int | None
    """`look` that chose this tile."""
    window: Window
    """Footprint in native pixels of the scene, also where it reaches beyond."""
    footprint: dict[str, Any] | None
    """The same on the globe, as GeoJSON; None where nobody knows."""
    probability: float
    path_log_probability: float
    evidence: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer and everything that it was made of."""

    run: str
    site_id: str
    scene_id: str
    window: Window
    """The site, in native pixels of its scene."""
    label: str
    confidence: float
    expected: str | None
    """The manifest's label."""
    probabilities: dict[str, float]
    """By class, the most probable first."""
    looks: tuple[LookFacts, ...]
    ended_by: EndedBy
    ending: str
    """The same in words."""
    bytes_decoded: int
    bias: float
    """Of the answer's class."""
    logit: float
    total: float
    """`bias` and the evidence of all looks, added up."""
    rounding: float
    """By how much `total` may differ from `logit`, which is a sum of float32."""

    @property
    def adds_up(self) -> bool:
        """Whether evidence and bias are the logit, but for rounding."""
        return abs(self.total - self.logit) <= self.rounding

    def lines(self) -> list[str]:
        """The tree for people; looks are numbered as in the picture, from 1."""
        window = self.window
        looks = f"{len(self.looks)} look{'' if len(self.looks) == 1 else 's'}"
        text = [
            f"site {self.site_id} of scene {self.scene_id}, {_span(window)}",
            f"{self.label}, {self.confidence:.1%} sure{self._truth()}",
            f"{looks}, {bytes_text(self.bytes_decoded)} decoded; {self.ending}",
            "",
        ]
        text += _aligned([HEAD, *(self._cells(look, branch) for look, branch in _branches(self.looks))])
        signed = f"{self.bias:+.4f}, evidence {self.total - self.bias:+.4f}"
        apart = f"they differ by {abs(self.total - self.logit):.1e}"
        return [
            *text,
            "",
            f"bias {signed}: together {self.total:.4f}",
            f"logit of {self.label} {self.logit:.4f}; {apart}, float32 rounds by up to {self.rounding:.1e}",
        ]

    def _truth(self) -> str:
        if self.expected is None:
            return ""
        return " (right)" if self.expected == self.label else f" (wrong: it is {self.expected})"

    def _cells(self, look: LookFacts, branch: str) -> tuple[str, ...]:
        window = look.window
        return (
            f"{branch}{look.look + 1}",
            f"level {look.level} ({look.row}, {look.col})",
            f"{window.row}-{window.bottom}",
            f"{window.col}-{window.right}",
            f"{look.probability:.4f}",
            f"{look.path_log_probability:.4f}",
            f"{look.evidence:+.4f}",
        )


def explain(results: Results, site: str) -> Explanation:
    """The walk of one site.

    >>> explain(Results.open("results"), "site000").adds_up
    True

    Raises:
        QueryRefused: the site has no answer.
        InvalidResults: a part cannot be read.
    """
    walk = results.walks([site])[0]
    ranked = sorted(zip(results.record.classes, walk.probabilities, strict=True), key=lambda pair: -pair[1])
    return Explanation(
        run=results.record.id,
        site_id=walk.site_id,
        scene_id=walk.scene_id,
        window=walk.window,
        label=walk.label,
        confidence=walk.confidence,
        expected=walk.expected,
        probabilities=dict(ranked),
        looks=tuple(_facts(walk)),
        ended_by=walk.ended_by,
        ending=walk.ending,
        bytes_decoded=walk.bytes_decoded,
        bias=walk.bias,
        logit=walk.logit,
        total=walk.total,
        rounding=walk.rounding,
    )


def _facts(walk: Walk) -> Iterator[LookFacts]:
    for look, window, geometry in zip(walk.looks, walk.windows, walk.geometries, strict=True):
        yield LookFacts(
            look=look.order,
            depth=look.depth,
            level=look.tile.level,
            row=look.tile.row,
            col=look.tile.col,
            parent=look.parent,
            window=window,
            footprint=None
            if geometry is None
            else json.loads(shapely.to_geojson(shapely.from_wkb(geometry))),
            probability=look.probability,
            path_log_probability=look.path_log_probability,
            evidence=look.evidence,
        )


def _geojson(wkb: bytes) -> dict[str, Any]:
    shape: dict[str, Any] = json.loads(shapely.to_geojson(shapely.from_wkb(wkb)))
    return shape


def _branches(looks: Sequence[LookFacts]) -> Iterator[tuple[LookFacts, str]]:
    """Every look with what is drawn before its number, children below their parent, in the walk's order."""
    below: dict[int | None, list[LookFacts]] = {}
    for look in looks:
        below.setdefault(look.parent, []).append(look)
    pending = [(look, "", "") for look in reversed(below.get(None, []))]
    while pending:
        look, drawn, indent = pending.pop()
        yield look, drawn
        chosen = below.get(look.look, [])
        for child in reversed(chosen):
            last = child is chosen[-1]
            pending.append((child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  ")))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns, the first flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _span(window: Window) -> str:
    return f"rows {window.row}-{window.bottom}, columns {window.col}-{window.right}"
