"""One stored scene as a Cloud-Optimised GeoTIFF, whose overviews are the stored levels, pixel for pixel."""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy as gdal_copy

from tnet_geo.errors import TileUnreadable
from tnet_geo.grid import Window
from tnet_geo.pyramid.batches import cause_of
from tnet_geo.pyramid.layout import SceneLayout
from tnet_geo.pyramid.levels import StoredLevels
from tnet_geo.pyramid.pack_layout import PackLayout
from tnet_geo.pyramid.places import draft_mark, flush

__all__ = ["DIGEST_TAG", "CogFacts", "opened", "write_cog"]

DIGEST_TAG = "TNET_GEO_DIGEST"
BLOCK_PX = 512
"""Side of a block: what the COG driver writes by default."""
WINDOW_BYTES = 64 << 20
"""Decoded pixels that are in memory at once, about."""
CACHE_MB = 64
"""Of GDAL's blocks, per process."""

_OPENING = threading.Lock()

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class CogFacts:
    """What a COG says beside its pixels."""

    scene_id: str
    digest: str
    crs: str | None
    transform: Affine | None
    nodata: float | None
    scale: tuple[float, ...] | None
    offset: tuple[float, ...] | None


def write_cog(
    path: Path, levels: StoredLevels, layout: SceneLayout | PackLayout, facts: CogFacts, *, threads: int = 1
) -> None:
    """Write `path`, which is seen when it is whole.

    GDAL makes no overview: a plain GeoTIFF with empty overviews takes the stored levels window by
    window, validity (as 255 where a pixel has any) in a mask beside it, and the COG driver only puts
    their blocks in order. Beside `path` that takes about as much room again while it lasts.

    Raises:
        TileUnreadable: a stored chunk is missing or damaged.
        OSError, RasterioError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{draft_mark()}.draft")
    draft.mkdir()
    try:
        plain, cog = draft / "plain.tif", draft / "cog.tif"
        options = {
            "GDAL_TIFF_INTERNAL_MASK": False,
            "SPARSE_OK_OVERVIEW": True,
            "GDAL_CACHEMAX": CACHE_MB,
            "GDAL_NUM_THREADS": threads,
        }
        with rasterio.Env(**options):
            _write_plain(plain, levels, layout, facts)
            gdal_copy(
                plain,
                cog,
                driver="COG",
                overviews="FORCE_USE_EXISTING" if len(layout.shapes) > 1 else "NONE",
                compress="DEFLATE",
                predictor="YES",
                blocksize=BLOCK_PX,
                bigtiff="IF_SAFER",
            )
        flush(cog)
        cog.replace(path)
        flush(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_plain(path: Path, levels: StoredLevels, layout: SceneLayout | PackLayout, facts: CogFacts) -> None:
    """All levels as a GeoTIFF with overviews, and as its mask what is valid of them."""
    files = [path] if layout.all_valid else [path, path.with_name(f"{path.name}.msk")]
    _create(path, layout, layout.bands, layout.dtype, facts)
    if not layout.all_valid:
        _create(files[1], layout, 1, "uint8", None)
    side = _window_px(layout)
    for level, shape in enumerate(layout.shapes):
        at = {} if level == 0 else {"overview_level": level - 1}
        with ExitStack() as stack:
            targets = [stack.enter_context(opened(file, "r+", **at)) for file in files]
            for window in _windows(shape, side):
                try:
                    pixels, validity = levels.read(level, window)
                except (ValueError, OSError) as error:
                    raise TileUnreadable(facts.scene_id, f"level {level}", cause_of(error)) from error
                there = ((window.row, window.bottom), (window.col, window.right))
                targets[0].write(pixels, window=there)
                if validity is not None:
                    targets[1].write(np.where(validity > 0, 255, 0).astype(np.uint8), 1, window=there)


def _create(
    path: Path, layout: SceneLayout | PackLayout, bands: int, dtype: str, facts: CogFacts | None
) -> None:
    """An empty GeoTIFF with empty overviews; without `facts` a mask."""
    rows, cols = layout.shapes[0]
    in_colour = facts is not None and bands == 3 and dtype in {"uint8", "uint16"}
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": bands,
        "dtype": dtype,
        "height": rows,
        "width": cols,
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "compress": "ZSTD",
        "zstd_level": 1,
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
        # Or else a fourth band of bytes would be an alpha band.
        "photometric": "RGB" if in_colour else "MINISBLACK",
        "alpha": "NO",
    }
    if facts is not None:
        profile |= {"crs": facts.crs, "nodata": facts.nodata}
        profile |= {"transform": rasterio.Affine(*facts.transform)} if facts.transform else {}
    with opened(path, "w", **profile) as target:
        if facts is None:  # a mask of the whole dataset, GMF_PER_DATASET, of as many bands as it has
            target.update_tags(**{f"INTERNAL_MASK_FLAGS_{band}": "2" for band in range(1, layout.bands + 1)})
        else:
            _say(target, facts, in_colour=in_colour)
    if len(layout.shapes) > 1:
        with opened(path, "r+") as target:
            target.build_overviews([2**level for level in range(1, len(layout.shapes))], Resampling.nearest)


def _say(target: Any, facts: CogFacts, *, in_colour: bool) -> None:
    """What a plain profile cannot carry."""
    target.update_tags(**{DIGEST_TAG: facts.digest})
    if not in_colour:
        target.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (target.count - 1)
    if facts.scale is not None:
        target.scales = facts.scale
    if facts.offset is not None:
        target.offsets = facts.offset


def opened(path: Path, mode: str = "r", **profile: Any) -> Any:
    """Open without the warning that there is no georeference: a mask has none."""
    # Filters of warnings belong to the whole process: two threads that change them at once lose them.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


def _window_px(layout: SceneLayout | PackLayout) -> int:
    """Side of a window: whole blocks, of about `WINDOW_BYTES`."""
    pixel = layout.bands * np.dtype(layout.dtype).itemsize + 1
    return max(1, int((WINDOW_BYTES / pixel) ** 0.5) // BLOCK_PX) * BLOCK_PX


def _windows(shape: tuple[int, int], side: int) -> Iterator[Window]:
    rows, cols = shape
    for row in range(0, rows, side):
        for col in range(0, cols, side):
            yield Window(row, col, min(side, rows - row), min(side, cols - col))
