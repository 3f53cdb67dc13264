"""Calls of GDAL: whatever goes wrong in one is an error of one sentence, what it only mutters included."""

from __future__ import annotations

import logging
import re
import stat
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rasterio
from rasterio._err import CPLE_BaseError  # some of GDAL's errors come through as they are
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tnet_geo.errors import SourceUnreadable
from tnet_geo.imagery.remote import check_keys, gdal_place, gdal_settings, is_remote

__all__ = ["CPLE_BaseError", "opened", "opened_place", "told"]

_SETTINGS = {
    "GDAL_CACHEMAX": 128,  # MB; GDAL's own default is 5 % of the machine's memory in every process
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",  # otherwise what is missing of a JPEG is grey
}
_DAMAGE = re.compile(r"corrupt|premature|truncated|IO error", re.IGNORECASE)
_OPENING = threading.Lock()

Result = TypeVar("Result")


class _Ear(logging.Filter):
    """Takes GDAL's warnings about damage out of the log while its thread listens; others pass."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()
        self.loggers = [logging.getLogger(f"rasterio.{name}") for name in ("_env", "_err")]
        # Never removed: to change a logger's filters while another thread logs can pass one over.
        for logger in self.loggers:
            logger.addFilter(self)

    def listen(self, source: str) -> list[str]:
        """From now on, damage heard of by this thread, which reads `source`, is added to what it gets."""
        for logger in self.loggers:
            if not logger.isEnabledFor(logging.WARNING):  # whoever silenced it does not want black pixels
                logger.setLevel(logging.WARNING)
        damage: list[str] = []
        self._thread.damage, self._thread.source = damage, source
        return damage

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record may pass."""
        damage = getattr(self._thread, "damage", None)
        if damage is None or record.levelno < logging.WARNING:
            return True
        text = record.getMessage()
        source = self._thread.source
        # Files may be called what they like.
        if not _DAMAGE.search(text.replace(source, "").replace(source.rsplit("/", 1)[-1], "")):
            return True
        damage.append(text)
        return False


_EAR = _Ear()


def told(source: str, work: Callable[[], Result]) -> Result:
    """What `work` gives; errors and warnings of the reader as SourceUnreadable with a cause of one line."""
    settings = _SETTINGS
    if is_remote(source) or source.lower().endswith(".vrt"):  # whose sources may lie anywhere
        settings = settings | gdal_settings()
    damage = _EAR.listen(source)
    try:
        with rasterio.Env(**settings):
            result = work()
        if not damage:
            return result
        cause = damage[0]
    except (RasterioError, CPLE_BaseError, OSError, ValueError, MemoryError) as error:
        cause = str(error.__cause__ or error)  # GDAL's own words, where rasterio only says "see above"
        cause = cause or type(error).__name__
    # Out here GDAL's error is not the context of ours: it would not pickle between workers.
    raise SourceUnreadable(source, " ".join(cause.split()))


def opened(source: str) -> Any:
    """Open without the warning that there is no georeference: that is known from the transform."""
    check_keys(source)
    _check_file(source)
    return opened_place(gdal_place(source))


def opened_place(place: str, **options: Any) -> Any:
    """The same for one of GDAL's names, with options of `rasterio.open`."""
    # Filters of warnings belong to the whole process: two threads that change them at once lose them.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(place, **options)


def _check_file(source: str) -> None:
    """Refuse what is no file before GDAL tries its drivers on it: it would wait for a pipe for ever."""
    place = gdal_place(source)
    if is_remote(source) or not Path(place).exists():
        return
    found = Path(place).stat()
    if stat.S_ISDIR(found.st_mode):
        raise SourceUnreadable(source, "it is a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise SourceUnreadable(source, "it is no plain file")
    if found.st_size == 0:
        raise SourceUnreadable(source, "the file is empty")
