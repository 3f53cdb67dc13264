"""Source rasters as pixels and validity, through rasterio; whatever is wrong with one is one sentence."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # some of GDAL's errors come through as they are
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window

__all__ = ["RasterInfo", "RasterSource", "open_raster", "source_digest"]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
MOST_BANDS = 1024
"""A few hundred bytes of header can declare more bands than memory holds."""
_SETTINGS = {
    "GDAL_CACHEMAX": 128,  # MB; GDAL's own default is 5 % of the machine's memory in every process
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",  # otherwise what is missing of a JPEG is grey
}
_LOGGERS = tuple(logging.getLogger(f"rasterio.{name}") for name in ("_env", "_err"))
_DAMAGE = re.compile(r"corrupt|premature|truncated|IO error", re.IGNORECASE)
_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_OPENING = threading.Lock()

Result = TypeVar("Result")


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
    """Value that no band's pixel counts with; it may be NaN. None for palettes: validity says it all."""
    scale: tuple[float, ...] | None = None
    """Per band of pixels: physical value = scale x pixel + offset. None: 1 for all."""
    offset: tuple[float, ...] | None = None
    """Per band of pixels; None: 0 for all."""
    georeference: Literal["transform", "gcps", "rpcs"] | None = None
    """What `transform` was taken from; one of GCPs and RPCs is the best affine fit."""
    georeference_error_px: float | None = None
    """The largest distance of a GCP or RPC point from where `transform` puts it; None: it is exact."""
    decoded_block_bytes: int = 0
    """What GDAL must hold decoded to give any one pixel."""


class RasterSource:
    """One open raster: one handle, for one thread. A context manager."""

    def __init__(
        self, dataset: Any, info: RasterInfo, bands: list[int], palette: NDArray[np.uint8] | None
    ) -> None:
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

        Pixels are in `info.dtype`, and 0 where they are not valid. The window must lie inside the raster.

        Raises:
            SourceUnreadable: some of its pixels cannot be decoded.
        """
        place = RasterioWindow(window.col, window.row, window.width, window.height)

        def decoded() -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
            pixels: NDArray[Any] = self._dataset.read(self._bands, window=place)
            return pixels, None if self.info.all_valid else self._validity(pixels, place)

        pixels, valid = _told(self.info.source, decoded)
        if self._palette is not None:
            pixels = np.ascontiguousarray(self._palette[pixels[0]].transpose(2, 0, 1))
        if valid is not None and not valid.all():
            pixels[:, valid == 0] = 0
        return pixels, valid

    def _validity(self, pixels: NDArray[Any], place: RasterioWindow) -> NDArray[np.uint8]:
        valid = np.where(self._dataset.dataset_mask(window=place) > 0, 255, 0).astype(np.uint8)
        if self.info.nodata is not None and len(self._bands) > 1:  # valid with one band of data: others are 0
            pixels[self._dataset.read_masks(self._bands, window=place) == 0] = 0
        if pixels.dtype.kind == "f":
            valid[~np.isfinite(pixels).all(axis=0)] = 0
        return valid


def open_raster(source: str) -> RasterSource:
    """Open a raster of any format that rasterio reads.

    Raises:
        SourceUnreadable: missing, damaged, or of a kind that no network looks at.
    """
    dataset = _told(source, lambda: _opened(source))
    try:
        return _told(source, lambda: _source_of(dataset, source))
    except BaseException:
        dataset.close()
        raise


def _opened(source: str) -> Any:
    """Open without the warning that there is no georeference: that is known from the transform."""
    # Filters of warnings belong to the whole process: two threads that change them at once lose them.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(source)


def _source_of(dataset: Any, source: str) -> RasterSource:
    if dataset.count > MOST_BANDS:
        raise SourceUnreadable(source, f"it declares {dataset.count} bands, more than {MOST_BANDS}")
    _check_end(dataset, source)
    colours, masks, kinds = _colours_of(dataset), dataset.mask_flag_enums, dataset.dtypes
    if ColorInterp.cyan in colours:
        raise SourceUnreadable(source, "its colours are CMYK, not RGB")
    bands = [n for n in dataset.indexes if colours[n - 1] != ColorInterp.alpha]
    dtypes = {kinds[n - 1] for n in bands}
    if not bands or not dtypes <= set(DTYPES) or len(dtypes) > 1:
        found = " and ".join(sorted(dtypes)) or "alpha alone"
        raise SourceUnreadable(source, f"its pixels are {found}, not one of {', '.join(DTYPES)}")
    dtype = dtypes.pop()
    palette = _palette_of(dataset, dtype) if colours[0] == ColorInterp.palette else None
    rows, cols = dataset.block_shapes[0]
    info = RasterInfo(
        source=source,
        bands=len(bands) if palette is None else 3,
        dtype=dtype if palette is None else "uint8",
        shape=(dataset.height, dataset.width),
        crs=_crs_text(dataset),
        transform=None if dataset.transform.is_identity else tuple(dataset.transform)[:6],
        all_valid=np.dtype(dtype).kind != "f" and all(masks[n - 1] == [MaskFlags.all_valid] for n in bands),
        block_shape=(rows, cols),
        tiled=cols < dataset.width,
        nodata=dataset.nodata if palette is None else None,
        decoded_block_bytes=rows * cols * dataset.count * np.dtype(dtype).itemsize,
    )
    return RasterSource(dataset, info, bands if palette is None else [1], palette)


def _check_end(dataset: Any, source: str) -> None:
    """Refuse a PNG that was cut off: what is missing of it would be read as zeros without a word."""
    path = Path(source)
    if dataset.driver != "PNG" or not path.is_file():
        return
    with path.open("rb") as file:
        begins = file.read(len(_PNG_BEGINS))
        file.seek(max(0, path.stat().st_size - 4096))  # some writers leave bytes behind the end
        if begins == _PNG_BEGINS and _PNG_ENDS not in file.read():
            raise SourceUnreadable(source, "PNG: the file ends before the picture does")


def _colours_of(dataset: Any) -> tuple[ColorInterp, ...]:
    try:
        colours: tuple[ColorInterp, ...] = dataset.colorinterp
    except CPLE_BaseError:
        # Left over from opening, as from a CRS that PROJ refuses: gone when asked again. Others stay.
        colours = dataset.colorinterp
    return colours


def _palette_of(dataset: Any, dtype: str) -> NDArray[np.uint8]:
    """Red, green and blue of every index: uint8 [indices, 3]."""
    table = np.zeros((np.iinfo(dtype).max + 1, 3), np.uint8)
    for index, colour in dataset.colormap(1).items():
        table[index] = colour[:3]
    return table


def _crs_text(dataset: Any) -> str | None:
    """None also for keys that PROJ cannot turn into a CRS: the pixels are as good."""
    try:
        if not dataset.crs:
            return None
        authority = dataset.crs.to_authority()
        text: str = ":".join(authority) if authority else dataset.crs.to_wkt()
    except (CRSError, CPLE_BaseError):
        return None
    return text


class _Complaints(logging.Filter):
    """GDAL's warnings about damage in the thread that made it; others pass."""

    def __init__(self) -> None:
        super().__init__()
        self.damage: list[str] = []
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.levelno < logging.WARNING or record.thread != self._thread or not _DAMAGE.search(text):
            return True
        self.damage.append(text)
        return False


