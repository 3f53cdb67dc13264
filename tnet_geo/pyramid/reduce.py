"""Halving a raster: the mean of 2 x 2 pixels, exact, on the fast path and on the masked one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["halve"]

FAST_DTYPES = frozenset({"uint8", "uint16"})
"""Types whose 2 x 2 mean by OpenCV is the half-up mean bit for bit."""


def halve(
    pixels: NDArray[Any], validity: NDArray[np.uint8] | None
) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Pixels [bands, y, x] and validity [y, x] at half the side, odd sides rounded up.

    A value is the mean of those among its four that count: validity above 0 and not NaN. Integers
    round half up; floats are averaged in float64. Where none counts, the upper left one is handed
    on, so that nodata stays nodata. Validity (None: all pixels valid) is the mean of the four,
    rounded half up. What lies beyond the edge does not count.

    >>> halve(np.array([[[1, 2, 7], [3, 4, 8]]], np.uint8), None)[0]
    array([[[3, 8]]], dtype=uint8)

    Source: the reduction `area` of DESIGN section 4.
    """
    # Repeating an odd side's last pixels doubles both sum and count there: the mean is that of the
    # pixels that exist.
    odd = [(0, side % 2) for side in pixels.shape[1:]]
    if any(after for _, after in odd):
        pixels = np.pad(pixels, [(0, 0), *odd], mode="edge")
        validity = None if validity is None else np.pad(validity, odd, mode="edge")
    if validity is None or validity.min() == 255:
        full = None if validity is None else np.ascontiguousarray(validity[::2, ::2])
        return np.stack([_mean(band) for band in pixels]), full
    bands = [_counted_mean(band, validity > 0) for band in pixels]
    share = np.stack(_quarters(validity)).sum(axis=0, dtype=np.uint16)
    return np.stack(bands), ((share + 2) // 4).astype(np.uint8)


def _mean(band: NDArray[Any]) -> NDArray[Any]:
    """Mean of 2 x 2 of an even-sided band [y, x] in which every value counts, NaN apart."""
    if band.dtype.name in FAST_DTYPES:
        # One band a call: with five or more channels OpenCV rounds otherwise.
        size = (band.shape[1] // 2, band.shape[0] // 2)
        return np.asarray(cv2.resize(band, size, interpolation=cv2.INTER_AREA))
    if band.dtype == np.int16:
        # A shift by 2^15 commutes with the half-up mean and makes the type one of the fast ones.
        shifted = np.ascontiguousarray(band).view(np.uint16) ^ np.uint16(0x8000)
        return (_mean(shifted) ^ np.uint16(0x8000)).view(np.int16)
    return _counted_mean(band, np.ones(band.shape, bool))


def _counted_mean(band: NDArray[Any], counts: NDArray[np.bool_]) -> NDArray[Any]:
    """Mean of those of 2 x 2 that count; the upper left one where none does."""
    floating = band.dtype.kind == "f"
    if floating:
        counts = counts & ~np.isnan(band)
    wide = np.float64 if floating else np.int32
    number = np.stack(_quarters(counts)).sum(axis=0, dtype=np.int32)
    with np.errstate(over="ignore", invalid="ignore"):  # inf stays inf, inf - inf becomes NaN
        values = np.where(counts, band, 0).astype(wide)
        total = sum(_quarters(values))
        some = np.maximum(number, 1)
        mean = total / some if floating else (2 * total + some) // (2 * some)
        return np.where(number > 0, mean, band[::2, ::2]).astype(band.dtype)


def _quarters(array: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The upper left, upper right, lower left and lower right of every 2 x 2, in this order."""
    return array[::2, ::2], array[::2, 1::2], array[1::2, ::2], array[1::2, 1::2]
