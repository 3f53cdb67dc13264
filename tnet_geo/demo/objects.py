"""Clearings and the panels on them: what decides the class, and what only looks as if it did.

Four clearings for every 512 pixels square. One of them, the target, has sandier ground, and the marking of
its panels is the class of the scene. The others are decoys: empty, or with panels of plain grey, or of
random texture. Nothing is drawn by chance once the class is known: geometry, contrast, phase and texture
come from generators that never see it, so scenes of two classes differ only inside the target's panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tnet_geo.demo.landcover import USUAL_SIDE_PX, Chance, Floats, Ground
from tnet_geo.grid import Window

__all__ = ["MARKINGS", "PANEL_GREY", "Clearing", "class_names", "lay_out", "paint_panels"]

PANEL_GREY, KERB_GREY, SHADOW = 128.0, 100.0, 0.6
PANEL_SIDES_PX, GAP_PX, PERIOD_PX = (12, 16, 20, 24), 4, 4
CLEARING_TONE = np.array((176, 168, 148))
CUE = 36.0 * np.array((0.6, -0.1, -0.8))
"""What the target's tone has more than the others' at cue 1: six times the jitter, a d' of 6."""

_STRIPES = np.repeat([1.0, 1.0, -1.0, -1.0], 4).reshape(4, 4)
_STUDS = np.where((_STRIPES > 0) & (_STRIPES.T > 0), 1.5, -0.5)
_GREY = (1.0, 1.0, 1.0)
STEEPEST = 1.5
"""The largest value in a marking."""


def _marking(cells: NDArray[np.float64], colour: tuple[float, float, float] = _GREY) -> Floats:
    return np.asarray(cells[:, :, None] * np.array(colour), np.float32)


MARKINGS: dict[str, Floats] = {
    "banded": _marking(_STRIPES, (1.1, -0.2, -0.9)),
    "chequered": _marking(_STRIPES * _STRIPES.T),
    "pitted": _marking(-_STUDS),
    "striped": _marking(_STRIPES),
    "studded": _marking(_STUDS),
}
"""One period of each marking, float32 [4, 4, 3]. Every 4 x 4 block of its tiling averages to 0."""


def class_names() -> tuple[str, ...]:
    """The five classes, sorted: how the panels of a target are marked.

    >>> class_names()
    ('banded', 'chequered', 'pitted', 'striped', 'studded')
    """
    return tuple(sorted(MARKINGS))


@dataclass(frozen=True, slots=True)
class Clearing:
    """Bare ground with a yard of panels on it, or none.

    panels  insides of the panels in native pixels, without kerb and shadow
    centre  row and column of its middle, in native pixels
    """

    ground: Ground
    centre: tuple[int, int]
    panels: tuple[Window, ...]
    kind: Literal["target", "plain", "texture", "empty"]


def lay_out(chance: Chance, side_px: int, cue: float) -> tuple[Clearing, ...]:
    """Clearings of a scene, the target first; each 80 to 110 pixels wide, none touching another."""
    count = max(1, round(4 * (side_px / USUAL_SIDE_PX) ** 2))
    shapes = [_shape(chance) for _ in range(count)]
    kinds: tuple[Literal["plain", "texture", "empty"], ...] = ("plain", "texture", "empty")
    clearings: list[Clearing] = []
    for (outline, boxes), (x, y) in zip(shapes, _places(chance, side_px, shapes), strict=True):
        tone, kind = CLEARING_TONE + chance.normal(0, 6, 3), kinds[chance.integers(3)]
        tone = tone if clearings else tone + cue * CUE
        ground = Ground((outline + np.array((x, y))).round().astype(np.int32), (tone[0], tone[1], tone[2]))
        panels = tuple(Window(y + row, x + col, tall, wide) for row, col, tall, wide in boxes.tolist())
        if not clearings:
            clearings.append(Clearing(ground, (y, x), panels, "target"))
        else:
            clearings.append(Clearing(ground, (y, x), panels if kind != "empty" else (), kind))
    return tuple(clearings)


