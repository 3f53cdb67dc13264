"""Stored pixels of one scene or packed site as they are, level by level, in windows of any size."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from tnet_geo.grid import Window
from tnet_geo.pyramid.layout import SceneLayout
from tnet_geo.pyramid.pack_layout import PackLayout
from tnet_geo.pyramid.places import Store

__all__ = ["StoredLevels"]

Block = tuple[NDArray[Any], NDArray[np.uint8] | None]
"""Pixels [bands, y, x] and validity [y, x] from 0 to 255; None means that all pixels are valid."""


@cache
def _context() -> ts.Context:
    """One per process, without a cache: windows are read once, and `repair` reads what it just wrote."""
    return ts.Context({"cache_pool": {"total_bytes_limit": 0}})


class StoredLevels:
    """Windows of a scene, or of the site in one slot of a pack; see `TileReader` for what networks read.

    Unlike there, pixels that do not count are as they are stored. All methods raise ValueError or
    OSError where chunks are missing or damaged; what is missing is never black.
    """

    def __init__(self, store: Store, layout: SceneLayout | PackLayout, slot: int | None = None) -> None:
        """`store` is the folder of the scene or pack; `slot` is that of one site of a pack."""
        self._store, self._layout, self._slot = store, layout, slot
        self._arrays: dict[tuple[int, str], ts.TensorStore] = {}

    def read(self, level: int, window: Window) -> Block:
        """Pixels and validity of a window of one level."""
        part = slice(window.row, window.bottom), slice(window.col, window.right)
        wanted = [self.array(level, "data")[..., *part].read()]
        if not self._layout.all_valid:
            wanted.append(self.array(level, "valid")[..., *part].read())
        pixels, *valid = (future.result() for future in wanted)
        return pixels, valid[0] if valid else None

    def array(self, level: int, name: str) -> ts.TensorStore:
        """`data` [bands, y, x] or `valid` [y, x] of a level; of a whole pack with its sites in front."""
        array = self._arrays.get((level, name))
        if array is None:
            spec = {
                "driver": "zarr3",
                "kvstore": self._store.kvstore(f"{level}/{name}"),
                "metadata": self._layout.array_metadata(level, name),
                "open": True,
                "assume_metadata": True,
                "fill_missing_data_reads": False,
            }
            array = ts.open(spec, context=_context()).result()
            if self._slot is not None:
                array = array[self._slot]
            self._arrays[level, name] = array
        return array
