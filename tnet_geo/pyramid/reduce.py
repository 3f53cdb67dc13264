"""Halving a raster: the mean of 2 x 2 pixels, exact, on the fast path and on the masked one."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["halve"]

FAST_DTYPES = frozenset({"uint8", "uint16"})
"""Types whose 2 x 2 mean by OpenCV is the half-up mean bit for bit."""

SIGNED_AS = {"int8": "uint8", "int16": "uint16"}
"""A shift by half the range commutes with the half-up mean and makes the type one of the fast ones."""

Validity = NDArray[np.uint8] | None


def halve(
    pixels: NDArray[Any], validity: Validity, nodata: float | None = None
) -> tuple[NDArray[Any], Validity]:
    """Pixels [bands, y, x] and validity [y, x] at half the side, odd sides rounded up.

    A value is the mean of those among its four that count: validity above 0, not `nodata`, finite.
    Integers round half up; floats are averaged in float64. Where none counts, the upper left one is
    handed on, so that nodata stays nodata. Validity (None: all pixels valid) is the mean of the four,
    rounded half up. What lies beyond the edge does not count.

    >>> halve(np.array([[[1, 2, 7], [3, 4, 8]]], np.uint8), None)[0]
    array([[[3, 8]]], dtype=uint8)

    Source: the reduction `area` of DESIGN section 4.
    """
    odd = [(0, side % 2) for side in pixels.shape[1:]]
    if any(after for _, after in odd):
        pixels, validity = _evened(pixels, validity, odd)
    everywhere = validity is None or bool(validity.min() == 255)
    bands = [_band(band, None if everywhere else validity, nodata) for band in pixels]
    if validity is None or everywhere:
        return np.stack(bands), None if validity is None else np.ascontiguousarray(validity[::2, ::2])
    share = np.stack(_quarters(validity)).sum(axis=0, dtype=np.uint16)
    return np.stack(bands), ((share + 2) // 4).astype(np.uint8)


def _evened(
    pixels: NDArray[Any], validity: Validity, odd: list[tuple[int, int]]
) -> tuple[NDArray[Any], Validity]:
    """With sides made even so that the means stay those of the pixels that exist."""
    edges = [(0, 0), *odd]
    if pixels.dtype.kind == "f":  # NaN does not count, and no sum is rounded another way
        pixels = np.pad(pixels, edges, constant_values=np.nan)
    else:  # the last pixels again: that doubles both sum and count
        pixels = np.pad(pixels, edges, mode="edge")
    return pixels, None if validity is None else np.pad(validity, odd, mode="edge")


def _band(band: NDArray[Any], validity: Validity, nodata: float | None) -> NDArray[Any]:
    """One band [y, x] of even sides, on the fast path where every value counts."""
    absent = None if validity is None else validity == 0
    if nodata is not None and math.isfinite(nodata):
        marked = band == nodata
        absent = marked if absent is None else absent | marked
    if band.dtype.kind == "f":
        strange = ~np.isfinite(band)
        absent = strange if absent is None else absent | strange
    if absent is None or not absent.any():
        return _mean(band)
    return _counted_mean(band, ~absent)


def _mean(band: NDArray[Any]) -> NDArray[Any]:
    """Mean of 2 x 2 of an even-sided band [y, x] in which every value counts."""
    kind = band.dtype.name
    if kind in FAST_DTYPES:
        # One band a call: with five or more channels OpenCV rounds otherwise.
        size = (band.shape[1] // 2, band.shape[0] // 2)
        return np.asarray(cv2.resize(band, size, interpolation=cv2.INTER_AREA))
    if kind in SIGNED_AS:
        unsigned = np.dtype(SIGNED_AS[kind])
        top_bit = unsigned.type(1 << 8 * unsigned.itemsize - 1)
        mean: NDArray[Any] = _mean(np.ascontiguousarray(band).view(unsigned) ^ top_bit) ^ top_bit
        return mean.view(band.dtype)
    return _counted_mean(band, np.ones(band.shape, bool))


def _counted_mean(band: NDArray[Any], counts: NDArray[np.bool_]) -> NDArray[Any]:
    """Mean of those of 2 x 2 that count; the upper left one where none does."""
    values = np.where(counts, band, band.dtype.type(0))
    if band.dtype.itemsize <= 2:
        # Sums of four 16 bit values are whole numbers that float32 holds: OpenCV adds them up exactly.
        total = _sums(values.astype(np.float32)).astype(np.int32)
        number = _sums(counts.astype(np.float32)).astype(np.int32)
    else:
        total = _sums(values.astype(np.float64 if band.dtype.kind == "f" else np.int64))
        number = _sums(counts.astype(np.int64))
    some = np.maximum(number, 1)
    mean = total / some if band.dtype.kind == "f" else (2 * total + some) // (2 * some)
    with np.errstate(over="ignore"):  # what is beyond the type where nothing counts is not handed on
        return np.where(number > 0, mean, band[::2, ::2]).astype(band.dtype)


def _sums(band: NDArray[Any]) -> NDArray[Any]:
    """Sums of 2 x 2 of a band [y, x] of even sides, in its type."""
    if band.dtype == np.float32:
        size = (band.shape[1] // 2, band.shape[0] // 2)
        return np.asarray(cv2.resize(band, size, interpolation=cv2.INTER_AREA)) * 4
    upper_left, upper_right, lower_left, lower_right = _quarters(band)
    total: NDArray[Any] = upper_left + upper_right + lower_left + lower_right
    return total


def _quarters(array: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The upper left, upper right, lower left and lower right of every 2 x 2, in this order."""
    return array[::2, ::2], array[::2, 1::2], array[1::2, ::2], array[1::2, 1::2]
