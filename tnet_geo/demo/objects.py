"""The objects that decide a scene's class: panels whose markings average to the same grey.

Every marking has a period of 4 pixels and a mean of zero over any 4 x 4 block, so that two halvings of
the resolution erase it. All survive flips and quarter turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "Panel", "class_names", "marking", "paint_panel", "place_panels", "plain_interior", "texture_interior"]

GREY = 128.0
KERB, SHADOW = 100.0, 0.72
SIDES = (12, 16, 20, 24)
GAP = 4

CLASSES = ("checks", "colour_stripes", "dark_dots", "light_dots", "stripes")
"""Names of the markings, sorted: the classes of the demo."""


@dataclass(frozen=True)
class Panel:
    """A rectangle on a yard, and everything about its marking but which one it is."""

    row: int
    col: int
    height: int
    width: int
    """Of the interior; a kerb of one pixel and a shadow of two lie outside it."""
    amplitude: float
    phase: tuple[int, int]
    transposed: bool

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the interior."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


def class_names() -> tuple[str, ...]:
    """The classes of the demo, sorted."""
    return CLASSES


def _cells(values: list[list[float]]) -> NDArray[np.float32]:
    """A 4 x 4 marking in grey as [4, 4, 3]."""
    grey = np.array(values, np.float32)
    return np.repeat(grey[..., None], 3, axis=2)


_STRIPES = _cells([[1, 1, -1, -1]] * 4)
_DOTS = _cells([[1.5 if max(i, j) < 2 else -0.5 for j in range(4)] for i in range(4)])
_MARKINGS = {
    "stripes": _STRIPES,
    "checks": _cells([[1.0 if (i < 2) == (j < 2) else -1.0 for j in range(4)] for i in range(4)]),
    "light_dots": _DOTS,
    "dark_dots": -_DOTS,
    "colour_stripes": _STRIPES * np.array((1.1, -0.2, -0.9), np.float32),
}


def marking(panel: Panel, label: str) -> NDArray[np.float32]:
    """Interior of a panel that carries the marking `label`: float32 [height, width, 3]."""
    cell = _MARKINGS[label]
    cell = cell.transpose(1, 0, 2) if panel.transposed else cell
    cell = np.roll(cell, panel.phase, axis=(0, 1))
    tiled = np.tile(cell, (-(-panel.height // 4), -(-panel.width // 4), 1))
    return GREY + panel.amplitude * tiled[: panel.height, : panel.width]


def plain_interior(panel: Panel) -> NDArray[np.float32]:
    """Interior of a decoy without any marking."""
    return np.full((panel.height, panel.width, 3), GREY, np.float32)


def texture_interior(chance: np.random.Generator, panel: Panel) -> NDArray[np.float32]:
    """Interior of a decoy with a random texture, zero on average over every aligned 4 x 4 block."""
    noise = chance.choice(np.array([-1, 1], np.float32), (panel.height, panel.width))
    blocks = noise.reshape(panel.height // 4, 4, panel.width // 4, 4)
    blocks = blocks - blocks.mean(axis=(1, 3), keepdims=True)
    grey = blocks.reshape(panel.height, panel.width) * panel.amplitude
    return GREY + np.repeat(grey[..., None], 3, axis=2)


def place_panels(chance: np.random.Generator, row: int, col: int, radius: float) -> list[Panel]:
    """Four to six panels inside a circle around (row, col), at least 4 pixels apart."""
    wanted = int(chance.integers(4, 7))
    panels: list[Panel] = []
    for _ in range(400):
        if len(panels) == wanted:
            break
        height, width = (int(side) for side in chance.choice(SIDES, 2))
        top = row + int(chance.integers(-34, 35)) - height // 2
        left = col + int(chance.integers(-34, 35)) - width // 2
        corner = np.hypot(max(row - top, top + height - row), max(col - left, left + width - col))
        apart = all(
            top + height + GAP <= other.row
            or other.row + other.height + GAP <= top
            or left + width + GAP <= other.col
            or other.col + other.width + GAP <= left
            for other in panels
        )
        if corner <= radius and apart:
            phase = (int(chance.integers(4)), int(chance.integers(4)))
            panels.append(Panel(top, left, height, width, chance.uniform(50, 75), phase, chance.random() < 0.5))
    return panels


def paint_panel(image: NDArray[np.float32], panel: Panel, interior: NDArray[np.float32]) -> None:
    """Shadow, kerb, interior: the first two are the same for every class."""
    rows, cols = panel.box
    shadow = np.s_[rows.start + 1 : rows.stop + 3, cols.start + 1 : cols.stop + 3]
    image[shadow] *= SHADOW
    image[rows.start - 1 : rows.stop + 1, cols.start - 1 : cols.stop + 1] = KERB
    image[rows, cols] = interior
