"""How much of its surroundings a site is shown with: the published rule for boxes of fMoW."""

from __future__ import annotations

from tnet_geo.grid import Window

__all__ = ["CONTEXT_RULE", "with_context"]

CONTEXT_RULE = "fmow"
"""Names the rule below in digests: another rule makes other pixels."""

_STEPS = ((0.5, 0.15), (0.4, 0.2), (0.3, 0.3), (0.2, 0.5), (0.1, 1.0), (0.0, 2.0))
"""From which share of the picture's side on, and by how much of itself a side of the box grows."""


def with_context(box: Window, shape: tuple[int, int]) -> Window | None:
    """The window of `box` and its context, cut off at the edges of a picture of `shape` (rows, columns).

    Each axis for itself: a box whose side is the share r of the picture's grows at both ends by
    int(side * m / 2) pixels, m being 0.15 for r >= 0.5, 0.2 from 0.4 on, 0.3 from 0.3, 0.5 from 0.2,
    1 from 0.1, and 2 below. None: nothing of it lies on the picture.

    >>> with_context(Window(row=40, col=10, height=20, width=50), (100, 100))
    Window(row=35, col=7, height=30, width=56)

    Source: the fMoW baseline's rule as TNet (NeurIPS 2021) applies it, shares taken per axis.
    """
    top, bottom = _grown(box.row, box.height, shape[0])
    left, right = _grown(box.col, box.width, shape[1])
    if top >= bottom or left >= right:
        return None
    return Window(top, left, bottom - top, right - left)


def _grown(start: int, side: int, whole: int) -> tuple[int, int]:
    """First and last of one axis, the last not included."""
    factor = next(factor for least, factor in _STEPS if side / whole >= least)
    more = int(side * factor / 2)
    return max(0, start - more), min(whole, start + side + more)
