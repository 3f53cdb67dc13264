"""One walk as a picture: the scene with its boxes, every look beside it, evidence below."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, withStroke

from tnet_geo.pyramid import open_archive
from tnet_geo.results.marks import Mark, depth_colour, marks_of, resolution_text
from tnet_geo.results.scenery import Picture, Scenery, Scenes, scenery_of
from tnet_geo.results.schema import RunRecord
from tnet_geo.results.walks import Walk
from tnet_geo.trail import Look

__all__ = ["picture", "scenes_of"]

INK, MUTED, LINE = "#1c2227", "#5f6870", "#d5d9d6"
FOR, AGAINST = "#1d6f8a", "#b8433a"
"""Colours of evidence for and against the answer."""

SCENE_IN, COLUMN_IN, CROP_IN, HEIGHT_IN, MARGIN_IN = 4.3, 1.5, 1.36, 4.6, 0.15
"""Lengths in inches."""

MOST_LOOKS = 7
"""Crops in one row; of longer walks those that weigh most are shown."""
MOST_NUMBERS = 20
"""Looks up to which all boxes are numbered; of longer walks only those whose crops are shown."""


class Walks(Protocol):
    """What is drawn from: `Results`."""

    @property
    def record(self) -> RunRecord:
        """The run."""
        ...

    def walks(self, sites: list[str]) -> list[Walk]:
        """Answers of some sites with their looks."""
        ...


def scenes_of(results: Walks, archive: Scenes | str | Path | None) -> Scenes:
    """The archive given or named, or else the one that the run was made on. Raises: InvalidArchive."""
    if archive is None or isinstance(archive, str | Path):
        return open_archive(archive or results.record.archive)
    return archive


def picture(results: Walks, site: str, *, archive: Scenes | str | Path | None = None) -> bytes:
    """A PNG of one site's walk: the scene with a box per look, then each look with its evidence.

    archive: where the scenes are now, if not where the run found them.

    Raises:
        QueryRefused: the site has no answer.
        InvalidArchive, SceneMissing, TileUnreadable: its scene cannot be read.
    """
    walk = results.walks([site])[0]
    figure = _figure(walk, scenery_of(walk, scenes_of(results, archive)))
    png = io.BytesIO()
    FigureCanvasAgg(figure)
    # No version of matplotlib in the file: the same walk gives the same bytes.
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _figure(walk: Walk, scenery: Scenery) -> Figure:
    looks = walk.weightiest(MOST_LOOKS)
    left = SCENE_IN + 3 * MARGIN_IN
    width = left + max(COLUMN_IN * len(looks), 3.6)
    figure = Figure(figsize=(width, HEIGHT_IN), dpi=140, facecolor="white")

    def axes(x: float, y: float, across: float, down: float) -> Axes:
        return figure.add_axes((x / width, y / HEIGHT_IN, across / width, down / HEIGHT_IN))

    _draw_scene(axes(MARGIN_IN, MARGIN_IN, SCENE_IN, SCENE_IN), walk, scenery, looks)
    for height, text, size, weight, colour in (
        (4.43, walk.label, 16, "bold", INK),
        (4.08, _verdict(walk), 9.5, "normal", INK),
        (3.86, _cost(walk), 9.5, "normal", MUTED),
        (
            0.32,
            f"evidence for {walk.label!r}: with the bias {walk.bias:+.2f}, {_sum(walk)}",
            8.5,
            "normal",
            MUTED,
        ),
    ):
        figure.text(left / width, height / HEIGHT_IN, text, size=size, weight=weight, color=colour, va="top")
    shares = [0.0, *(look.evidence for look in looks)]
    for n, look in enumerate(looks):
        column = left + COLUMN_IN * n
        _draw_crop(axes(column, 1.93, CROP_IN, CROP_IN), look, scenery.crops[look.order])
        _draw_evidence(axes(column, 0.45, CROP_IN, 1.1), look, (min(shares), max(shares)))
    return figure


def _verdict(walk: Walk) -> str:
    truth = "" if walk.expected is None else f", wrong: it is {walk.expected}" if walk.wrong else ", right"
    return f"{walk.confidence:.0%} sure{truth}"


def _cost(walk: Walk) -> str:
    count = len(walk.looks)
    looks = f"{count} look{'' if count == 1 else 's'}"
    ending = "" if walk.ended_by == "complete" else f"; {walk.ending}"
    return f"site {walk.site_id}: {looks}, {walk.pixel_fraction:.1%} of its pixels read{ending}"


def _sum(walk: Walk) -> str:
    looks = (
        f"{len(walk.looks)} looks add up"
        if len(walk.looks) <= MOST_LOOKS
        else f"all {len(walk.looks)} looks add up"
    )
    return f"{looks} to the logit {walk.logit:.2f}"


def _draw_scene(axes: Axes, walk: Walk, scenery: Scenery, shown: Sequence[Look]) -> None:
    ground, window = scenery.ground, walk.window
    extent = (ground.col, ground.right, ground.bottom, ground.row)
    axes.imshow(scenery.picture, extent=extent, interpolation="antialiased")
    axes.set(xlim=(ground.col, ground.right), ylim=(ground.bottom, ground.row), anchor="N")
    axes.set_axis_off()
    if scenery.beyond:
        _outline(axes, (window.col, window.row), (window.width, window.height), "white", 1.0, (0, (4, 3)))
    everything = len(walk.looks) <= MOST_NUMBERS
    marks = marks_of(walk, ground) if everything else sorted(marks_of(walk, ground), key=_is_in(shown))
    for mark in marks:
        clear = everything or mark.look in shown
        _outline(axes, (mark.left, mark.top), (mark.width, mark.height), mark.colour, 2.0 if clear else 0.7)
        if clear:
            _number(axes, mark)


def _is_in(shown: Sequence[Look]) -> Callable[[Mark], bool]:
    """Sorts the marks of looks that are shown behind the others, so that they are drawn on top."""
    return lambda mark: mark.look in shown


def _outline(
    axes: Axes,
    corner: tuple[float, float],
    size: tuple[float, float],
    colour: str,
    width: float,
    *dashes: tuple[int, tuple[int, int]],
) -> None:
    """A box that is seen on any ground: a dark line below a bright one."""
    box = Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=width)
    if dashes:
        box.set_linestyle(dashes[0])
    box.set_path_effects([withStroke(linewidth=width + 1.6, foreground="#000000", alpha=0.55), Normal()])
    axes.add_patch(box)


def _number(axes: Axes, mark: Mark) -> None:
    side = mark.label_side
    axes.add_patch(
        Rectangle((mark.label_left, mark.label_top), side, side, facecolor=mark.colour, linewidth=0)
    )
    centre = (mark.label_left + side / 2, mark.label_top + side / 2)
    axes.text(*centre, str(mark.number), ha="center", va="center_baseline", size=8, weight="bold", color=INK)


def _draw_crop(axes: Axes, look: Look, crop: Picture) -> None:
    """The look at the network's own size, pixel edges kept, with its words above."""
    axes.imshow(crop, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=depth_colour(look.depth) if look.depth else MUTED, linewidth=2.0)
    chosen = "root" if look.depth == 0 else f"chosen, {look.probability:.0%}"
    axes.set_title(f"{look.order + 1}  {chosen}", size=9, color=INK, weight="bold", loc="left", pad=5)
    axes.set_xlabel(resolution_text(look.tile.level), size=8, color=MUTED, labelpad=4)


def _draw_evidence(axes: Axes, look: Look, span: tuple[float, float]) -> None:
    """A bar on a scale that all looks share; `span` is least and most of their evidence, zero within."""
    colour = FOR if look.evidence >= 0 else AGAINST
    axes.bar([0], [look.evidence], width=0.5, color=colour)
    axes.axhline(0, color=LINE, linewidth=1)
    room = 0.28 * (span[1] - span[0]) or 1.0  # for the numbers
    axes.set(xlim=(-0.8, 0.8), ylim=(span[0] - room, span[1] + room))
    above = look.evidence >= 0
    largest = max(abs(span[0]), abs(span[1])) or 1.0
    digits = max(2, 1 - math.floor(math.log10(largest)))  # two that count
    axes.annotate(
        f"{look.evidence:+.{digits}f}".replace("-", "\u2212"),
        (0, look.evidence),
        xytext=(0, 3 if above else -3),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        size=8,
        color=colour,
    )
    axes.set_axis_off()
