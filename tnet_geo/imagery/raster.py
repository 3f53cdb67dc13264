"""Source rasters as pixels and validity, through rasterio; whatever is wrong with one is one sentence."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window as RasterioWindow

from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window

__all__ = ["RasterInfo", "RasterSource", "open_raster", "source_digest"]

DTYPES = ("uint8", "uint16", "int16", "float32", "float64")
MOST_BANDS = 1024
"""A few hundred bytes of header can declare more bands than memory holds."""
_CACHE_MB = 128
"""GDAL's own default is 5 % of the machine's memory in every process."""


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """What is known of a raster before any pixel is read."""

    source: str
    bands: int
    """Bands of pixels: alpha does not count, a palette counts as red, green and blue."""
    dtype: str
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


class RasterSource:
    """One open raster: one handle, for one thread. A context manager."""

    def __init__(self, dataset: Any, info: RasterInfo, bands: list[int], palette: NDArray[np.uint8] | None) -> None:
        self.info = info
        self._dataset, self._bands, self._palette = dataset, bands, palette

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dataset.close()

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """Pixels [bands, y, x] and validity uint8 [y, x] (0 or 255; None: all valid) of a window.

        Pixels that are not valid come as they are stored: whoever looks at them goes by the validity.
        The window must lie inside the raster.

        Raises:
            SourceUnreadable: some of its pixels cannot be decoded.
        """
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        with _told_as(self.info.source):
            pixels: NDArray[Any] = self._dataset.read(self._bands, window=place)
            valid = None if self.info.all_valid else self._validity(pixels, place)
        if self._palette is not None:
            pixels = np.ascontiguousarray(self._palette[pixels[0]].transpose(2, 0, 1))
        return pixels, valid

    def _validity(self, pixels: NDArray[Any], place: RasterioWindow) -> NDArray[np.uint8]:
        valid: NDArray[np.uint8] = np.where(self._dataset.dataset_mask(window=place) > 0, 255, 0).astype(np.uint8)
        if pixels.dtype.kind == "f":
            valid[~np.isfinite(pixels).all(axis=0)] = 0
        return valid


def open_raster(source: str) -> RasterSource:
    """Open a raster of any format that rasterio reads.

    Raises:
        SourceUnreadable: missing, damaged, or of a kind that no network looks at.
    """
    with _told_as(source):
        dataset = rasterio.open(source)
    try:
        with _told_as(source):
            return _source_of(dataset, source)
    except BaseException:
        dataset.close()
        raise


def _source_of(dataset: Any, source: str) -> RasterSource:
    if dataset.count > MOST_BANDS:
        raise SourceUnreadable(source, f"it declares {dataset.count} bands, more than {MOST_BANDS}")
    colours, masks = dataset.colorinterp, dataset.mask_flag_enums
    bands = [n for n in dataset.indexes if colours[n - 1] != ColorInterp.alpha]
    palette = _palette_of(dataset) if colours[0] == ColorInterp.palette else None
    dtypes = {dataset.dtypes[n - 1] for n in bands}
    if not bands or not dtypes <= set(DTYPES) or len(dtypes) > 1:
        raise SourceUnreadable(source, f"its pixels are {', '.join(sorted(dtypes)) or 'alpha alone'}, not {', '.join(DTYPES)}")
    dtype = dtypes.pop()
    flags = [set(masks[n - 1]) for n in bands]
    all_valid = all(flag == {MaskFlags.all_valid} for flag in flags) and np.dtype(dtype).kind != "f"
    info = RasterInfo(
        source=source,
        bands=len(bands) if palette is None else 3,
        dtype=dtype,
        shape=(dataset.height, dataset.width),
        crs=_crs_text(dataset),
        transform=None if dataset.transform.is_identity else tuple(dataset.transform)[:6],
        all_valid=all_valid,
        block_shape=dataset.block_shapes[0],
        tiled=bool(dataset.profile.get("tiled", False)),
        nodata=dataset.nodata,
    )
    return RasterSource(dataset, info, bands if palette is None else [1], palette)


def _palette_of(dataset: Any) -> NDArray[np.uint8]:
    """Red, green and blue of every index: uint8 [256, 3]."""
    table = np.zeros((256, 3), np.uint8)
    for index, colour in dataset.colormap(1).items():
        if 0 <= index < len(table):
            table[index] = colour[:3]
    return table


def _crs_text(dataset: Any) -> str | None:
    if not dataset.crs:
        return None
    authority = dataset.crs.to_authority()
    text: str = ":".join(authority) if authority else dataset.crs.to_wkt()
    return text


@contextmanager
def _told_as(source: str) -> Iterator[None]:
    """Errors and warnings of the reader as SourceUnreadable with a cause of one line."""
    settings = {"GDAL_CACHEMAX": _CACHE_MB, "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE"}
    try:
        with rasterio.Env(**settings), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except (RasterioError, RasterioIOError, OSError, ValueError, MemoryError) as error:
        cause = error.__cause__ or error  # GDAL's own words, where rasterio only says "see above"
        raise SourceUnreadable(source, " ".join(str(cause).split()) or type(cause).__name__) from error


def source_digest(source: str) -> str:
    """sha256 over the bytes of all files of a raster (sidecars too), in the order of their names.

    Folders do not count: a moved archive is the same archive.

    Raises:
        SourceUnreadable: it cannot be opened, or one of its files cannot be read.
    """
    with _told_as(source), rasterio.open(source) as dataset:
        files = [file for file in dataset.files if os.path.isfile(file)] or [source]
    digest = hashlib.sha256()
    for file in sorted(files, key=os.path.basename):
        try:
            with Path(file).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise SourceUnreadable(source, f"{os.path.basename(file)}: {error.strerror}") from error
    return digest.hexdigest()
