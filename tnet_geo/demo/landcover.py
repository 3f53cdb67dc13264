"""Believable land cover from a seed: fields, forest, water, roads, and the yards that objects stand on.

All sizes are in pixels of 0.5 m, so that larger scenes hold more of everything, not larger things.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Yard", "fractal", "land_cover", "place_yards", "paint_yard"]

Pixels = NDArray[np.float32]

FIELD_TONES = np.array(
    [(102, 118, 68), (124, 128, 84), (90, 108, 62), (142, 130, 98), (112, 122, 76), (132, 132, 92)], np.float32
)
FOREST, WATER = np.array((52, 74, 44), np.float32), np.array((48, 66, 84), np.float32)
YARD_TONE = np.array((176, 168, 148), np.float32)
CUE = np.array((0.6, -0.1, -0.8), np.float32) * 36
"""What makes the target's yard sandier than the others: seen from the root, six times its jitter."""
FIELD_AREA = 512 * 512 / 13
"""Pixels of an average field."""


@dataclass(frozen=True)
class Yard:
    """An irregular oval of bare ground."""

    row: int
    col: int
    """Centre."""
    radii: tuple[float, float]
    angle: float
    wobble: tuple[float, ...]
    """Amplitudes and phases of the outline's harmonics."""
    tone: tuple[float, float, float]


