"""Open handles of GDAL, lent to one thread at a time and kept for the next: never more than a few dozen."""

from __future__ import annotations

import atexit
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.bands import Bands
from tnet_geo.imagery.gdal import opened_place, told
from tnet_geo.imagery.raster import RasterInfo, RasterSource, raster_of
from tnet_geo.pyramid.ranges import NOTHING, Pieces, RangedFile, RangeStream

__all__ = ["HANDLES", "Handle", "HandlePool"]

MOST_IDLE = 64
Result = TypeVar("Result")
_MOUNT = re.compile(r"/vsiriopener_\w+/")


class Handle:
    """One open dataset of a file, or of one of its overviews; for one thread at a time."""

    def __init__(self, source: str, file: RangedFile | None, overview: int | None) -> None:
        """Opens it; `file` is the source if it is remote, `overview` counts from the finest one.

        Raises:
            SourceUnreadable: GDAL cannot.
        """
        self.source = source
        self.pieces: Pieces = NOTHING
        """What of the remote file is in memory for the next reads."""
        self._file = file
        self._context: Context = copy_context()  # rasterio keeps a stream's registration in a context
        self.dataset: Any = self._run(lambda: self._opened(overview))
        self._raster: RasterSource | None = None

    def describe(self) -> tuple[RasterInfo, Bands]:
        """How the file is read. Raises: SourceUnreadable."""
        self._raster = self._run(lambda: raster_of(self.dataset, self.source))
        return self._raster.info, self._raster.bands

    def read_all(
        self, windows: Sequence[Window], info: RasterInfo, bands: Bands
    ) -> list[tuple[NDArray[Any], NDArray[np.uint8] | None]]:
        """Pixels and validity of windows by the rules of the native raster; see `RasterSource.read`."""
        if self._raster is None:
            self._raster = RasterSource(self.dataset, info, bands)
        raster = self._raster
        return self._run(lambda: raster.read_all(windows))

    def close(self) -> None:
        """Give it back to GDAL."""
        self._context.run(self.dataset.close)

    def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return self._context.run(work)
        except SourceUnreadable as error:
            cause = _MOUNT.sub("", error.cause)
        raise SourceUnreadable(self.source, cause)

    def _opened(self, overview: int | None) -> Any:
        options: dict[str, Any] = {} if overview is None else {"overview_level": overview}
        name = self.source
        if self._file is not None:
            name = self.source.partition("?")[0].rpartition("/")[2]
            options["opener"] = self._stream

        return told(self.source, lambda: opened_place(name, **options))

    def _stream(self, path: str, *_: Any, **__: Any) -> Any:
        """What rasterio reads for a name: the file, or one of its sidecars; nothing else is there."""
        file = self._file
        name = self.source.partition("?")[0].rpartition("/")[2]
        if file is None or not path.startswith(name):
            raise FileNotFoundError(path)
        ending = path.removeprefix(name)
        if not ending:
            return RangeStream(file, lambda: self.pieces)
        if ending not in file.sidecars:
            raise FileNotFoundError(path)
        return BytesIO(file.sidecar(ending))


class HandlePool:
    """Handles by what they read. GDAL lets any thread use one, as long as no two do at once."""

    def __init__(self, most_idle: int = MOST_IDLE) -> None:
        self._most_idle = most_idle
        self._lock = threading.Lock()
        self._idle: OrderedDict[Handle, tuple[object, ...]] = OrderedDict()

    @contextmanager
    def lent(self, key: tuple[object, ...], make: Callable[[], Handle]) -> Iterator[Handle]:
        """An idle handle of `key`, or a new one; kept afterwards, unless something went wrong with it."""
        handle = self._taken(key) or make()
        try:
            yield handle
        except BaseException:
            handle.close()
            raise
        handle.pieces = NOTHING
        with self._lock:
            self._idle[handle] = key
            surplus = [self._idle.popitem(last=False)[0] for _ in range(len(self._idle) - self._most_idle)]
        for old in surplus:
            old.close()

    def clear(self) -> None:
        """Close all that are idle."""
        with self._lock:
            idle, self._idle = list(self._idle), OrderedDict()
        for handle in idle:
            handle.close()

    def _taken(self, key: tuple[object, ...]) -> Handle | None:
        with self._lock:
            for handle in reversed(self._idle):  # the warmest first
                if self._idle[handle] == key:
                    del self._idle[handle]
                    return handle
        return None


HANDLES = HandlePool()
"""Of this process. Datasets on streams that are open when Python ends would bring it down."""
atexit.register(HANDLES.clear)