def paint_panels(
    land: Floats, chance: Chance, clearings: Sequence[Clearing], label: str, headroom: float
) -> None:
    """Paint the panels of all clearings onto `land` [side, side, 3], in place.

    `label` shows inside the target's panels and nowhere else. `headroom` is how far a colour may lie from
    the panels' grey before the sensor clips it, which would tell dark markings from bright ones from afar.
    """
    for clearing in clearings:
        for panel in clearing.panels:
            top, left, bottom, right = panel.row, panel.col, panel.bottom, panel.right
            contrast = np.float32(min(chance.uniform(50, 75), headroom / STEEPEST))
            phase, turned = chance.integers(0, PERIOD_PX, 2), chance.random() < 0.5
            texture = chance.standard_normal((panel.height, panel.width), np.float32)
            land[top + 1 : bottom + 3, left + 1 : right + 3] *= np.float32(SHADOW)
            land[top - 1 : bottom + 1, left - 1 : right + 1] = KERB_GREY
            inside = np.zeros((1, 1, 1), np.float32)
            if clearing.kind == "target":
                inside = _tiled(MARKINGS[label], panel, phase, turned)
            elif clearing.kind == "texture":
                inside = (texture - cv2.blur(texture, (PERIOD_PX, PERIOD_PX)))[:, :, None]
            land[top:bottom, left:right] = PANEL_GREY + contrast * inside.clip(-STEEPEST, STEEPEST)


def _tiled(marking: Floats, panel: Window, phase: NDArray[np.int64], turned: bool) -> Floats:
    """A marking over a panel: float32 [height, width, 3]."""
    period = np.roll(marking, (int(phase[0]), int(phase[1])), (0, 1))
    period = period.transpose(1, 0, 2) if turned else period
    return np.tile(period, (panel.height // PERIOD_PX, panel.width // PERIOD_PX, 1))


_Shape = tuple[NDArray[np.float64], NDArray[np.int64]]


def _shape(chance: Chance) -> _Shape:
    """Outline [points, 2] of x, y and panels [n, 4] of row, column, height, width, both about 0."""
    boxes = _yard(chance)
    axes = np.sort(chance.uniform(40, 55, 2))
    if np.ptp(boxes[:, 1]) > np.ptp(boxes[:, 0]):
        axes = axes[::-1]  # the long axis along the long side of the yard
    near, far = boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, 3:1:-1]
    corners = np.stack(
        [np.stack([a[:, 0], b[:, 1]], axis=1) for a in (near, far) for b in (near, far)]
    ).reshape(-1, 2)
    # The clearing grows until its yard fits: sizes of panels stay as drawn.
    axes = axes * max(1.0, float(np.hypot(*(corners / axes).T).max()) / 0.92)
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    wobble = 1 + sum(
        chance.uniform(0, 0.05) * np.cos(k * angle + chance.uniform(0, 2 * np.pi)) for k in (3, 4, 7)
    )
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * axes * np.asarray(wobble)[:, None], boxes


def _yard(chance: Chance) -> NDArray[np.int64]:
    """Four to six panels in two rows about 0, 4 pixels apart: [n, 4] of row, column, height, width."""
    sizes = chance.choice(PANEL_SIDES_PX, (int(chance.integers(4, 7)), 2))
    half = (len(sizes) + 1) // 2
    tallest = [int(row[:, 0].max()) for row in (sizes[:half], sizes[half:])]
    boxes, top = [], -(sum(tallest) + GAP_PX) // 2
    for row, height in zip((sizes[:half], sizes[half:]), tallest, strict=True):
        left = -(int(row[:, 1].sum()) + GAP_PX * (len(row) - 1)) // 2
        for tall, wide in row.tolist():
            boxes.append((top, left, tall, wide))
            left += wide + GAP_PX
        top += height + GAP_PX
    found = np.array(boxes, np.int64)
    return found[:, [1, 0, 3, 2]] if chance.random() < 0.5 else found


def _places(chance: Chance, side_px: int, shapes: Sequence[_Shape]) -> list[tuple[int, int]]:
    """Centres x, y of the clearings: none touches another or the edge of the scene."""
    reaches = [float(np.hypot(*outline.T).max()) for outline, _ in shapes]
    found: list[tuple[int, int]] = []
    tries = 0
    while len(found) < len(reaches):
        reach, tries = reaches[len(found)], tries + 1
        x, y = (int(place) for place in chance.uniform(reach + 2, side_px - reach - 2, 2))
        if all(np.hypot(x - a, y - b) > reach + r + 6 for (a, b), r in zip(found, reaches, strict=False)):
            found.append((x, y))
        elif tries % 1000 == 0:
            found.clear()  # the first ones left no room: begin again
    return found
