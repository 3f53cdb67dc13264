"""Land cover: a generator of random numbers comes in, the colours of fields, woods, water and roads go out.

The land is three things: a map of covers (a number for each pixel), a table of tones (a colour for each
cover) and one grey relief (crop rows, tree crowns, ripples, shading) that is added to the colours.
Lengths are in pixels of 0.5 m whatever the side of a scene: a larger scene holds more land, not larger
fields. Numbers of fields, roads and lakes are those of a scene of 512 pixels; others hold as many a hectare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["USUAL_SIDE_PX", "Chance", "Floats", "Ground", "fractal", "paint_land"]

Floats = NDArray[np.float32]
Chance = np.random.Generator

USUAL_SIDE_PX = 512
FIELD_TONES = np.array(
    [(118, 122, 78), (142, 132, 98), (104, 118, 70), (86, 104, 60), (132, 118, 86), (112, 96, 76)], np.float32
)
WOOD_TONE, WATER_TONE = (52.0, 74.0, 44.0), (48.0, 66.0, 84.0)
HEDGE, SHADE = -16.0, -24.0
"""What a hedge and the shadow of a wood add to the grey of the ground below."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Bare ground that is laid over the land.

    outline  int32 [points, 2], x and y in pixels
    tone     red, green, blue, 0..255
    """

    outline: NDArray[np.int32]
    tone: tuple[float, float, float]


class _Land:
    """The land in the making: covers and relief [side, side], and the tones of the covers so far."""

    def __init__(self, chance: Chance, side_px: int) -> None:
        self.chance, self.side_px = chance, side_px
        self.cover = np.zeros((side_px, side_px), np.uint16)
        self.relief = np.zeros((side_px, side_px), np.float32)
        self.tones: list[tuple[float, float, float]] = []
        # One grain for crowns, soil and the ragged edge of woods: drawing it thrice would show no more.
        grain = cv2.GaussianBlur(chance.standard_normal((side_px, side_px), np.float32), (0, 0), 2.0)
        self.grain: Floats = grain / grain.std()

    def number_of(self, tone: tuple[float, float, float]) -> int:
        """The number of a new cover with this tone."""
        self.tones.append(tone)
        return len(self.tones) - 1

    def many(self, count: float, power: int = 2) -> int:
        """A count for the usual side, for this side: by area (power 2) or by length (power 1)."""
        return max(1, round(count * (self.side_px / USUAL_SIDE_PX) ** power))


def paint_land(chance: Chance, side_px: int, grounds: Sequence[Ground]) -> Floats:
    """The land of one scene with bare `grounds` on it: float32 [side_px, side_px, 3], about 0..255.

    Source: the demo scenes on which the recipe of learning was measured.
    """
    land = _Land(chance, side_px)
    _plough(land)
    _plant_woods(land)
    _fill_lakes(land, grounds)
    _lay_roads(land)
    for ground in grounds:
        number = land.number_of(ground.tone)
        cv2.fillPoly(land.cover, [ground.outline], number)
        x, y, wide, tall = cv2.boundingRect(ground.outline)
        part = np.s_[max(0, y) : y + tall, max(0, x) : x + wide]
        np.copyto(land.relief[part], 1.5 * land.grain[part], where=land.cover[part] == number)
    # Borders mixed as an optic would mix them; the relief has its own sharpness.
    tones = np.array(land.tones, np.float32)[land.cover]
    colours = np.asarray(cv2.GaussianBlur(tones, (3, 3), 0.7), np.float32)
    colours += land.relief[:, :, None]
    return colours


def fractal(chance: Chance, side_px: int, cells_px: tuple[int, ...]) -> Floats:
    """Smooth noise, mean 0 and deviation 1: an octave for each size of cell, weighted by that size.

    float32 [side_px, side_px]. An octave is a grid of random knots under cubic B-splines: two products
    with a thin matrix, ten times cheaper than resizing the knots and as smooth.
    """
    total = np.zeros((side_px, side_px), np.float32)
    for cell in cells_px:
        knots = side_px // cell + 5
        values = chance.standard_normal((knots, knots), np.float32) * np.float32(cell / cells_px[0])
        down, across = (_splines(side_px, cell, knots, shift) for shift in chance.random(2))
        total += np.linalg.multi_dot([down, values, across.T])
    total -= total.mean()
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def _splines(side_px: int, cell_px: int, knots: int, shift: float) -> Floats:
    """Weights of `knots` cubic B-splines at every pixel of a side: float32 [side_px, knots]."""
    place = np.arange(side_px) / cell_px + 1 + shift
    distance = np.abs(place[:, None] - np.arange(knots))
    inner, outer = np.maximum(1 - distance, 0), np.maximum(2 - distance, 0)
    weights = (outer * outer * outer - 4 * inner * inner * inner) / 6
    return np.asarray(weights, np.float32)


def _plough(land: _Land) -> None:
    """Fields: Voronoi cells with warped borders, hedges between them, rows in 7 of 10, gentle shading."""
    chance, side = land.chance, land.side_px
    axis = np.arange(side, dtype=np.float32)
    x = axis + 10 * fractal(chance, side, (128, 64, 32))
    y = axis[:, None] + 10 * fractal(chance, side, (128, 64, 32))
    # Fields are long: nearest centres are sought in a sheared, stretched plane, then looked up by pixel.
    stretch, shear = np.float32(chance.uniform(0.75, 1.3)), np.float32(chance.uniform(-0.4, 0.4))
    u, v = stretch * (x + shear * y), y / stretch
    u, v = u - (u.min() - 48), v - (v.min() - 48)
    plane = np.full((int(v.max()) + 48, int(u.max()) + 48), 255, np.uint8)
    count = land.many(chance.integers(10, 18) * plane.size / side**2)
    plane[chance.integers(0, plane.shape[0], count), chance.integers(0, plane.shape[1], count)] = 0
    nearest = cv2.distanceTransformWithLabels(
        plane, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    land.cover = np.asarray(cv2.remap(nearest.astype(np.uint16), u, v, cv2.INTER_NEAREST), np.uint16)
    tones = FIELD_TONES[chance.integers(0, len(FIELD_TONES), count + 1)] + chance.normal(0, 6, (count + 1, 3))
    land.tones = [(red, green, blue) for red, green, blue in tones.tolist()]
    land.relief = _rows(land, count + 1)
    land.relief += 1.5 * land.grain + 4 * fractal(chance, side, (256, 128, 64))
    edge = cv2.morphologyEx(land.cover, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    edge &= fractal(chance, side, (64, 32)) > 0
    land.relief[edge] += np.float32(HEDGE)


def _rows(land: _Land, fields: int) -> Floats:
    """Crop rows of every field: a sine of 6 to 11 pixels at any angle, of 0 to 9 levels."""
    chance, cover = land.chance, land.cover
    angle, frequency = chance.uniform(0, np.pi, fields), 2 * np.pi / chance.uniform(6, 11, fields)
    height = (chance.uniform(0, 9, fields) * (chance.random(fields) < 0.7)).astype(np.float32)
    axis = np.arange(land.side_px, dtype=np.float32)
    phase = (frequency * np.cos(angle)).astype(np.float32)[cover] * axis
    phase += (frequency * np.sin(angle)).astype(np.float32)[cover] * axis[:, None]
    return np.asarray(np.sin(phase, out=phase) * height[cover], np.float32)


def _plant_woods(land: _Land) -> None:
    """Woods over 15 to 35 % of the land: crowns about 4 pixels wide, a ragged edge, a shadow behind it."""
    where = fractal(land.chance, land.side_px, (128, 64, 32)) + 0.12 * land.grain
    wood = where > np.quantile(where[::4, ::4], 1 - land.chance.uniform(0.15, 0.35))
    shadow = np.zeros_like(wood)
    shadow[4:, 4:] = wood[:-4, :-4]
    land.relief[shadow] += np.float32(SHADE)
    np.copyto(land.relief, land.chance.uniform(11, 17) * land.grain, where=wood)
    land.cover[wood] = land.number_of(WOOD_TONE)


def _fill_lakes(land: _Land, grounds: Sequence[Ground]) -> None:
    """Lakes over 5 to 12 % of 7 scenes in 10; they shun bare ground."""
    where = fractal(land.chance, land.side_px, (256, 128, 64))
    share, wet = land.chance.uniform(0.05, 0.12), land.chance.random() < 0.7
    dry = np.zeros((land.side_px // 8 + 1,) * 2, np.float32)
    cv2.fillPoly(dry, [ground.outline // 8 for ground in grounds], 1.0)
    soft = cv2.GaussianBlur(dry, (0, 0), 5.0)  # or shores would trace the clearings
    where -= 12 * np.asarray(cv2.resize(soft, where.shape, interpolation=cv2.INTER_LINEAR), np.float32)
    water = where > np.quantile(where[::4, ::4], 1 - share)
    if wet:
        np.copyto(land.relief, 0.8 * land.grain, where=water)
        land.cover[water] = land.number_of(WATER_TONE)


def _lay_roads(land: _Land) -> None:
    """Two or three bending roads from edge to edge, 5 to 9 pixels wide."""
    chance, side = land.chance, land.side_px
    along = np.linspace(-0.05, 1.05, 8 + side // 8)
    for _ in range(land.many(int(chance.integers(2, 4)), power=1)):
        across = chance.uniform(0, 1) + chance.uniform(-0.5, 0.5) * (along - 0.5)
        waves = chance.uniform(2, 6) * side / USUAL_SIDE_PX
        across += chance.uniform(10, 40) / side * np.sin(along * waves + chance.uniform(0, 2 * np.pi))
        line = (side * np.stack([along, across], axis=1)).round().astype(np.int32)
        line = line[:, ::-1] if chance.random() < 0.5 else line
        grey = chance.uniform(105, 150)
        number = land.number_of((grey, grey, grey))
        cv2.polylines(land.cover, [line], False, number, int(chance.integers(5, 10)))
        np.copyto(land.relief, land.grain, where=land.cover == number)
