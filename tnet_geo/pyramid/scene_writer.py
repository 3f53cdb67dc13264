"""Writes the shards of one scene's draft, and says what belongs to it besides."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import tensorstore as ts

from tnet_geo.errors import SceneUnwritable
from tnet_geo.pyramid.assembler import Block, Shard, shard_window, shards_across
from tnet_geo.pyramid.geozarr import array_attributes, group_attributes
from tnet_geo.pyramid.layout import SEAL, SceneLayout
from tnet_geo.pyramid.places import Store

__all__ = ["WRITES_PENDING", "SceneWriter", "array_names", "scene_documents", "shard_keys"]

WRITES_PENDING = 2
"""Shards that may be under way while the next block is worked on."""
FLUSHED_SHARDS = 12
"""From so many native shards on, each is flushed when it is written."""

Json = dict[str, Any]


def array_names(layout: SceneLayout) -> tuple[str, ...]:
    """The arrays of every level."""
    return ("data",) if layout.all_valid else ("data", "valid")


def shard_keys(layout: SceneLayout) -> Iterator[str]:
    """Keys, below the scene, of all its shards."""
    for level in range(len(layout.shapes)):
        rows, cols = shards_across(layout, level)
        for name in array_names(layout):
            lead = "c/0" if name == "data" else "c"
            yield from (f"{level}/{name}/{lead}/{row}/{col}" for row in range(rows) for col in range(cols))


def scene_documents(layout: SceneLayout) -> dict[str, bytes]:
    """All zarr.json of a scene by key, its seal among them. Equal layouts give equal bytes."""
    attributes = group_attributes(layout.scene_id, layout.crs, layout.transform, layout.shapes)
    documents = {SEAL: _group(attributes | {"tnet_geo": layout.attributes()})}
    for level, shape in enumerate(layout.shapes):
        documents[f"{level}/zarr.json"] = _group({})
        own = array_attributes(layout.crs, layout.transform, shape, level)
        for name in array_names(layout):
            metadata = layout.array_metadata(level, name)
            metadata["attributes"] |= own
            documents[f"{level}/{name}/zarr.json"] = _json(metadata)
    return documents


def _group(attributes: Json) -> bytes:
    return _json({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _json(content: Json) -> bytes:
    """Compact and with keys in a fixed order: equal content is equal bytes."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@cache
def _context(flushed: bool) -> ts.Context:
    """Two per process: for large scenes, whose shards are flushed while others are compressed, and small.

    Those of small scenes are flushed before the seal, many at once: a journal commits them together.
    """
    return ts.Context({"cache_pool": {"total_bytes_limit": 0}, "file_io_sync": flushed})


class SceneWriter:
    """Writes whole shards of one scene, a few of them at a time; it knows which validity it has seen."""

    def __init__(self, store: Store, layout: SceneLayout) -> None:
        """`store` is that of the draft."""
        self.saw_valid = self.saw_invalid = False
        self._store, self._layout = store, layout
        self._large = math.prod(shards_across(layout, 0)) >= FLUSHED_SHARDS
        self._arrays: dict[tuple[int, str], ts.TensorStore] = {}
        self._writes: deque[ts.WriteFutures] = deque()

    def write(self, shard: Shard, block: Block) -> None:
        """Begin to write one shard; wait for older ones if too many are under way.

        Raises: SceneUnwritable.
        """
        window = shard_window(self._layout, shard)
        there = slice(window.row, window.bottom), slice(window.col, window.right)
        pixels, validity = block
        parts: dict[str, Any] = {"data": pixels}
        if self._layout.all_valid:
            self.saw_valid = True
        else:
            full = np.full((window.height, window.width), 255, np.uint8)
            parts["valid"] = full if validity is None else validity
            self.saw_invalid = self.saw_invalid or int(parts["valid"].min()) < 255
            self.saw_valid = self.saw_valid or int(parts["valid"].max()) > 0
        for name, part in parts.items():
            target = self._array(shard.level, name)[..., *there]
            # Blocks are never changed after they are made, so that no copy is needed.
            self._writes.append(target.write(part, can_reference_source_data_indefinitely=True))
        self.settle(WRITES_PENDING * len(parts))

    def settle(self, pending: int = 0) -> None:
        """Wait until at most `pending` writes are under way. Raises: SceneUnwritable."""
        while len(self._writes) > pending:
            try:
                self._writes.popleft().result()
            except (ValueError, OSError) as error:
                raise SceneUnwritable(self._layout.scene_id, self._store.url, _cause(error)) from error

    def abandon(self) -> None:
        """Wait for writes under way, whatever becomes of them: later they would put their files back."""
        for write in self._writes:
            write.exception()

    def _array(self, level: int, name: str) -> ts.TensorStore:
        """The open array of a level; nothing is read to open it."""
        array = self._arrays.get((level, name))
        if array is None:
            spec = {
                "driver": "zarr3",
                "kvstore": self._store.kvstore(f"{level}/{name}"),
                "metadata": self._layout.array_metadata(level, name),
                "open": True,
                "assume_metadata": True,
                "store_data_equal_to_fill_value": True,  # so that a missing shard is always a loss
            }
            array = self._arrays[level, name] = ts.open(spec, context=_context(self._large)).result()
        return array


def _cause(error: Exception) -> str:
    """The last part of tensorstore's chain of causes, without its own marks."""
    text = re.sub(
        r"\s*\[(source locations|tensorstore_spec|os_error_code).*", "", str(error), flags=re.DOTALL
    )
    return text.rsplit(": ", 1)[-1]
