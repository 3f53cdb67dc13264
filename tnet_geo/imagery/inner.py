"""How a raster is cut up inside its file: what must be decoded, and held, for any one of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError

from tnet_geo.errors import SourceUnreadable
from tnet_geo.imagery.gdal import CPLE_BaseError, opened
from tnet_geo.imagery.remote import address_of, piece_of, remote_file

__all__ = ["InnerBlocks", "check_whole", "inner_blocks"]

MOST_BLOCK_BYTES = 2 << 30
MOST_DECODED_BYTES, MOST_GROWTH = 1 << 30, 20_000
"""A raster that decodes to more bytes than the first, and to more than so many times its files, is a bomb.

Deflate can grow 1 032 times; zeros under zstd, and tiles that are not there at all, some ten thousand times.
"""
SOURCES_LOOKED_AT = 64
_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PNG_INTERLACED_AT = 28
_TAIL_BYTES = 4096
_HEAD_BYTES = 1 << 20
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}


@dataclass(frozen=True, slots=True)
class InnerBlocks:
    """The blocks of one raster."""

    shape: tuple[int, int]
    """Rows and columns."""
    tiled: bool
    """Whether a window costs about what it covers."""
    decoded_bytes: int
    """What must be held decoded to give any one pixel."""


def inner_blocks(dataset: Any, source: str) -> InnerBlocks:
    """The blocks of an open dataset; those of a VRT are no better than its sources'.

    Raises:
        SourceUnreadable: one block is more than any machine should hold, or the whole is a bomb.
    """
    blocks = _own_blocks(dataset)
    if dataset.driver == "VRT":
        blocks = _with_sources(blocks, dataset)
    if blocks.decoded_bytes > MOST_BLOCK_BYTES:
        size = blocks.decoded_bytes / (1 << 30)
        raise SourceUnreadable(source, f"one block of it decodes to {size:.1f} GiB: tile it")
    itemsize = max(np.dtype(kind).itemsize for kind in dataset.dtypes)
    decoded = dataset.width * dataset.height * dataset.count * itemsize
    if decoded > MOST_DECODED_BYTES:
        stored = sum(map(_stored_bytes, dataset.files))
        if stored and decoded > MOST_GROWTH * stored:
            raise SourceUnreadable(
                source,
                f"decompression bomb: {stored} bytes that declare {decoded / (1 << 30):.1f} GiB of pixels",
            )
    return blocks


def _own_blocks(dataset: Any) -> InnerBlocks:
    rows, cols = dataset.block_shapes[0]
    itemsize = max(np.dtype(kind).itemsize for kind in dataset.dtypes)
    bands = dataset.count
    if dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "BAND":
        bands = 1
    decoded = rows * cols * bands * itemsize
    whole = dataset.width * dataset.height * dataset.count * itemsize
    if dataset.driver in {"WEBP", "GIF"} or _is_interlaced_png(dataset):
        decoded = whole
    elif _is_progressive_jpeg(dataset):
        decoded = 2 * whole  # coefficients of 16 bits
    return InnerBlocks((rows, cols), cols < dataset.width, decoded)


def _with_sources(blocks: InnerBlocks, dataset: Any) -> InnerBlocks:
    """With those of the files that a VRT is made of, as far as they are here and few enough to look at."""
    most, tiled = 0, blocks.tiled
    for place in dataset.files[1 : 1 + SOURCES_LOOKED_AT]:
        if not Path(place).is_file():
            continue
        try:
            with opened(place) as inner:
                found = _own_blocks(inner)
        except (RasterioError, CPLE_BaseError):
            continue  # a sidecar
        most, tiled = max(most, found.decoded_bytes), tiled and (found.tiled or found.shape[1] <= 1024)
    return InnerBlocks(blocks.shape, tiled, blocks.decoded_bytes + most)


def _stored_bytes(place: str) -> int:
    """Size of a local or remote file; nothing for other kinds of place."""
    address = address_of(place)
    if address is not None:
        return remote_file(address).size
    return Path(place).stat().st_size if Path(place).is_file() else 0


def check_whole(dataset: Any, source: str) -> None:
    """Refuse what GDAL would read as zeros: a PNG that was cut off, a source of a VRT that is not there.

    Raises: SourceUnreadable.
    """
    if dataset.driver == "VRT":
        missing = [
            place for place in dataset.files[1:] if not place.startswith("/vsi") and not Path(place).exists()
        ]
        if missing:
            raise SourceUnreadable(source, f"its source {missing[0]} is missing")
    if (
        dataset.driver == "PNG"
        and _piece(dataset, 0, len(_PNG_BEGINS)) == _PNG_BEGINS
        and (
            # Some writers leave bytes behind the end.
            _PNG_ENDS not in _piece(dataset, -_TAIL_BYTES, _TAIL_BYTES)
        )
    ):
        raise SourceUnreadable(source, "PNG: the file ends before the picture does")


def _is_interlaced_png(dataset: Any) -> bool:
    """Its lines come in seven passes over the whole picture."""
    return dataset.driver == "PNG" and _piece(dataset, _PNG_INTERLACED_AT, 1) == b"\1"


def _is_progressive_jpeg(dataset: Any) -> bool:
    """Its lines are refined in passes over the whole picture: the first frame marker says so."""
    if dataset.driver != "JPEG":
        return False
    head, at = _piece(dataset, 0, _HEAD_BYTES), 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _FRAMES:
            return marker in _PROGRESSIVE
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return False


def _piece(dataset: Any, start: int, length: int) -> bytes:
    """Bytes of the dataset's own file, from its end for a negative `start`; none of places inside others."""
    place = dataset.files[0] if dataset.files else ""
    address = address_of(place)
    if address is not None:
        return piece_of(address, start, length)
    if not Path(place).is_file():
        return b""
    with Path(place).open("rb") as file:
        file.seek(max(0, Path(place).stat().st_size + start) if start < 0 else start)
        return file.read(length)
