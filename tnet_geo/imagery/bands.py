"""Which bands of a raster are pixels, which are masks, and which values say that nothing is there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from tnet_geo.errors import SourceUnreadable
from tnet_geo.imagery.gdal import CPLE_BaseError
from tnet_geo.imagery.inner import InnerBlocks

__all__ = ["DTYPES", "Bands", "bands_of"]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
MOST_BANDS = 1024
"""A few hundred bytes of header can declare more bands than memory holds."""
READ_AS = {"float16": "float32"}
PALETTES = ("uint8", "uint16")
"""Types whose colour table is what the pixels mean; beside other types it is a style for a map."""
RGBA_BY_FORMAT = {"PNG", "WEBP", "GIF"}
"""Formats whose fourth band is alpha by definition, not by a label."""
PROBES, PROBE_PX = (1 / 6, 1 / 2, 5 / 6), 64
PROBED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Bands:
    """How the bands of one raster are read."""

    pixels: tuple[int, ...]
    """Bands of pixels by number, from 1."""
    alpha: tuple[int, ...]
    """Bands that are 0 where a pixel is not valid."""
    dtype: str
    """Of the bands of pixels, as they are read."""
    one_read: bool
    """Whether pixels and alpha are of one type, so that GDAL can give them in one pass."""
    masks: int
    """How many masks GDAL keeps apart from the bands: none, one for all of them, or one for each."""
    nodata: float | None
    """Value that no band's pixel counts with."""
    together: tuple[float, ...] | None
    """One value per band of pixels: where all bands have theirs, nothing is there."""
    palette: NDArray[np.uint8] | None
    """Red, green, blue and alpha of every index: [indices, 4]."""

    @property
    def all_valid(self) -> bool:
        """Known from the header: nothing could say that a pixel is not valid."""
        clear = self.palette is not None and bool((self.palette[:, 3] == 0).any())
        marked = self.masks > 0 or bool(self.alpha) or self.nodata is not None or self.together is not None
        return not (clear or marked or np.dtype(self.dtype).kind == "f")


def bands_of(dataset: Any, source: str, blocks: InnerBlocks) -> Bands:
    """Sort the bands of an open dataset.

    Raises:
        SourceUnreadable: they are of a kind that no network looks at; the cause says which.
    """
    colours = _colours_of(dataset)
    if ColorInterp.cyan in colours:
        raise SourceUnreadable(source, f"its colours are CMYK of {dataset.dtypes[0]}, not RGB")
    labelled = [n for n in dataset.indexes if colours[n - 1] == ColorInterp.alpha]
    alpha = tuple(n for n in labelled if _is_mask(dataset, n, blocks))
    pixels = tuple(n for n in dataset.indexes if n not in alpha)
    dtype = _dtype_of(dataset, pixels, source)
    palette = None
    if dtype in PALETTES and ColorInterp.palette in (colours[n - 1] for n in pixels):
        if len(pixels) > 1:
            raise SourceUnreadable(source, "one of its bands is a palette, and there are others beside it")
        palette = _palette_of(dataset, pixels[0], dtype)
    flags = {flag for n in pixels for flag in dataset.mask_flag_enums[n - 1]}
    own = any(not dataset.mask_flag_enums[n - 1] for n in pixels)
    plain = MaskFlags.per_dataset in flags and not flags & {MaskFlags.alpha, MaskFlags.nodata}
    return Bands(
        pixels=pixels,
        alpha=alpha,
        dtype=dtype,
        one_read=all(dataset.dtypes[n - 1] == dataset.dtypes[pixels[0] - 1] for n in alpha),
        masks=len(pixels) if own else int(plain),
        nodata=_nodata_of(dataset, pixels, dtype, source),
        together=_together_of(dataset, pixels) if MaskFlags.nodata in flags else None,
        palette=palette,
    )


