"""Stored arrays as files: which shards there must be, and whether every byte of one is what was written."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

__all__ = ["ReadRange", "StoredArray", "damage"]

SLAB_BYTES = 8 << 20
"""Chunks that lie side by side are read together, up to about so many bytes."""

NAMED_CHUNKS = 4
"""Damaged chunks that are named; of more there is the number."""

ReadRange = Callable[[int, int], bytes]
"""Bytes of a file from an offset on, so many of them."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One zarr array of a scene or pack, sharded as its metadata says.

    >>> array = StoredArray("0/data", (3, 100, 70), (3, 64, 64), (3, 16, 16))
    >>> [array.key(index) for index in array.indices()]
    ['0/data/c/0/0/0', '0/data/c/0/0/1', '0/data/c/0/1/0', '0/data/c/0/1/1']
    """

    folder: str
    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]

    @classmethod
    def of(cls, folder: str, metadata: Json) -> StoredArray:
        """The array whose zarr.json is `metadata`, in `folder` of its scene or pack."""
        (sharding,) = metadata["codecs"]
        grids = metadata["chunk_grid"], sharding
        shard, chunk = (tuple(grid["configuration"]["chunk_shape"]) for grid in grids)
        return cls(folder, tuple(metadata["shape"]), shard, chunk)

    @property
    def level(self) -> int:
        """Its resolution."""
        return int(self.folder.split("/", maxsplit=1)[0])

    @property
    def name(self) -> str:
        """`data` or `valid`."""
        return self.folder.rsplit("/", maxsplit=1)[-1]

    @property
    def grid(self) -> tuple[int, ...]:
        """Shards along every axis."""
        return tuple(-(-size // side) for size, side in zip(self.shape, self.shard, strict=True))

    @property
    def count(self) -> int:
        """All shards."""
        return math.prod(self.grid)

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Every shard, in row-major order."""
        return np.ndindex(self.grid)

    def key(self, index: tuple[int, ...]) -> str:
        """File of one shard, below the folder of the scene or pack."""
        return "/".join((self.folder, "c", *map(str, index)))

    def region(self, index: tuple[int, ...]) -> tuple[slice, ...]:
        """The part of the array that one shard holds."""
        sides = zip(index, self.shard, self.shape, strict=True)
        return tuple(slice(at * side, min((at + 1) * side, size)) for at, side, size in sides)

    def chunks_inside(self, index: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which chunks of one shard hold a part of the array: bool, of as many axes as the array."""
        sides = zip(index, self.shard, self.chunk, self.shape, strict=True)
        starts = [np.arange(at * shard, (at + 1) * shard, chunk) < size for at, shard, chunk, size in sides]
        inside: NDArray[np.bool_] = reduce(np.logical_and.outer, starts)
        return inside


def damage(read: ReadRange, size: int, array: StoredArray, index: tuple[int, ...]) -> str | None:
    """What is wrong with the bytes of one shard of `size` bytes; None if nothing is.

    Every byte is covered: those of the index by its crc32c, those of a chunk by the chunk's, and there
    are no others, because chunks and index together must be as long as the file. Nothing is decoded,
    so that this is as fast as the disk.

    Source: zarr v3 `sharding_indexed` with the index at the end: offset and length of every chunk,
    uint64, little endian, in row-major order, then the crc32c of these.

    Raises: OSError, where the bytes cannot be read.
    """
    inside = array.chunks_inside(index)
    index_bytes = 16 * inside.size + 4
    if size < index_bytes:
        return f"has {size} bytes, less than its index alone: it is cut off"
    table = read(size - index_bytes, index_bytes)
    if google_crc32c.value(table[:-4]) != struct.unpack("<I", table[-4:])[0]:
        return "its index fails its checksum: it is changed or cut off"
    places = np.frombuffer(table[:-4], "<u8").reshape(-1, 2)
    stored = ~(places == np.iinfo(np.uint64).max).all(axis=1)
    if (stored != inside.ravel()).any():
        return f"has {int(stored.sum())} chunks, but {int(inside.sum())} belong to it"
    order = np.flatnonzero(stored)[np.argsort(places[stored, 0], kind="stable")]
    starts, lengths = places[order].T.astype(np.int64)
    ends = np.cumsum(lengths)
    if (starts != ends - lengths).any() or int(ends[-1]) != size - index_bytes or (lengths < 4).any():
        return "has chunks that leave gaps, overlap or lie beyond its end"
    bad = order[[not good for good in _checksums(read, starts, lengths)]]
    if not bad.size:
        return None
    names = [str(tuple(map(int, np.unravel_index(at, inside.shape)))) for at in sorted(bad)[:NAMED_CHUNKS]]
    more = ", ..." if bad.size > NAMED_CHUNKS else ""
    return f"{bad.size} of {order.size} chunks fail their checksum: {', '.join(names)}{more}"


def _checksums(read: ReadRange, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Iterator[bool]:
    """Whether each chunk, in the order of the file, ends with the crc32c of what stands before it."""
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(starts, starts[first] + SLAB_BYTES)), first + 1)
        begin = int(starts[first])
        slab = read(begin, int(starts[last - 1] + lengths[last - 1]) - begin)
        for start, length in zip(starts[first:last] - begin, lengths[first:last], strict=True):
            end = int(start + length)
            yield google_crc32c.value(slab[int(start) : end - 4]).to_bytes(4, "little") == slab[end - 4 : end]
        first = last
