"""Copies of COGs in which every block of the image and of its overviews that is not needed holds noise."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery.gdal import told
from tnet_geo.imagery.remote import is_remote
from tnet_geo.pyramid.cog import CogReader
from tnet_geo.pyramid.cog_archive import CogArchive
from tnet_geo.pyramid.cog_levels import StoredLevel
from tnet_geo.pyramid.cog_spec import cells_of
from tnet_geo.pyramid.cog_writer import opened
from tnet_geo.pyramid.decoded import Place
from tnet_geo.pyramid.noise import NoiseCount, check_room, noise_of
from tnet_geo.pyramid.ranges import RangedFile
from tnet_geo.pyramid.tiff_directories import Directory, read_directories

__all__ = ["noised_cog"]

PIECE = 8 << 20
"""Bytes of a remote file that are asked for at once."""
GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE="
"""What the promises begin with that a COG makes about the order of its blocks, after the TIFF's header."""


def noised_cog(
    archive: CogArchive,
    scene_id: str,
    tiles: Collection[Tile],
    half_px: int,
    *,
    folder: Path,
    chance: np.random.Generator,
) -> tuple[CogArchive, NoiseCount]:
    """An archive in `folder` of one COG alone; true are only the blocks that `tiles` are made of.

    The file is copied, from a server too, and noise is written into all other blocks of the image and of
    every overview, through the file's own codec. Blocks that are kept are not touched, so that lossy ones
    stay what they are. Masks, in the file or beside it, get noise where the image does.

    Raises:
        SceneMissing, SourceUnreadable, OverviewsMissing: it cannot be read, or its codec cannot write.
        PlaceUnusable: there is no room in `folder`.
    """
    reader = archive.reader(scene_id, half_px)
    kept = _kept(reader, tiles)
    per_pixel = reader.spec.bands * np.dtype(reader.spec.dtype).itemsize + 1
    size = sum(per_pixel * level.shape[0] * level.shape[1] for level in reader.stored)
    check_room(folder, 2 * size, f"scene {scene_id}")  # the copy, and what its blocks grow to
    path = _copied(reader.source, folder)
    _break_promises(path)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        for number, level in enumerate(reader.stored):
            unread = [window for at, window in _windows(reader, number) if at not in kept]
            told(reader.source, partial(_write, path, level, unread, chance))
    _exchange_masks(path, kept, reader)
    blocks = sum(1 for number in range(len(reader.stored)) for _ in _windows(reader, number))
    return CogArchive(str(folder), {scene_id: str(path)}), NoiseCount(len(kept), blocks - len(kept))


def _kept(reader: CogReader, tiles: Collection[Tile]) -> frozenset[Place]:
    """The blocks that tiles are made of; levels beyond the file are made of its whole last one."""
    spec, last = reader.spec, len(reader.stored) - 1
    kept: set[Place] = set()
    for tile in tiles:
        overlap = spec.overlap(tile)
        if overlap is None:
            continue
        if tile.level <= last:
            kept.update(spec.blocks_of(tile.level, overlap[1]))
        else:
            kept.update(at for at, _ in _windows(reader, last))
    return frozenset(kept)


def _windows(reader: CogReader, level: int) -> Iterator[tuple[Place, Window]]:
    """All blocks of a level, with the pixels of the level that they hold."""
    rows, cols = reader.spec.shapes[level]
    for at in reader.spec.blocks_of(level, (slice(0, rows), slice(0, cols))):
        yield at, reader.spec.window_of(at)


def _copied(source: str, folder: Path) -> Path:
    """The file with what belongs to it, in `folder`. Raises: SourceUnreadable."""
    path = folder / source.partition("?")[0].rpartition("/")[2]
    try:
        if is_remote(source):
            _fetch(source, path)
        else:
            with opened(Path(source)) as dataset:
                beside = [name for name in dataset.files if Path(name) != Path(source)]
            for name in (source, *beside):
                shutil.copyfile(name, folder / Path(name).name)
    except OSError as error:
        raise SourceUnreadable(
            source, f"it cannot be copied to {folder}: {error.strerror or error}"
        ) from error
    return path


def _fetch(address: str, path: Path) -> None:
    remote = RangedFile(address, lambda _size, _requests: None)
    with path.open("wb") as file:
        for start in range(0, remote.size, PIECE):
            file.write(remote.fetch(start, start + PIECE))
    for ending in remote.sidecars:
        path.with_name(path.name + ending).write_bytes(remote.sidecar(ending))