def fractal(chance: np.random.Generator, side: int, cell: int, octaves: int = 3) -> Pixels:
    """Smooth noise of mean 0 and spread 1, features of about `cell` pixels: float32 [side, side]."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        step = max(2, cell >> octave)
        n = -(-side // step) + 3
        coarse = chance.standard_normal((n, n), dtype=np.float32)
        fine = cv2.resize(coarse, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += fine[step : step + side, step : step + side] * 0.5**octave
    spread = (total - total.mean()) / max(float(total.std()), 1e-6)
    return spread.astype(np.float32)


def land_cover(chance: np.random.Generator, side: int) -> Pixels:
    """A scene without yards: float32 [side, side, 3], 0 to 255."""
    image = _fields(chance, side)
    image += 4 * fractal(chance, side, 128)[..., None]
    _forest(chance, image)
    if chance.random() < 0.7:
        _water(chance, image)
    for _ in range(int(chance.integers(2, 4)) * max(1, side // 512)):
        _road(chance, image)
    return image


def _fields(chance: np.random.Generator, side: int) -> Pixels:
    """Voronoi cells with warped borders, most of them with rows of some crop."""
    count = max(2, round(side * side / FIELD_AREA * chance.uniform(0.77, 1.3)))
    centres = chance.uniform(0, side, (count, 2)).astype(np.float32)
    rows, cols = np.mgrid[0:side:2, 0:side:2].astype(np.float32)
    half = rows.shape[0]
    warped = [axis + 9 * fractal(chance, half, 32, 2) for axis in (rows, cols)]
    nearest = np.full(rows.shape, np.inf, np.float32)
    cell = np.zeros(rows.shape, np.uint8)
    for n, (row, col) in enumerate(centres):
        # Distances along other axes for each cell would leave gaps; plain ones give straight hedges.
        distance = (warped[0] - row) ** 2 + (warped[1] - col) ** 2
        closer = distance < nearest
        nearest[closer], cell[closer] = distance[closer], n % 256
    cells = cv2.resize(cell, (half * 2, half * 2), interpolation=cv2.INTER_NEAREST)[:side, :side]
    cells = cv2.medianBlur(cells, 5)  # half-size cells have stairs
    tones = FIELD_TONES[chance.integers(len(FIELD_TONES), size=256)] + chance.normal(0, 6, (256, 3))
    image = tones.astype(np.float32)[cells]
    angle, period = chance.uniform(0, np.pi, 256), chance.uniform(6, 11, 256)
    amplitude = np.where(chance.random(256) < 0.7, chance.uniform(0, 9, 256), 0)
    wave = 2 * np.pi / period
    along_rows, along_cols = (wave * np.sin(angle)).astype(np.float32), (wave * np.cos(angle)).astype(np.float32)
    y, x = np.arange(side, dtype=np.float32)[:, None], np.arange(side, dtype=np.float32)[None]
    crop = np.sin(along_rows[cells] * y + along_cols[cells] * x) * amplitude.astype(np.float32)[cells]
    return np.ascontiguousarray(image + crop[..., None], np.float32)


def _forest(chance: np.random.Generator, image: Pixels) -> None:
    """Woods with crowns, over 15 to 35 % of the scene."""
    side = len(image)
    field = fractal(chance, side, 96)
    edge = np.quantile(field[::4, ::4], 1 - chance.uniform(0.15, 0.35))
    crowns = cv2.GaussianBlur(chance.standard_normal((side, side), dtype=np.float32), (0, 0), 2)
    crowns *= chance.uniform(11, 17) / max(float(crowns.std()), 1e-6)
    share = np.clip((field - edge) * 12, 0, 1)[..., None]
    image += share * (FOREST + crowns[..., None] - image)


def _water(chance: np.random.Generator, image: Pixels) -> None:
    """A lake or two, over 5 to 12 % of the scene."""
    field = fractal(chance, len(image), 160, 2)
    edge = np.quantile(field[::4, ::4], 1 - chance.uniform(0.05, 0.12))
    share = np.clip((field - edge) * 16, 0, 1)[..., None]
    image += share * (WATER + 1.5 * fractal(chance, len(image), 8, 1)[..., None] - image)


def _road(chance: np.random.Generator, image: Pixels) -> None:
    """One bending line from edge to edge."""
    side = len(image)
    along = np.linspace(-20, side + 20, 40)
    bend = chance.uniform(0.1, 0.9) * side + np.cumsum(chance.normal(0, 0.01 * side, 40))
    bend += (along - side / 2) * chance.uniform(-0.5, 0.5)
    points = np.stack([along, bend] if chance.random() < 0.5 else [bend, along], axis=1)
    mask = np.zeros((side, side), np.uint8)
    line = (points * 8).round().astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(mask, [line], False, 255, int(chance.integers(5, 10)), cv2.LINE_AA, shift=3)
    share = (mask.astype(np.float32) / 255)[..., None]
    image += share * (np.float32(chance.uniform(105, 150)) - image)


def place_yards(chance: np.random.Generator, side: int, count: int) -> list[Yard]:
    """`count` yards that do not overlap; the first one is the target's, and its tone carries the cue."""
    yards: list[Yard] = []
    while len(yards) < count:
        row, col = (int(k) for k in chance.integers(64, side - 64, 2))
        if any((row - yard.row) ** 2 + (col - yard.col) ** 2 < 128**2 for yard in yards):
            continue
        tone = YARD_TONE + chance.normal(0, 6, 3) + (0 if yards else CUE)
        radii = (chance.uniform(40, 55), chance.uniform(40, 55))
        wobble = tuple(chance.uniform(-0.06, 0.06, 6))
        yards.append(Yard(row, col, radii, chance.uniform(0, np.pi), wobble, tuple(tone.tolist())))
    return yards


def paint_yard(chance: np.random.Generator, image: Pixels, yard: Yard) -> None:
    """Bare ground with a soft, uneven rim and some grain."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 1 + sum(
        yard.wobble[k] * np.cos((k + 2) * turn + 7 * yard.wobble[k + 3] / 0.06) for k in range(3)
    )
    x, y = yard.radii[0] * radius * np.cos(turn), yard.radii[1] * radius * np.sin(turn)
    cosine, sine = np.cos(yard.angle), np.sin(yard.angle)
    outline = np.stack([yard.col + cosine * x - sine * y, yard.row + sine * x + cosine * y], axis=1)
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [(outline * 8).round().astype(np.int32)], 255, cv2.LINE_AA, shift=3)
    top, left = max(0, yard.row - 72), max(0, yard.col - 72)
    part = np.s_[top : yard.row + 72, left : yard.col + 72]
    share = cv2.GaussianBlur(mask[part].astype(np.float32) / 255, (0, 0), 1.2)[..., None]
    grain = 2 * chance.standard_normal((144, 144), dtype=np.float32)[: share.shape[0], : share.shape[1]]
    image[part] += share * (np.array(yard.tone, np.float32) + grain[..., None] - image[part])
