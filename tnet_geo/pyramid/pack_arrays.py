"""The pixels of a pack under way: sites go in one after the other, every shard is written once, when full."""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from tnet_geo.errors import SceneUnwritable
from tnet_geo.pyramid.batches import cause_of
from tnet_geo.pyramid.pack_layout import PackLayout
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.reduce import halve

__all__ = ["PackArrays"]

WRITES_PENDING = 1
"""Shards that may be under way while others are filled."""


@cache
def _context() -> ts.Context:
    """One per process. Files are flushed once, before the seal, not one by one while they are written."""
    return ts.Context({"cache_pool": {"total_bytes_limit": 0}, "file_io_sync": False})


class PackArrays:
    """All arrays of one pack in the folder `store`. Not for several threads.

    Raises, in `add` and `finish`: SceneUnwritable.
    """

    def __init__(self, store: Store, layout: PackLayout) -> None:
        self._store, self._layout = store, layout
        self._place = store.url.rpartition("/")[0]
        self._levels = [
            {name: _Shards(store, layout, level, name) for name in layout.names}
            for level in range(len(layout.shapes))
        ]
        self._writes: deque[ts.WriteFutures] = deque()
        self._saw_invalid = False

    def add(self, pixels: NDArray[Any], validity: NDArray[np.uint8] | None, nodata: float | None) -> None:
        """The next site: pixels [bands, y, x] and validity [y, x] of level 0, reduced to all others."""
        if validity is not None and not self._saw_invalid:
            self._saw_invalid = bool(validity.min() < 255)
        for level, shards in enumerate(self._levels):
            if level:
                pixels, validity = halve(pixels, validity, nodata)
            self._put(shards["data"], pixels)
            if "valid" in shards:
                self._put(shards["valid"], 255 if validity is None else validity)

    def finish(self) -> bool:
        """Write what is left. Whether all pixels are valid: then nothing is kept of their validity."""
        for shards in self._levels:
            for shard in shards.values():
                self._write(shard)
        self._settle(0)
        if self._layout.all_valid or self._saw_invalid:
            return self._layout.all_valid
        for level in range(len(self._levels)):  # a mask was declared, but every pixel is valid
            self._store.remove(f"{level}/valid")
        return True

    def abandon(self) -> None:
        """Wait for writes under way, whatever becomes of them: later they would put their files back."""
        for write in self._writes:
            write.exception()

    def _put(self, shards: _Shards, plane: Any) -> None:
        if shards.put(plane):
            self._write(shards)

    def _write(self, shards: _Shards) -> None:
        """Begin to write what is filled of a shard; wait for older writes if too many are under way."""
        self._settle(WRITES_PENDING)
        write = shards.write()
        if write is not None:
            self._writes.append(write)

    def _settle(self, pending: int) -> None:
        """Wait until at most `pending` writes are under way. Raises: SceneUnwritable."""
        while len(self._writes) > pending:
            try:
                self._writes.popleft().result()
            except (ValueError, OSError) as error:
                raise SceneUnwritable(
                    f"of pack {self._layout.pack_id}", self._place, cause_of(error)
                ) from error


class _Shards:
    """One array, whose first axis counts sites, and the shard of it that is being filled."""

    def __init__(self, store: Store, layout: PackLayout, level: int, name: str) -> None:
        metadata = layout.array_metadata(level, name)
        self._shape = tuple(metadata["shape"])
        self._sites = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
        self._dtype = np.dtype(metadata["data_type"])
        self._first = self._filled = 0
        self._shard: NDArray[Any] | None = None
        spec = {
            "driver": "zarr3",
            "kvstore": store.kvstore(f"{level}/{name}"),
            "metadata": metadata,
            "open": True,
            "assume_metadata": True,
            "store_data_equal_to_fill_value": True,  # so that a missing shard is always a loss
        }
        self._array: ts.TensorStore = ts.open(spec, context=_context()).result()

    def put(self, plane: Any) -> bool:
        """Take in the next site; whether the shard is full now."""
        if self._shard is None:
            sites = min(self._sites, self._shape[0] - self._first)
            self._shard = np.empty((sites, *self._shape[1:]), self._dtype)
        self._shard[self._filled] = plane
        self._filled += 1
        return self._filled == len(self._shard)

    def write(self) -> ts.WriteFutures | None:
        """Begin to write what is filled; None if nothing is."""
        if self._shard is None:
            return None
        first, full = self._first, self._shard[: self._filled]
        self._first, self._filled, self._shard = first + self._filled, 0, None
        # The shard is not touched any more, so that no copy of it is needed.
        target = self._array[first : first + len(full)]
        return target.write(full, can_reference_source_data_indefinitely=True)
