"""Large rasters with the grain of aerial imagery, made from a seed: what the benchmarks read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.shutil import copy
from rasterio.windows import Window

PATCH_PX = 2048
SHAPE = ((8, 30.0), (32, 10.0), (128, 4.0), (512, 2.0))
"""Cells a side, and how much they differ."""
GRAIN = 1.4
GEOREFERENCE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.3, 0, 600_000, 0, -0.3, 5_000_000)}


def patch(seed: int) -> NDArray[np.uint8]:
    """Octaves of noise, alike in all bands, and a little grain: [3, PATCH_PX, PATCH_PX].

    zstd leaves about 0.73 of it, with a predictor 0.45: the aerial pictures tried left 0.65 to 0.92.
    """
    random = np.random.default_rng(seed)

    def octave(side: int, weight: float) -> NDArray[np.float32]:
        coarse = random.normal(0, weight, (side, side)).astype(np.float32)
        return np.asarray(cv2.resize(coarse, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_CUBIC), np.float32)

    shape = sum(octave(side, weight) for side, weight in SHAPE)
    bands = [110 + shape + octave(16, 8) + octave(PATCH_PX, GRAIN) for _ in range(3)]
    return np.clip(np.stack(bands), 0, 255).astype(np.uint8)


def tiled_tiff(path: Path, side: int, seed: int = 0, **profile: object) -> Path:
    """A GeoTIFF of `side` pixels, three bands, inner tiles of 512 pixels, not compressed unless said so."""
    if path.exists():
        return path
    patches = [patch(seed + n) for n in range(4)]
    settings = {"tiled": True, "blockxsize": 512, "blockysize": 512, "photometric": "RGB", "bigtiff": "YES"}
    settings |= GEOREFERENCE | profile
    draft = path.with_name(f".{path.name}")
    shape = {"width": side, "height": side, "count": 3, "dtype": "uint8"}
    with rasterio.open(draft, "w", driver="GTiff", **shape, **settings) as target:
        for n, row in enumerate(range(0, side, PATCH_PX)):
            for m, col in enumerate(range(0, side, PATCH_PX)):
                turned = np.rot90(patches[(3 * n + m) % 4], (n + m) % 4, axes=(1, 2))
                high, wide = min(PATCH_PX, side - row), min(PATCH_PX, side - col)
                target.write(turned[:, :high, :wide], window=Window(col, row, wide, high))
    draft.rename(path)
    return path


def jpeg_of(source: Path, path: Path) -> Path:
    """The same picture as a JPEG of quality 90: no inner tiles."""
    if not path.exists():
        draft = path.with_name(f"draft-{path.name}")
        copy(source, draft, driver="JPEG", quality=90)
        draft.rename(path)
    return path


def small_images(folder: Path, count: int, side: int) -> list[Path]:
    """`count` different JPEGs of `side` pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [patch(100 + n) for n in range(4)]
    paths = []
    for n in range(count):
        path = folder / f"{n:06}.jpg"
        if not path.exists():
            random = np.random.default_rng(n)
            top, left = random.integers(0, PATCH_PX - side, 2)
            picture = pictures[n % 4][:, top : top + side, left : left + side]
            cv2.imwrite(str(path), np.ascontiguousarray(picture.transpose(1, 2, 0)))
        paths.append(path)
    return paths
