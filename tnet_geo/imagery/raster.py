"""Source rasters as pixels and validity, through rasterio; whatever is wrong with one is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from tnet_geo.grid import Window
from tnet_geo.imagery.bands import Bands, bands_of, check_number
from tnet_geo.imagery.fingerprint import FileState, source_digest, source_files, source_state
from tnet_geo.imagery.gdal import opened, told
from tnet_geo.imagery.georeference import GeoreferenceKind, georeference_of
from tnet_geo.imagery.inner import check_whole, inner_blocks
from tnet_geo.imagery.validity import valid_pixels

__all__ = [
    "CHANGED",
    "NO_VALID_PIXELS",
    "FileState",
    "RasterInfo",
    "RasterSource",
    "open_raster",
    "raster_of",
    "source_digest",
    "source_files",
    "source_state",
]

NO_VALID_PIXELS = "not one of its pixels is valid"
"""Cause of `SourceUnreadable` for a raster that proves to be empty, which shows after all was read."""
CHANGED = "it changed while it was read"
"""Cause of `SourceUnreadable` for a raster whose `source_state` is another after than before."""


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """What is known of a raster before any pixel is read."""

    source: str
    bands: int
    """Bands of pixels: alpha does not count, a palette counts as red, green and blue."""
    dtype: str
    """One of uint8, int8, uint16, int16, uint32, int32, float32, float64."""
    shape: tuple[int, int]
    """Rows and columns."""
    crs: str | None
    """Authority and code where there is one, such as `EPSG:32633`, otherwise WKT."""
    transform: tuple[float, float, float, float, float, float] | None
    """Affine a, b, c, d, e, f: x = a col + b row + c, y = d col + e row + f; None: not georeferenced."""
    all_valid: bool
    """Known from the header: no nodata, mask or alpha, and no dtype that could hold NaN."""
    block_shape: tuple[int, int]
    tiled: bool
    """Whether the file has inner tiles, so that a window costs about what it covers."""
    nodata: float | None
    """Value that no band's pixel counts with; it may be NaN. None for palettes: validity says it all."""
    scale: tuple[float, ...] | None = None
    """Per band of pixels: physical value = scale x pixel + offset. None: 1 for all."""
    offset: tuple[float, ...] | None = None
    """Per band of pixels; None: 0 for all."""
    georeference: GeoreferenceKind | None = None
    """What `transform` was taken from; one of GCPs and RPCs is the best affine fit."""
    georeference_error_px: float | None = None
    """The largest distance of a GCP or RPC point from where `transform` puts it; None: nothing was fitted."""
    decoded_block_bytes: int = 0
    """What GDAL must hold decoded to give any one pixel."""


class RasterSource:
    """One open raster: one handle, for one thread. A context manager."""

    def __init__(self, dataset: Any, info: RasterInfo, bands: Bands) -> None:
        """Prefer `open_raster`, or `raster_of`; an overview is read as the raster that it is of."""
        self.info, self.bands = info, bands
        self._dataset = dataset
        self._wanted = [*bands.pixels, *bands.alpha] if bands.one_read else list(bands.pixels)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dataset.close()

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """Pixels [bands, y, x] and validity uint8 [y, x] (0 or 255; None: all valid) of a window.

        Pixels are as rasterio gives them, in `info.dtype`, also where they are not valid: nodata stays
        nodata. A pixel is valid where masks and alpha say so and at least one band has a finite value
        other than nodata. The window must lie inside the raster.

        Raises:
            SourceUnreadable: some of its pixels cannot be decoded.
        """
        return self.read_all([window])[0]

    def read_all(self, windows: Sequence[Window]) -> list[tuple[NDArray[Any], NDArray[np.uint8] | None]]:
        """The same for many windows: to set GDAL up takes longer than to decode a small block.

        Raises:
            SourceUnreadable: some pixels of one of them cannot be decoded.
        """
        read = told(self.info.source, lambda: [self._decoded(window) for window in windows])
        return [self._by_the_rules(*parts) for parts in read]

    def _decoded(self, window: Window) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[np.uint8] | None]:
        """Pixels, alpha and masks as GDAL gives them."""
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        bands = self.bands
        pixels = self._dataset.read(self._wanted, window=place, out_dtype=bands.dtype)
        alpha = pixels[len(bands.pixels) :] if bands.one_read and bands.alpha else None
        if bands.alpha and alpha is None:
            alpha = np.stack([self._dataset.read(n, window=place) for n in bands.alpha])
        mask = None
        if bands.masks:
            mask = self._dataset.read_masks(list(bands.pixels[: bands.masks]), window=place)
        return pixels[: len(bands.pixels)], alpha, mask

    def _by_the_rules(
        self, pixels: NDArray[Any], alpha: NDArray[Any] | None, mask: NDArray[np.uint8] | None
    ) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        valid = None if self.info.all_valid else valid_pixels(pixels, self.bands, alpha, mask)
        if self.bands.palette is not None:
            pixels = np.ascontiguousarray(self.bands.palette[pixels[0], :3].transpose(2, 0, 1))
        return pixels, valid


def open_raster(source: str) -> RasterSource:
    """Open a raster of any format that rasterio reads: a path, or an https:// or s3:// address.

    Raises:
        SourceUnreadable: missing, damaged, or of a kind that no network looks at.
    """
    return raster_of(told(source, lambda: opened(source)), source)


def raster_of(dataset: Any, source: str) -> RasterSource:
    """The raster of a dataset that is open already; it is closed with it, and where it is refused.

    Raises:
        SourceUnreadable: it is damaged, or of a kind that no network looks at.
    """
    try:
        return told(source, lambda: _source_of(dataset, source))
    except BaseException:
        dataset.close()
        raise


def _source_of(dataset: Any, source: str) -> RasterSource:
    check_number(dataset, source)
    check_whole(dataset, source)
    blocks = inner_blocks(dataset, source)
    bands = bands_of(dataset, source, blocks)
    place = georeference_of(dataset)
    palette = bands.palette is not None
    info = RasterInfo(
        source=source,
        bands=3 if palette else len(bands.pixels),
        dtype="uint8" if palette else bands.dtype,
        shape=(dataset.height, dataset.width),
        crs=place.crs,
        transform=place.transform,
        all_valid=bands.all_valid,
        block_shape=blocks.shape,
        tiled=blocks.tiled,
        nodata=None if palette else bands.nodata,
        scale=None if palette else _unless_all(dataset.scales, bands.pixels, 1),
        offset=None if palette else _unless_all(dataset.offsets, bands.pixels, 0),
        georeference=place.kind,
        georeference_error_px=place.error_px,
        decoded_block_bytes=blocks.decoded_bytes,
    )
    return RasterSource(dataset, info, bands)


def _unless_all(values: tuple[float, ...], pixels: tuple[int, ...], usual: float) -> tuple[float, ...] | None:
    """The values of the bands of pixels; None if all of them are the usual one."""
    own = tuple(float(values[n - 1]) for n in pixels)
    return own if any(value != usual for value in own) else None
