"""The canvas `fit:N`: each site, with its context, as a square of N x N pixels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tnet_geo.grid import Window
from tnet_geo.imagery.context import with_context
from tnet_geo.imagery.manifest import Site

__all__ = ["canvas_cut", "canvas_site", "fit", "fitted_transform"]

Block = tuple[NDArray[Any], NDArray[np.uint8] | None]
"""Pixels [bands, y, x] and validity [y, x] from 0 to 255; None means that all pixels are valid."""
Affine = tuple[float, float, float, float, float, float]

STRIP_BYTES = 32 << 20
"""Decoded bytes of a source that are in memory at once."""
EXACT_IN_FLOAT = frozenset({"uint8", "int8", "uint16", "int16"})
"""Types whose values and sums float32 holds well enough to round them right."""


def canvas_site(site: Site) -> Site:
    """The site as an archive with a canvas stores it: a scene of its own, with no window.

    >>> canvas_site(Site("yard 7/a", "/data/yard.tif", "yard-5c5e6eef", Window(3, 4, 5, 6))).scene_id
    'yard_7_a-1c5b6173'
    """
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", site.site_id).lstrip("._-") or "site"
    digest = hashlib.sha256(site.site_id.encode()).hexdigest()[:8]
    return replace(site, scene_id=f"{name[:80]}-{digest}", window=None)


def canvas_cut(window: Window | None, shape: tuple[int, int]) -> Window | None:
    """What is cut from a picture of `shape` (rows, columns) for a site: its window with its context.

    Without a window it is the whole picture. None: the window does not touch the picture.
    """
    return with_context(window or Window(0, 0, *shape), shape)


def fitted_transform(transform: Affine | None, cut: Window, side: int) -> Affine | None:
    """The affine transform of the square made of `cut`, `transform` being that of its picture.

    >>> fitted_transform((0.5, 0.0, 100.0, 0.0, -0.5, 900.0), Window(20, 10, 64, 128), 32)
    (2.0, 0.0, 105.0, 0.0, -1.0, 890.0)
    """
    if transform is None:
        return None
    a, b, c, d, e, f = transform
    wide, high = cut.width / side, cut.height / side
    x, y = a * cut.col + b * cut.row + c, d * cut.col + e * cut.row + f
    return a * wide, b * high, x, d * wide, e * high, y


def fit(
    read: Callable[[Window], Block],
    cut: Window,
    side: int,
    *,
    nodata: float | None = None,
    pixel_bytes: int = 4,
) -> Block:
    """Pixels [bands, side, side] and validity [side, side] of `cut`, its proportions not kept.

    `read` gives a window of the picture, `pixel_bytes` for each pixel with all its bands. It is asked
    for strips from top to bottom, so that memory does not grow with the picture.

    Published TNet resizes with bilinear interpolation without antialiasing, pixel centres at halves,
    after its pictures have been decoded at 1/2, 1/4 or 1/8 where they are larger by these factors. So
    does this: along each axis the means of 2^k pixels, as long as they are at least `side`, then the
    published interpolation. A side below 2 N is interpolated alone; no pixel of a larger one is
    passed over. Both weigh only values that count (validity above 0, not `nodata`, finite); where none
    counts the nearest value is handed on. Validity is resampled alike. Integers round half up.

    Source: reference code of TNet (NeurIPS 2021), preparation and evaluation of fMoW.
    """
    factors = _power(cut.height, side), _power(cut.width, side)
    strips = [_reduced(read(strip), factors, nodata) for strip in _strips(cut, factors[0], pixel_bytes)]
    cells = _joined(strips)
    steps = cut.height / (factors[0] * side), cut.width / (factors[1] * side)
    validity = None
    if cells.validity is not None:
        shares = _interpolated(cells.validity, steps, side)
        validity = np.floor(shares + 0.5).clip(0, 255).astype(np.uint8)
    nearest = [
        np.minimum(((np.arange(side) + 0.5) * step).astype(np.int64), count - 1)
        for step, count in zip(steps, cells.means.shape[1:], strict=True)
    ]
    bands = []
    for band, handed in enumerate(cells.handed):
        means = cells.means[band]
        if cells.weights is None:
            fitted = _interpolated(means, steps, side)
        else:
            weights = _interpolated(cells.weights[band], steps, side)
            fitted = _interpolated(means * cells.weights[band], steps, side)
            np.divide(fitted, weights, out=fitted, where=weights > 0)
        fitted = _cast(fitted, handed.dtype)
        if cells.weights is not None:
            fitted = np.where(weights > 0, fitted, handed[np.ix_(*nearest)])
        bands.append(fitted)
    return np.stack(bands), validity


@dataclass(frozen=True, slots=True)
class _Cells:
    """A cut at a resolution between once and twice that of the canvas."""

    means: NDArray[Any]
    """[bands, y, x], floats: of the values that count, 0 where none does."""
    weights: NDArray[Any] | None
    """[bands, y, x], floats from 0 to 1: the share of values that count; None: all do."""
    handed: NDArray[Any]
    """[bands, y, x] in the source's type: the upper left value of each cell."""
    validity: NDArray[Any] | None
    """[y, x], floats: the mean of the pixels' validity; None: all are valid."""


