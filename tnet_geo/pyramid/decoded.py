"""Decoded blocks that neighbouring tiles, and the batches of other threads, share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCKS", "Block", "BlockCache", "Place"]

Place = tuple[int, int, int]
"""Level, row and column of a block."""

Block = tuple[NDArray[Any], NDArray[np.uint8] | None]
"""Clean pixels [bands, y, x] and validity [y, x]; None means that all pixels are valid."""

CACHED_BYTES = 256 << 20
_Key = tuple[Hashable, Place]


class BlockCache:
    """The blocks last used, up to a number of bytes, and those that are just being made.

    Whoever claims a block that nobody has made yet must make it, or fail it; others wait for the future.
    """

    def __init__(self, limit: int = CACHED_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._blocks: OrderedDict[_Key, Future[Block]] = OrderedDict()
        self._sizes: dict[_Key, int] = {}
        self._held = 0

    def claim(self, file: Hashable, places: Iterable[Place]) -> tuple[list[Future[Block]], set[Place]]:
        """A future for each of distinct blocks of a file, and those of them that the caller has to make."""
        futures: list[Future[Block]] = []
        mine: set[Place] = set()
        with self._lock:
            for place in places:
                key = file, place
                future = self._blocks.get(key)
                if future is None:
                    future = self._blocks[key] = Future()
                    mine.add(place)
                else:
                    self._blocks.move_to_end(key)
                futures.append(future)
        return futures, mine

    def made(self, file: Hashable, place: Place, block: Block) -> None:
        """What a claimed block proved to be."""
        key = file, place
        size = block[0].nbytes + (0 if block[1] is None else block[1].nbytes)
        with self._lock:
            future = self._blocks[key]
            self._sizes[key] = size
            self._held += size
            self._shrink()
        future.set_result(block)

    def failed(self, file: Hashable, place: Place, error: Exception) -> None:
        """Why a claimed block cannot be made; the next one to ask tries again."""
        with self._lock:
            future = self._blocks.pop((file, place), None)
        if future is not None:
            future.set_exception(error)

    def clear(self) -> None:
        """Forget all that are made."""
        with self._lock:
            for key in list(self._sizes):
                self._drop(key)

    def _shrink(self) -> None:
        """Let go of what was used longest ago; blocks that are being made stay."""
        if self._held <= self._limit:
            return
        for key in list(self._blocks):
            if key in self._sizes:
                self._drop(key)
                if self._held <= self._limit:
                    return

    def _drop(self, key: _Key) -> None:
        del self._blocks[key]
        self._held -= self._sizes.pop(key)


BLOCKS = BlockCache()
"""Of this process, for all its readers."""