@contextmanager
def _complaints() -> Iterator[_Complaints]:
    heard = _Complaints()
    for logger in _LOGGERS:
        logger.addFilter(heard)
    try:
        yield heard
    finally:
        for logger in _LOGGERS:
            logger.removeFilter(heard)


def _told(source: str, work: Callable[[], Result]) -> Result:
    """What `work` gives; errors and warnings of the reader as SourceUnreadable with a cause of one line."""
    try:
        with rasterio.Env(**_SETTINGS), _complaints() as heard:
            result = work()
        if not heard.damage:
            return result
        cause = heard.damage[0]
    except (RasterioError, CPLE_BaseError, OSError, ValueError, MemoryError) as error:
        cause = str(error.__cause__ or error)  # GDAL's own words, where rasterio only says "see above"
        cause = cause or type(error).__name__
    # Out here GDAL's error is not the context of ours: it would not pickle between workers.
    raise SourceUnreadable(source, " ".join(cause.split()))


def source_digest(source: str) -> str:
    """sha256 over the bytes of all files of a raster (sidecars too), in the order of their names.

    Folders do not count: a moved archive is the same archive.

    Raises:
        SourceUnreadable: it cannot be opened, or one of its files cannot be read.
    """

    def files_of() -> list[Path]:
        with _opened(source) as dataset:
            return [path for path in map(Path, dataset.files) if path.is_file()] or [Path(source)]

    files = _told(source, files_of)
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        try:
            with path.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)  # goes on with what it is given
        except OSError as error:
            raise SourceUnreadable(source, f"{path.name}: {error.strerror}") from error
    return digest.hexdigest()