def _power(pixels: int, side: int) -> int:
    """The largest power of two that leaves at least `side` of `pixels`."""
    return 1 << max(0, (pixels // side).bit_length() - 1)


def _strips(cut: Window, factor: int, pixel_bytes: int) -> Iterator[Window]:
    """The cut in strips of whole rows of cells, from top to bottom."""
    rows = max(1, STRIP_BYTES // (cut.width * pixel_bytes) // factor) * factor
    for row in range(cut.row, cut.bottom, rows):
        yield Window(row, cut.col, min(rows, cut.bottom - row), cut.width)


def _reduced(block: Block, factors: tuple[int, int], nodata: float | None) -> _Cells:
    """Pixels in means of `factors` pixels; cells at the lower and right edge may have fewer."""
    pixels, validity = block
    work = np.dtype(np.float32 if pixels.dtype.name in EXACT_IN_FLOAT else np.float64)
    whole = _existing(pixels.shape[1:], factors)
    means: list[NDArray[Any]] = []
    weights: list[NDArray[Any]] = []
    for band in pixels:
        counts = _counts(band, validity, nodata)
        if counts is None:
            means.append(_sums(band.astype(work), factors) / whole)
            weights.append(np.ones_like(whole))
        else:
            number = _sums(counts.astype(work), factors)
            total = _sums(np.where(counts, band, 0).astype(work), factors)
            means.append(np.divide(total, number, out=np.zeros_like(total), where=number > 0))
            weights.append(number / whole)
    everywhere = all(bool(weight.min() == 1) for weight in weights)
    return _Cells(
        means=np.stack(means).astype(work, copy=False),
        weights=None if everywhere else np.stack(weights).astype(work, copy=False),
        handed=np.ascontiguousarray(pixels[:, :: factors[0], :: factors[1]]),
        validity=None if validity is None else _sums(validity.astype(np.float32), factors) / whole,
    )


def _counts(
    band: NDArray[Any], validity: NDArray[np.uint8] | None, nodata: float | None
) -> NDArray[np.bool_] | None:
    """Which values of a band [y, x] count; None: all of them."""
    counts = np.ones(band.shape, bool) if validity is None else validity > 0
    if nodata is not None and np.isfinite(nodata):
        counts &= band != nodata
    if band.dtype.kind == "f":
        counts &= np.isfinite(band)
    return None if counts.all() else counts


def _existing(shape: tuple[int, ...], factors: tuple[int, int]) -> NDArray[np.float32]:
    """How many pixels [y, x] every cell of a strip of `shape` has."""
    down, across = (
        np.minimum(factor, side - np.arange(0, side, factor))
        for side, factor in zip(shape, factors, strict=True)
    )
    return np.outer(down, across).astype(np.float32)


def _sums(plane: NDArray[Any], factors: tuple[int, int]) -> NDArray[Any]:
    """Sums of the cells of a plane [y, x] of floats, in its type."""
    down, across = factors
    if factors == (1, 1):
        return plane
    rows, cols = plane.shape
    plane = np.pad(plane, ((0, -rows % down), (0, -cols % across)))
    size = (plane.shape[1] // across, plane.shape[0] // down)
    means: NDArray[Any] = np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))
    sums: NDArray[Any] = means * plane.dtype.type(down * across)
    return sums


def _joined(strips: list[_Cells]) -> _Cells:
    """Strips below each other as one."""
    validity = weights = None
    if any(strip.validity is not None for strip in strips):
        shares = [
            np.full(strip.means.shape[1:], 255, np.float32) if strip.validity is None else strip.validity
            for strip in strips
        ]
        validity = np.concatenate(shares)
    if any(strip.weights is not None for strip in strips):
        shares = [np.ones_like(strip.means) if strip.weights is None else strip.weights for strip in strips]
        weights = np.concatenate(shares, axis=1)
    means = np.concatenate([strip.means for strip in strips], axis=1)
    handed = np.concatenate([strip.handed for strip in strips], axis=1)
    return _Cells(means, weights, handed, validity)


def _interpolated(plane: NDArray[Any], steps: tuple[float, float], side: int) -> NDArray[Any]:
    """A plane [y, x] of floats at the centres of a square's pixels, which are `steps` cells apart.

    Pixel i reads the coordinate (i + 0.5) * step - 0.5, linearly between two cells, clamped at the edges.
    """
    for axis, step in enumerate(steps):
        if step == 1.0 and plane.shape[axis] == side:
            continue
        last = plane.shape[axis] - 1
        at = np.clip((np.arange(side) + 0.5) * step - 0.5, 0, last)
        low = np.minimum(at.astype(np.int64), last)
        share = (at - low).astype(plane.dtype)
        share = share[:, None] if axis == 0 else share
        lower, upper = plane.take(low, axis), plane.take(np.minimum(low + 1, last), axis)
        upper -= lower
        upper *= share
        upper += lower
        plane = upper
    return plane


def _cast(plane: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Floats in the source's type; integers rounded half up."""
    if dtype.kind == "f":
        return plane.astype(dtype)
    limits = np.iinfo(dtype)
    whole: NDArray[Any] = np.floor(plane + 0.5).clip(limits.min, limits.max)
    return whole.astype(dtype)