def check_number(dataset: Any, source: str) -> None:
    """Refuse what holds no bands, or more than memory does; asked before anything else of them.

    Raises: SourceUnreadable.
    """
    if dataset.count > MOST_BANDS:
        raise SourceUnreadable(source, f"it declares {dataset.count} bands, more than {MOST_BANDS}")
    if dataset.count == 0:
        inner = ", ".join(dataset.subdatasets[:3])
        raise SourceUnreadable(source, f"it holds no bands itself, but {inner or 'nothing else either'}")


def _colours_of(dataset: Any) -> tuple[ColorInterp, ...]:
    try:
        colours: tuple[ColorInterp, ...] = dataset.colorinterp
    except CPLE_BaseError:
        # Left over from opening, as from a CRS that PROJ refuses: gone when asked again. Others stay.
        colours = dataset.colorinterp
    return colours


def _dtype_of(dataset: Any, pixels: tuple[int, ...], source: str) -> str:
    kinds: list[str] = sorted({READ_AS.get(kind, kind) for kind in (dataset.dtypes[n - 1] for n in pixels)})
    if len(kinds) == 1 and kinds[0] in DTYPES:
        return kinds[0]
    found = " and ".join(kinds) or "alpha alone"
    if any("complex" in kind for kind in kinds):
        found += " (complex numbers)"
    raise SourceUnreadable(source, f"its pixels are {found}, not one of {', '.join(DTYPES)}")


def _is_mask(dataset: Any, band: int, blocks: InnerBlocks) -> bool:
    """Whether a band that is labelled alpha is a mask: near infrared is often written under that label.

    A mask is 0 or full nearly everywhere, with a seam between, also after lossy compression. So at nine
    places 64 pixels wide: a band most of whose values lie between, more than 1/64 of the largest away
    from 0 and more than 1/16 away from the largest, is taken for pixels. Formats that define their
    fourth band as alpha, and rasters whose blocks are too large for a look ahead, are believed.
    """
    if dataset.driver in RGBA_BY_FORMAT or blocks.decoded_bytes > PROBED_BYTES:
        return True
    high, wide = min(PROBE_PX, dataset.height), min(PROBE_PX, dataset.width)
    tops = sorted({round((dataset.height - high) * at) for at in PROBES})
    lefts = sorted({round((dataset.width - wide) * at) for at in PROBES})
    seen = np.concatenate(
        [dataset.read(band, window=Window(x, y, wide, high)).ravel() for y in tops for x in lefts]
    )
    full = float(seen.max())
    between = (seen > full / 64) & (seen < full * 15 / 16)
    return bool(between.mean() <= 0.5)


def _palette_of(dataset: Any, band: int, dtype: str) -> NDArray[np.uint8]:
    """Indices without a colour are black."""
    table = np.zeros((np.iinfo(dtype).max + 1, 4), np.uint8)
    table[:, 3] = 255
    for index, colour in dataset.colormap(band).items():
        table[index] = colour
    return table


def _nodata_of(dataset: Any, pixels: tuple[int, ...], dtype: str, source: str) -> float | None:
    """The value as the pixels have it: rounded to their type, None where the type cannot hold it."""
    declared = [dataset.nodatavals[n - 1] for n in pixels]
    values = {None if value is None else _in_type(float(value), dtype) for value in declared}
    if len({repr(value) for value in values}) > 1:
        told = ", ".join("none" if value is None else f"{value:g}" for value in declared[:4])
        raise SourceUnreadable(source, f"its bands have different nodata values ({told})")
    return values.pop()


def _in_type(value: float, dtype: str) -> float | None:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return float(kind.type(value))
    limits = np.iinfo(kind)
    whole = math.isfinite(value) and value.is_integer()
    return value if whole and limits.min <= value <= limits.max else None


def _together_of(dataset: Any, pixels: tuple[int, ...]) -> tuple[float, ...] | None:
    """GDAL's NODATA_VALUES, as of a PNG with one transparent colour."""
    values = dataset.tags().get("NODATA_VALUES", "").split()
    return tuple(float(values[n - 1]) for n in pixels) if len(values) == dataset.count else None