def _break_promises(path: Path) -> None:
    """Let a COG be a plain GeoTIFF with overviews: blocks that grow are moved to the end of the file."""
    with path.open("r+b") as file:
        head = file.read(256)
        at = head.find(GHOST)
        size = head[at + len(GHOST) :][:6]
        if at in {8, 16} and size.isdigit():
            file.seek(at)
            file.write(bytes(len(GHOST) + len("000000 bytes\n") + int(size)))


def _write(path: Path, level: StoredLevel, unread: Collection[Window], chance: np.random.Generator) -> None:
    """Noise into windows of one level, and into its mask."""
    at = {} if level.overview is None else {"overview_level": level.overview}
    mask = path.with_name(f"{path.name}.msk")
    with opened(path, "r+", **at) as image:
        own_mask = not mask.exists() and MaskFlags.per_dataset in image.mask_flag_enums[0]
        own_mask = own_mask and MaskFlags.alpha not in image.mask_flag_enums[0]
        for window in unread:
            there = ((window.row, window.bottom), (window.col, window.right))
            sides = window.height, window.width
            for band, dtype in enumerate(image.dtypes, start=1):
                image.write(noise_of(chance, sides, np.dtype(dtype)), band, window=there)
            if own_mask and level.overview is None:
                image.write_mask(_mask_noise(chance, sides), window=there)
    if mask.exists():
        with opened(mask, "r+", **at) as image:
            for window in unread:
                there = ((window.row, window.bottom), (window.col, window.right))
                image.write(_mask_noise(chance, (window.height, window.width)), 1, window=there)


def _mask_noise(chance: np.random.Generator, sides: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return 255 * chance.integers(0, 2, sides, dtype=np.uint8)


class _LocalFile:
    """What `read_directories` needs of a file, from a disk."""

    def __init__(self, path: Path) -> None:
        self._path, self.size = path, path.stat().st_size

    def read(self, start: int, stop: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def page_in(self, spans: Any) -> None:
        """Nothing: the disk is near."""


def _exchange_masks(path: Path, kept: Collection[Place], reader: CogReader) -> None:
    """Let unread blocks of masks of overviews point at noise that was written into the native mask.

    GDAL writes the native mask of a file only. Blocks of a TIFF may be shared.
    """
    remote = cast(RangedFile, _LocalFile(path))
    masks = {(one.rows, one.cols): one for one in read_directories(remote) if one.is_mask}
    native = masks.get(reader.spec.shape)
    if native is None:
        return
    lent = [
        spans[0]
        for cell, spans in _spans(remote, native)
        if spans and _is_unread(native, cell, 0, kept, reader)
    ]
    with path.open("r+b") as file:
        for number, level in enumerate(reader.stored):
            mask = masks.get(level.shape)
            if number == 0 or mask is None or mask.block_shape != native.block_shape or not lent:
                continue
            cells = [cell for cell, _ in _spans(remote, mask)]
            for index, cell in enumerate(cells):
                if _is_unread(mask, cell, number, kept, reader):
                    start, stop = lent[index % len(lent)]
                    for table, value in ((mask.offsets, start), (mask.counts, stop - start)):
                        first, last = table.span(index)
                        file.seek(first)
                        file.write(struct.pack(mask.order + {2: "H", 4: "I", 8: "Q"}[last - first], value))
        file.flush()
        os.fsync(file.fileno())


def _spans(file: RangedFile, mask: Directory) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]]]]:
    """Cells of a mask in the order of its table, and where their bytes lie."""
    cells = cells_of(Window(0, 0, mask.rows, mask.cols), mask.block_shape)
    yield from zip(cells, mask.spans(file, cells), strict=True)


def _is_unread(
    mask: Directory, cell: tuple[int, int], level: int, kept: Collection[Place], reader: CogReader
) -> bool:
    """Whether no block that is kept has a pixel of a mask's block, and the mask's block is a whole one."""
    (high, wide), (row, col) = mask.block_shape, cell
    rows = slice(row * high, min((row + 1) * high, mask.rows))
    cols = slice(col * wide, min((col + 1) * wide, mask.cols))
    return not any(at in kept for at in reader.spec.blocks_of(level, (rows, cols)))
