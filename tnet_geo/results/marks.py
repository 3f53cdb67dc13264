"""Where a walk's boxes and their numbers go on its picture: pure layout, for every way of drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tnet_geo.grid import Window
from tnet_geo.results.walks import Walk
from tnet_geo.trail import Look

__all__ = ["Mark", "depth_colour", "marks_of", "resolution_text"]

DEPTHS = ("#ffffff", "#ffd84d", "#ff9a3d", "#ff6b9d", "#c49bff", "#62d2ff", "#7cf29c")
"""Colours by depth; deeper walks begin again at the second."""

LABEL = 0.044
"""Side of a number's place, as a share of the picture's longer side."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One look's box and the place of its number, in native pixels of the scene."""

    look: Look
    left: float
    top: float
    width: float
    height: float
    label_left: float
    label_top: float
    label_side: float

    @property
    def number(self) -> int:
        """As people count: the root is 1."""
        return self.look.order + 1

    @property
    def colour(self) -> str:
        """Of the look's depth, as #rrggbb."""
        return depth_colour(self.look.depth)


def depth_colour(depth: int) -> str:
    """The colour of the boxes of a depth, as #rrggbb."""
    return DEPTHS[depth] if depth < len(DEPTHS) else DEPTHS[1 + (depth - 1) % (len(DEPTHS) - 1)]


def resolution_text(level: int) -> str:
    """A level in words: `native resolution`, `1/4 resolution`."""
    return "native resolution" if level == 0 else f"1/{1 << level} resolution"


def marks_of(walk: Walk, ground: Window) -> tuple[Mark, ...]:
    """A mark per look, in their order, on a picture of `ground`.

    Boxes are drawn a little inside their tiles, deeper ones more, so that those that share an edge
    are both seen. A number goes into a corner of its box that is still free, and beside boxes that
    are too small for it.
    """
    side = float(max(ground.height, ground.width))
    label = LABEL * side
    marks: list[Mark] = []
    for look, window in zip(walk.looks, walk.windows, strict=True):
        box = _box(window, ground, min((0.009 + 0.006 * look.depth) * side, 0.08 * window.height))
        free = (place for place in _corners(box, label) if _is_free(place, label, marks, ground))
        left, top = next(free, (box[0], box[1]))
        marks.append(Mark(look, *box, left, top, label))
    return tuple(marks)


def _box(window: Window, ground: Window, inset: float) -> tuple[float, float, float, float]:
    """Left, top, width and height of what of a window lies on the picture, drawn in by `inset`."""
    left, top = max(window.col, ground.col) + inset, max(window.row, ground.row) + inset
    right, bottom = min(window.right, ground.right) - inset, min(window.bottom, ground.bottom) - inset
    return left, top, max(right - left, 1.0), max(bottom - top, 1.0)


def _corners(box: tuple[float, float, float, float], label: float) -> Iterator[tuple[float, float]]:
    """Places for a number, best first: the corners inside a box, or those above, below and beside it."""
    left, top, width, height = box
    right, bottom = left + width, top + height
    if min(width, height) > 2.2 * label:
        yield from (
            (left, top),
            (right - label, top),
            (left, bottom - label),
            (right - label, bottom - label),
        )
    else:
        yield from ((left, top - label), (left, bottom), (left - label, top), (right, top))


def _is_free(place: tuple[float, float], label: float, marks: Sequence[Mark], ground: Window) -> bool:
    left, top = place
    on_picture = ground.col <= left <= ground.right - label and ground.row <= top <= ground.bottom - label
    return on_picture and not any(
        abs(mark.label_left - left) < label and abs(mark.label_top - top) < label for mark in marks
    )
