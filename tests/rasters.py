"""Small source rasters for tests: every pixel from a seed, every property said by the caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

GEOREFERENCE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 600_000, 0, -0.5, 5_000_000)}


def random_pixels(seed: int, shape: tuple[int, int], bands: int = 3, dtype: str = "uint8") -> NDArray[Any]:
    """Pixels [bands, y, x] of any value that the type has, and no NaN among them."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(0, 1000, (bands, *shape)).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, (bands, *shape), dtype, endpoint=True)


def write_raster(
    path: Path, pixels: NDArray[Any], mask: NDArray[np.uint8] | None = None, **profile: Any
) -> Path:
    """A raster of `pixels` [bands, y, x]: by default a tiled GeoTIFF with blocks of 64 pixels.

    `mask` is uint8 [y, x], 0 where a pixel is not valid. `profile` replaces GDAL's settings.
    """
    settings: dict[str, Any] = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64}
    settings |= GEOREFERENCE | profile
    shape = {"count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", dtype=pixels.dtype.name, **shape, **settings) as target,
    ):
        target.write(pixels)
        if mask is not None:
            target.write_mask(mask)
    return path
