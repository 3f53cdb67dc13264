"""Where the blocks of a TIFF lie in its file: image, overviews and masks, from its directories.

GDAL tells where a block of an image lies, one call a block, and nothing of the blocks of a mask. What is
read here only decides what is fetched early: pixels are always decoded by GDAL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tnet_geo.pyramid.ranges import PAGE, RangedFile, Span

__all__ = ["Directory", "read_directories"]

_SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SUBFILE, _WIDTH, _HEIGHT, _SAMPLES, _ROWS_PER_STRIP, _PLANAR = 254, 256, 257, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_OFFSETS, _COUNTS = (324, 273), (325, 279)
_MASK, _SEPARATE = 4, 2
MOST_DIRECTORIES = 128
MOST_HEADER_AHEAD = 4 << 20


@dataclass(frozen=True, slots=True)
class _Values:
    """Whole numbers somewhere in the file."""

    at: int
    kind: int
    count: int

    def span(self, index: int) -> Span:
        size = _SIZES[self.kind]
        return self.at + index * size, self.at + (index + 1) * size


@dataclass(frozen=True, slots=True)
class Directory:
    """One image of a TIFF: the native one, an overview, or the mask of either."""

    rows: int
    cols: int
    is_mask: bool
    block_shape: tuple[int, int]
    planes: int
    """Blocks that one place has: the number of bands where they lie apart, else 1."""
    order: str
    offsets: _Values
    counts: _Values

    def spans(self, file: RangedFile, blocks: Sequence[tuple[int, int]]) -> list[list[Span]]:
        """Where the bytes of `blocks` (row, column) lie; none for blocks that the file leaves out.

        Raises: SourceUnreadable.
        """
        across, down = -(-self.cols // self.block_shape[1]), -(-self.rows // self.block_shape[0])
        numbers = [
            [plane * across * down + row * across + col for plane in range(self.planes)]
            for row, col in blocks
        ]
        tables = (self.offsets, self.counts)
        file.page_in(table.span(n) for table in tables for own in numbers for n in own if n < table.count)
        return [[span for n in own for span in self._span(file, n)] for own in numbers]

    def _span(self, file: RangedFile, number: int) -> Iterable[Span]:
        if number < min(self.offsets.count, self.counts.count):
            start, size = (self._value(file, table, number) for table in (self.offsets, self.counts))
            if size > 0 and start + size <= file.size:
                yield start, start + size

    def _value(self, file: RangedFile, values: _Values, index: int) -> int:
        content = file.read(*values.span(index))
        if len(content) < _SIZES[values.kind]:
            return 0
        return int(struct.unpack(self.order + _LETTERS[values.kind], content)[0])


def read_directories(file: RangedFile) -> list[Directory]:
    """All images of a remote TIFF, in the order of the file; none where it is no TIFF.

    A COG has all directories before all pixels, and the tables of its overviews take a third of what its
    first one takes: where the second directory begins tells how much more to fetch, in one request.

    Raises: SourceUnreadable.
    """
    head = file.read(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return []
    version = struct.unpack(order + "H", head[2:4])[0]
    if version not in {42, 43}:
        return []
    big = version == 43
    at = struct.unpack(order + "Q", head[8:16])[0] if big else struct.unpack(order + "I", head[4:8])[0]
    found: list[Directory] = []
    seen: set[int] = set()
    while at and at not in seen and at < file.size and len(seen) < MOST_DIRECTORIES:
        if len(seen) == 1 and PAGE < at < MOST_HEADER_AHEAD:
            file.page_in([(PAGE, min(file.size, at * 4 // 3 + PAGE))])
        seen.add(at)
        fields, at = _fields(file, at, order, big)
        directory = _directory(file, fields, order)
        if directory is not None:
            found.append(directory)
    return found


def _fields(file: RangedFile, at: int, order: str, big: bool) -> tuple[dict[int, _Values], int]:
    """The numeric fields of a directory, and where the next one lies."""
    head, entry, word = (8, 20, "Q") if big else (2, 12, "I")
    count = struct.unpack(order + ("Q" if big else "H"), file.read(at, at + head).ljust(head, b"\0"))[0]
    if count > 4096:  # no directory: the file is damaged
        return {}, 0
    size = struct.calcsize(word)
    start, stop = at + head, at + head + count * entry
    table = file.read(start, stop + size)
    if len(table) < count * entry + size:
        return {}, 0
    fields = {}
    for n in range(count):
        tag, kind, number = struct.unpack_from(order + "HH" + word, table, n * entry)
        if kind not in _SIZES:
            continue
        place = start + n * entry + 4 + size
        if number * _SIZES[kind] > size:
            place = struct.unpack_from(order + word, table, n * entry + 4 + size)[0]
        fields[tag] = _Values(place, kind, number)
    return fields, int(struct.unpack_from(order + word, table, count * entry)[0])


def _directory(file: RangedFile, fields: dict[int, _Values], order: str) -> Directory | None:
    """None where what is needed is not there."""
    letters = order

    def value(tag: int, default: int = 0) -> int:
        if tag not in fields:
            return default
        content = file.read(*fields[tag].span(0))
        kind = fields[tag].kind
        return int(struct.unpack(letters + _LETTERS[kind], content)[0]) if len(content) == _SIZES[kind] else 0

    offsets = next((fields[tag] for tag in _OFFSETS if tag in fields), None)
    counts = next((fields[tag] for tag in _COUNTS if tag in fields), None)
    rows, cols = value(_HEIGHT), value(_WIDTH)
    if offsets is None or counts is None or not rows or not cols:
        return None
    block = value(_TILE_HEIGHT), value(_TILE_WIDTH)
    if not all(block):
        block = min(rows, value(_ROWS_PER_STRIP, rows) or rows), cols
    planes = value(_SAMPLES, 1) if value(_PLANAR, 1) == _SEPARATE else 1
    return Directory(rows, cols, bool(value(_SUBFILE) & _MASK), block, planes, order, offsets, counts)
