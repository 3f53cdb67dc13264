"""Single shards made anew: from the finer level as it is stored, at level 0 from the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.raster import RasterSource, open_raster
from tnet_geo.pyramid.batches import cause_of
from tnet_geo.pyramid.canvas import canvas_cut, fit
from tnet_geo.pyramid.layout import SceneLayout
from tnet_geo.pyramid.levels import Block, StoredLevels
from tnet_geo.pyramid.pack_layout import PackLayout
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.reduce import halve
from tnet_geo.pyramid.shards import StoredArray

__all__ = ["NotMended", "Original", "PackedSite", "mend_pack", "mend_scene"]

Shard = tuple[StoredArray, tuple[int, ...]]
_Part = tuple[tuple[int, ...], dict[str, Any], NDArray[Any]]
"""A shard's index, its array's metadata and its pixels."""
Outcome = tuple[str, str | None]
"""A file, and why it could not be mended; None if it is."""


class NotMended(Exception):
    """Why a shard, scene or pack cannot be made anew: one clause."""


class Original:
    """The source of one scene, opened when its first pixel is needed. A context manager."""

    def __init__(self, source: str | None, check: Callable[[str], None]) -> None:
        """`check` raises NotMended if the source is not what the scene was made of."""
        self._source, self._check = source, check
        self._raster: RasterSource | None = None
        self._band: tuple[Window, Block] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._raster is not None:
            self._raster.__exit__(kind, error, trace)

    @property
    def raster(self) -> RasterSource:
        """The open source. Raises: NotMended."""
        if self._raster is None:
            if self._source is None:
                raise NotMended("its source is not in the manifest")
            try:
                self._check(self._source)
                self._raster = open_raster(self._source)
            except SourceUnreadable as error:
                raise NotMended(str(error).rstrip(".")) from error
        return self._raster

    def read(self, window: Window) -> Block:
        """Pixels and validity of a window. Raises: NotMended."""
        raster = self.raster
        try:
            if raster.info.tiled:
                return raster.read(window)
            # Without inner tiles each step back decodes from the top: a band serves all shards of its row.
            band = Window(window.row, 0, window.height, raster.info.shape[1])
            if self._band is None or self._band[0] != band:
                self._band = band, raster.read(band)
            pixels, validity = self._band[1]
        except SourceUnreadable as error:
            raise NotMended(str(error).rstrip(".")) from error
        cols = slice(window.col, window.right)
        return np.ascontiguousarray(pixels[..., cols]), None if validity is None else validity[:, cols]


def mend_scene(
    store: Store, layout: SceneLayout, shards: Iterable[Shard], original: Original
) -> Iterator[Outcome]:
    """Write these shards of the scene in the folder `store` anew, finer levels first."""
    levels = StoredLevels(store, layout)

    def block(level: int, window: Window) -> Block:
        if level == 0:
            return original.read(window)
        return halve(*_stored(levels, level - 1, _finer(window, layout.shapes[level - 1])), layout.nodata)

    for array, index in sorted(shards, key=lambda shard: (shard[0].level, shard[1][-2:], shard[0].name)):
        region = array.region(index)
        rows, cols = region[-2:]
        window = Window(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
        try:
            pixels, validity = block(array.level, window)
            plane = pixels if array.name == "data" else _full(validity, pixels)
            _write(store, array, region, (index, layout.array_metadata(array.level, array.name), plane))
        except NotMended as error:
            yield array.key(index), str(error)
        else:
            yield array.key(index), None


@dataclass(frozen=True, slots=True)
class PackedSite:
    """What one slot of a pack is made of."""

    original: Original
    nodata: float | None
    window: Window | None
    """On a canvas: what was cut out, without its context."""


def mend_pack(
    store: Store, layout: PackLayout, shards: Iterable[Shard], sites: Callable[[int], PackedSite]
) -> Iterator[Outcome]:
    """The same for the pack in the folder `store`; a shard's sites that are sound stay as they are."""
    for array, index in sorted(shards, key=lambda shard: (shard[0].level, shard[1], shard[0].name)):
        region = array.region(index)
        try:
            planes = [
                _plane(store, layout, array, slot, sites) for slot in range(region[0].start, region[0].stop)
            ]
            part = index, layout.array_metadata(array.level, array.name), np.stack(planes)
            _write(store, array, region, part)
        except NotMended as error:
            yield array.key(index), str(error)
        else:
            yield array.key(index), None


def _plane(
    store: Store, layout: PackLayout, array: StoredArray, slot: int, sites: Callable[[int], PackedSite]
) -> NDArray[Any]:
    """One site's part of a shard: what is stored if it is sound, otherwise made anew."""
    levels = StoredLevels(store, layout, slot)
    try:
        sound: NDArray[Any] = levels.array(array.level, array.name).read().result()
    except (ValueError, OSError):
        pass
    else:
        return sound
    site = sites(slot)
    if array.level == 0:
        pixels, validity = _packed(layout, site)
    else:
        finer = layout.shapes[array.level - 1]
        pixels, validity = halve(*_stored(levels, array.level - 1, Window(0, 0, *finer)), site.nodata)
    return pixels if array.name == "data" else _full(validity, pixels)


def _packed(layout: PackLayout, site: PackedSite) -> Block:
    """A site at level 0, as it was packed. Raises: NotMended."""
    with site.original as original:
        info = original.raster.info
        if layout.canvas == "native":
            return original.read(Window(0, 0, *info.shape))
        cut = canvas_cut(site.window, info.shape)
        if cut is None:
            raise NotMended(f"its window has no pixel on {info.source}")
        pixel_bytes = info.bands * np.dtype(info.dtype).itemsize
        return fit(original.read, cut, layout.shape[0], nodata=info.nodata, pixel_bytes=pixel_bytes)


def _finer(window: Window, shape: tuple[int, int]) -> Window:
    """The window of the finer level, of `shape`, that is halved to this one."""
    row, col = 2 * window.row, 2 * window.col
    return Window(row, col, min(2 * window.height, shape[0] - row), min(2 * window.width, shape[1] - col))


def _stored(levels: StoredLevels, level: int, window: Window) -> Block:
    try:
        return levels.read(level, window)
    except (ValueError, OSError) as error:
        raise NotMended(f"level {level}, of which it is made, cannot be read ({cause_of(error)})") from error


def _full(validity: NDArray[np.uint8] | None, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Validity [y, x] as it is stored."""
    return np.full(pixels.shape[1:], 255, np.uint8) if validity is None else validity


def _write(store: Store, array: StoredArray, region: tuple[slice, ...], part: _Part) -> None:
    """Replace one whole shard, at once. Raises: NotMended.

    It is put together in memory and written as one object: tensorstore would first read what a shard at
    an array's edge holds, which here is damaged, and whoever reads meanwhile sees the old or the new one.
    """
    index, metadata, pixels = part
    context = ts.Context()
    spec = {"driver": "zarr3", "kvstore": {"driver": "memory"}, "metadata": metadata}
    options = {"create": True, "store_data_equal_to_fill_value": True}
    ts.open(spec | options, context=context).result()[region].write(pixels).result()
    memory = ts.KvStore.open({"driver": "memory"}, context=context).result()
    key = array.key(index)
    content = bytes(memory.read(key.removeprefix(f"{array.folder}/")).result().value)
    try:
        store.write(key, content)
    except OSError as error:
        raise NotMended(f"it cannot be written ({error.strerror or error})") from error
