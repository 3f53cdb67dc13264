"""Which pixels are valid: from the values themselves, from alpha, and from masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet_geo.imagery.bands import Bands

__all__ = ["valid_pixels"]


def valid_pixels(
    pixels: NDArray[Any], bands: Bands, alpha: NDArray[Any] | None, mask: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """Validity [y, x], 0 or 255, of pixels [bands, y, x] as GDAL gives them, a palette's indices included.

    Alpha [bands, y, x] must be above 0 in every band of it; masks [masks, y, x] in at least one.
    """
    valid = _any_counts(pixels, bands)
    if bands.palette is not None:
        valid &= bands.palette[:, 3][pixels[0]] > 0
    if alpha is not None:
        valid &= (alpha > 0).all(axis=0)
    if mask is not None:
        valid &= (mask > 0).any(axis=0)
    return valid.view(np.uint8) * np.uint8(255)


def _any_counts(pixels: NDArray[Any], bands: Bands) -> NDArray[np.bool_]:
    """Where at least one band has a value: finite, not nodata, and not one of the values that go together."""
    if bands.together is not None:
        values = zip(pixels, bands.together, strict=True)
        return np.asarray(np.any([_differs(band, value) for band, value in values], axis=0))
    floats = pixels.dtype.kind == "f"
    if bands.nodata is None and not floats:
        return np.ones(pixels.shape[1:], bool)
    some: NDArray[np.bool_] = np.zeros(pixels.shape[1:], bool)
    for band in pixels:
        counts = np.isfinite(band) if floats else band != bands.nodata
        if floats and bands.nodata is not None and np.isfinite(bands.nodata):
            counts &= band != bands.nodata
        some |= counts
        if some.all():  # most windows are full, and the other bands need not be looked at
            break
    return some


def _differs(band: NDArray[Any], value: float) -> NDArray[np.bool_]:
    return np.isfinite(band) if np.isnan(value) else np.asarray(band != value)
