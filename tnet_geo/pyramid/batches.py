"""Batches of tiles from zarr arrays: tiles of one shape are one read, all under way before any is awaited."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from tnet_geo.errors import TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid.tiles import RasterSpec, ReadMeter, Region, TileBatch, cleaned

__all__ = ["REMOTE_READS", "cause_of", "open_sealed", "reading_context", "submit_batch"]

OpenArray = Callable[[int, str], ts.TensorStore]
"""The array `data` [bands, y, x] or `valid` [y, x] of a level. Raises: ValueError, OSError."""


@cache
def reading_context() -> ts.Context:
    """One per process: its pools of threads, and a cache for the indexes of shards."""
    return ts.Context({"cache_pool": {"total_bytes_limit": 16 << 20}})


def open_sealed(kvstore: dict[str, Any], metadata: dict[str, Any]) -> ts.TensorStore:
    """An array that is known to exist and never to change: nothing is read before its first chunk."""
    spec = {
        "driver": "zarr3",
        "kvstore": kvstore,
        "metadata": metadata,
        "open": True,
        "assume_metadata": True,
        "fill_missing_data_reads": False,  # a lost shard is an error, never black
        "recheck_cached_metadata": "open",
        "recheck_cached_data": "open",
    }
    return ts.open(spec, context=reading_context()).result()


def submit_batch(
    spec: RasterSpec, tiles: Sequence[Tile], array: OpenArray, remote: ReadMeter | None = None
) -> Future[TileBatch]:
    """Begin to read `tiles` from the arrays that `array` opens; the future ends in TileUnreadable, or well.

    `remote` is the meter for what comes from an object store; None where the arrays are files.
    """
    return _PendingBatch(spec, tiles, array, remote).future


def cause_of(error: Exception) -> str:
    """tensorstore's message without its trail of source lines and of the whole open specification."""
    return re.sub(r"\s*\[(source locations|tensorstore_spec).*", "", str(error), flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Part:
    """Tiles of one level whose pixels lie in the same place of each: they are read as one stack."""

    level: int
    here: Region
    tiles: list[Tile]
    there: list[Region]


def _parts(spec: RasterSpec, tiles: Iterable[Tile]) -> list[_Part]:
    """Distinct tiles by level and place; those without a pixel of the scene are left out."""
    parts: dict[tuple[int, ...], _Part] = {}
    for tile in dict.fromkeys(tiles):
        overlap = spec.overlap(tile)
        if overlap is None:
            continue
        here, there = overlap
        rows, cols = here
        key = tile.level, rows.start, rows.stop, cols.start, cols.stop
        part = parts.get(key)
        if part is None:
            part = parts[key] = _Part(tile.level, here, [], [])
        part.tiles.append(tile)
        part.there.append(there)
    return list(parts.values())


class _PendingBatch:
    """A batch whose reads are under way; the last one to end completes the future.

    A stack fails as a whole. Then its tiles are read once more, one by one, to tell which are damaged.
    """

    def __init__(
        self,
        spec: RasterSpec,
        tiles: Sequence[Tile],
        array: OpenArray,
        remote: ReadMeter | None,
    ) -> None:
        self.future: Future[TileBatch] = Future()
        self.future.set_running_or_notify_cancel()
        self._spec, self._tiles, self._array, self._remote = spec, tuple(tiles), array, remote
        self._names = ("data",) if spec.all_valid else ("data", "valid")
        self._lock = threading.Lock()
        self._damage: dict[Tile, Exception] = {}
        self._done: list[tuple[_Part, list[NDArray[Any]]]] = []
        if remote is not None:
            REMOTE_READS.begin()
        self._read(_parts(spec, self._tiles))

    def _read(self, parts: Sequence[_Part]) -> None:
        """Begin to read parts; what they end in is taken in by the last read to end."""
        waiting: list[tuple[_Part, list[ts.Future[Any]]]] = []
        with ts.Batch() as batch:  # reads of one shard share its index and neighbouring ranges
            for part in parts:
                try:
                    waiting.append(
                        (part, [self._stack(part, name).read(batch=batch) for name in self._names])
                    )
                except (ValueError, OSError) as error:
                    self._damage |= dict.fromkeys(part.tiles, error)
        reads = [read for _, together in waiting for read in together]
        left = len(reads) + 1  # one more, so that an early read cannot complete the batch

        def one_done(_: object) -> None:
            nonlocal left
            with self._lock:
                left -= 1
                if left:
                    return
            try:
                self._all_done(waiting)
            except Exception as error:  # noqa: BLE001  whoever waits for the future must hear of it
                self.future.set_exception(error)

        for read in reads:
            read.add_done_callback(one_done)
        one_done(None)

    def _stack(self, part: _Part, name: str) -> ts.TensorStore:
        """A view [tile, ..., y, x] of the array's regions that a part is made of."""
        array = self._array(part.level, name)
        return ts.stack([array[..., *region].translate_to[0] for region in part.there])

    def _all_done(self, waiting: Sequence[tuple[_Part, list[ts.Future[Any]]]]) -> None:
        """Take in reads that have ended, and complete the future, or look for the tiles at fault."""
        again: list[_Part] = []
        for part, reads in waiting:
            try:
                self._done.append((part, [read.result() for read in reads]))
            except (ValueError, OSError) as error:
                if len(part.tiles) == 1:
                    self._damage[part.tiles[0]] = error
                else:
                    again.extend(_one_by_one(part))
        if again:
            self._read(again)
            return
        if self._remote is not None:
            REMOTE_READS.end(self._remote)
        for tile in self._tiles if self._damage else ():
            if tile in self._damage:
                damage = self._damage[tile]
                raise TileUnreadable(self._spec.scene_id, _text(tile), cause_of(damage)) from damage
        self.future.set_result(self._assembled())

    def _assembled(self) -> TileBatch:
        """The batch, all its parts being read."""
        spec, side = self._spec, self._spec.base_px
        whole = slice(0, side)
        if len(self._done) == 1:
            part, arrays = self._done[0]
            if part.here == (whole, whole) and tuple(part.tiles) == self._tiles:
                pixels, validity = arrays[0], _validity(arrays, part)  # nothing to put together
                return TileBatch(self._clean(pixels, validity), validity)
        pixels = np.zeros((len(self._tiles), spec.bands, side, side), spec.dtype)
        validity = np.zeros((len(self._tiles), side, side), np.uint8)
        places: dict[Tile, list[int]] = {}
        for index, tile in enumerate(self._tiles):
            places.setdefault(tile, []).append(index)
        for part, arrays in self._done:
            read = [(index, n) for n, tile in enumerate(part.tiles) for index in places[tile]]
            into, of = [list(indices) for indices in zip(*read, strict=True)]
            pixels[into, :, *part.here] = arrays[0][of]
            validity[into, *part.here] = _validity(arrays, part)[of]
        return TileBatch(self._clean(pixels, validity), validity)

    def _clean(self, pixels: NDArray[Any], validity: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels with 0 where a value does not count; where all must count, nothing is looked at."""
        if self._spec.all_valid and self._spec.nodata is None and pixels.dtype.kind != "f":
            return pixels
        return cleaned(pixels, validity, self._spec.nodata)


def _validity(arrays: Sequence[NDArray[Any]], part: _Part) -> NDArray[np.uint8]:
    """Validity [tile, y, x] of a part, as it is stored, or 255."""
    if len(arrays) > 1:
        return arrays[1]
    rows, cols = part.here
    return np.full((len(part.tiles), rows.stop - rows.start, cols.stop - cols.start), 255, np.uint8)


def _one_by_one(part: _Part) -> Iterator[_Part]:
    for tile, there in zip(part.tiles, part.there, strict=True):
        yield _Part(part.level, part.here, [tile], [there])


def _text(tile: Tile) -> str:
    return f"tile (level {tile.level}, row {tile.row}, column {tile.col})"


class RemoteReads:
    """Counts what tensorstore fetches from object stores, for the meters of the readers of this process.

    Its counters are those of the process, and count answers as they come over the wire, retries and
    indexes of shards among them. What came since the last look is booked to the reader whose batch has
    just ended: the sum over all meters is exact; a single one is exact as long as no other reader of
    the process reads at the same time. What comes while nobody reads, for a writer, is not counted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading = 0
        self._seen = (0, 0)

    def begin(self) -> None:
        """A reader begins to read."""
        with self._lock:
            if not self._reading:
                self._seen = _counter(BYTES), _counter(REQUESTS)
            self._reading += 1

    def end(self, meter: ReadMeter) -> None:
        """It has read: give its meter what came since the last look."""
        with self._lock:
            size, requests = _counter(BYTES), _counter(REQUESTS)
            seen, self._seen = self._seen, (size, requests)
            self._reading -= 1
        meter.fetched(size - seen[0], requests - seen[1])

    @contextmanager
    def counted(self, meter: ReadMeter | None) -> Iterator[None]:
        """Books what the body reads; None: nothing is counted."""
        if meter is None:
            yield
            return
        self.begin()
        try:
            yield
        finally:
            self.end(meter)


BYTES = "/tensorstore/kvstore/s3/bytes_read"
REQUESTS = "/tensorstore/http/request_started"
REMOTE_READS = RemoteReads()


def _counter(name: str) -> int:
    """The value of one of tensorstore's counters; 0 before its first event."""
    found = ts.experimental_collect_matching_metrics(name)
    return int(found[0]["values"][0]["value"]) if found else 0
