"""Tiles straight from a Cloud-Optimised GeoTIFF, local or remote, through its own overviews."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np

from tnet_geo.errors import SourceUnreadable, TileUnreadable
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery.manifest import scene_id_of
from tnet_geo.imagery.raster import CHANGED
from tnet_geo.imagery.remote import gdal_place, is_remote, remote_file
from tnet_geo.pyramid.cog_levels import StoredLevel, open_cog_file
from tnet_geo.pyramid.cog_spec import CogSpec, cells_of, parts_of, runs_of
from tnet_geo.pyramid.decoded import BLOCKS, Block, Place
from tnet_geo.pyramid.handles import HANDLES, Handle
from tnet_geo.pyramid.ranges import NOTHING, Pieces, RangedFile, Span, joined
from tnet_geo.pyramid.reduce import halve
from tnet_geo.pyramid.tiff_directories import Directory, read_directories
from tnet_geo.pyramid.tiles import ReadMeter, TileBatch, cleaned

__all__ = ["CogReader", "cog_digest"]

DECODERS = min(4, len(os.sched_getaffinity(0)))
BATCHES_AT_ONCE = 32
BLOCKS_AT_ONCE = 256
"""Blocks that one batch fetches and decodes together: what it holds beside its tiles is bounded."""
RUNS_AT_ONCE = 8
"""Runs of blocks that one thread decodes before it hands them on."""
HEAD_BYTES = 64 << 10
REPLACE = "replace the file, or drop its sites"


class CogReader:
    """Answers tiles of one COG; meets the contract of `TileReader`. Any thread may read.

    Blocks of a batch are found in the file's tables, fetched together, decoded once by several threads,
    and shared by all tiles that they belong to. Levels coarser than the smallest overview are made of it
    in memory, as a build would make them; overviews are taken as they are, whatever they were made by.
    """

    def __init__(self, source: str | Path, half_px: int = 112, scene_id: str | None = None) -> None:
        """`source` is a path, an https:// or an s3:// address.

        Raises:
            SourceUnreadable: it cannot be opened, or its pixels are of a kind that no network looks at.
            OverviewsMissing: it is no GeoTIFF, or lacks a level.
        """
        given = str(source)
        self.source = given if is_remote(given) else os.path.abspath(gdal_place(given))
        self._given = self.source, half_px, scene_id
        self.meter = ReadMeter()
        self._remote = RangedFile(self.source, self.meter.fetched) if is_remote(self.source) else None
        self._directories = read_directories(self._remote) if self._remote is not None else []
        self._mark = self._remote.mark if self._remote is not None else _local_mark(self.source)
        digest = cog_digest(self.source) if self._remote is None else _digest(self._remote.mark)
        self._key = self.source, digest
        self._file = open_cog_file(self.source, self._remote, self._key, half_px)
        info, levels = self._file.info, self._file.levels
        self._reduced: list[Block] | None = None
        self._reducing = threading.Lock()
        made = self._file.shapes[len(levels) :]
        self.spec = CogSpec(
            scene_id=scene_id or scene_id_of(self.source),
            bands=info.bands,
            dtype=info.dtype,
            half_px=half_px,
            shapes=self._file.shapes,
            crs=info.crs,
            transform=info.transform,
            digest=digest,
            all_valid=info.all_valid,
            chunk_shape=levels[0].block_shape,
            nodata=info.nodata,
            block_shapes=(*(level.block_shape for level in levels), *made),
        )

    @property
    def stored(self) -> tuple[StoredLevel, ...]:
        """The levels that lie in the file, native first; coarser ones are made of the last of them."""
        return self._file.levels

    def __reduce__(self) -> tuple[type[CogReader], tuple[str, int, str | None]]:
        return CogReader, self._given

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        """The pixels of `tiles`; see `TileReader`. Raises: TileUnreadable."""
        self.meter.add(self.spec, tiles)
        return self._answer(tuple(tiles))

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        """The same without waiting: all reads are under way when this returns."""
        self.meter.add(self.spec, tiles)
        return _batches().submit(self._answer, tuple(tiles))

    def _answer(self, tiles: tuple[Tile, ...]) -> TileBatch:
        spec, side = self.spec, self.spec.base_px
        pixels = np.zeros((len(tiles), spec.bands, side, side), spec.dtype)
        validity = np.zeros((len(tiles), side, side), np.uint8)
        wanted = parts_of(spec, tiles)
        damage: dict[Place, SourceUnreadable] = {}
        try:
            self._check_unchanged()
            for group in _groups(list(wanted)):
                for at, future in self._begun(group):
                    try:
                        block = future.result()
                    except SourceUnreadable as error:
                        damage[at] = error
                        continue
                    for part in wanted[at]:
                        pixels[part.index, :, *part.here] = block[0][:, *part.there]
                        validity[part.index, *part.here] = 255 if block[1] is None else block[1][part.there]
        except SourceUnreadable as error:  # of the whole file
            raise TileUnreadable(spec.scene_id, "whole scene", error.cause, REPLACE) from error
        for at, fault in damage.items():
            tile = tiles[wanted[at][0].index]
            text = f"tile (level {tile.level}, row {tile.row}, column {tile.col})"
            raise TileUnreadable(spec.scene_id, text, fault.cause, REPLACE) from fault
        return TileBatch(pixels, validity)

    def _check_unchanged(self) -> None:
        """Remote files are checked at every answer of their server. Raises: SourceUnreadable."""
        if self._remote is None and _local_mark(self.source) != self._mark:
            raise SourceUnreadable(self.source, CHANGED)

    def _begun(self, blocks: Sequence[Place]) -> list[tuple[Place, Future[Block]]]:
        """Futures of blocks, in their order; all that nobody else makes are under way."""
        made = len(self._file.levels)
        futures: list[Future[Block]] = []
        stored = [at for at in blocks if at[0] < made]
        if stored:
            claimed, mine = BLOCKS.claim(self._key, stored)
            futures += claimed
            self._make_claimed([at for at in stored if at in mine])
        coarse = [at for at in blocks if at[0] >= made]
        for at in coarse:
            future: Future[Block] = Future()
            try:
                future.set_result(self._made_level(at[0]))
            except SourceUnreadable as error:
                future.set_exception(error)
            futures.append(future)
        return list(zip([*stored, *coarse], futures, strict=True))

    def _make_claimed(self, blocks: list[Place]) -> None:
        """Begin to make blocks that this reader has claimed; others may be waiting for them already."""
        try:
            self._make(blocks)
        except BaseException as error:
            for at in blocks:
                BLOCKS.failed(self._key, at, SourceUnreadable(self.source, f"its reading broke: {error}"))
            raise

    def _make(self, blocks: list[Place]) -> None:
        """Begin to decode blocks, once what they need of a server is here."""
        pieces = NOTHING
        if self._remote is not None and blocks:
            blocks, pieces = self._fetched(blocks)
        by_level: dict[int, list[Place]] = {}
        for at in blocks:
            by_level.setdefault(at[0], []).append(at)
        for level, own in by_level.items():
            own.sort()  # neighbours stay together
            count = -(-len(own) // DECODERS)
            for start in range(0, len(own), count):
                _decoders().submit(self._decode, level, own[start : start + count], pieces)

    def _fetched(self, blocks: list[Place]) -> tuple[list[Place], Pieces]:
        """The bytes of blocks, and those blocks of them that could be fetched; the others have failed."""
        assert self._remote is not None, "local files are read by GDAL"
        try:
            places = self._places(blocks)
        except SourceUnreadable as error:
            for at in blocks:
                BLOCKS.failed(self._key, at, error)
            return [], NOTHING
        spans = joined(span for own in places for span in own if not self._remote.has(*span))
        found: list[tuple[int, bytes]] = []
        lost: list[tuple[Span, SourceUnreadable]] = []
        for span, read in zip(spans, self._remote.fetch_all(spans), strict=True):
            try:
                found.append((span[0], read.result()))
            except SourceUnreadable as error:
                lost.append((span, error))
        whole: list[Place] = []
        for at, own in zip(blocks, places, strict=True):
            missing = [error for (a, b), error in lost for start, _ in own if a <= start < b]
            if missing:
                BLOCKS.failed(self._key, at, missing[0])
            else:
                whole.append(at)
        return whole, Pieces(found)

    def _places(self, blocks: Sequence[Place]) -> list[list[Span]]:
        """Where the bytes of blocks lie in the remote file, those of their masks included."""
        assert self._remote is not None, "local files are read by GDAL"
        found: list[list[Span]] = [[] for _ in blocks]
        for level in {at[0] for at in blocks}:
            own = [(n, at) for n, at in enumerate(blocks) if at[0] == level]
            for directory in self._images(level):
                # Masks may be cut otherwise than their images.
                inside = [cells_of(self.spec.window_of(at), directory.block_shape) for _, at in own]
                cells = sorted({cell for one in inside for cell in one})
                spans = dict(zip(cells, directory.spans(self._remote, cells), strict=True))
                for (n, _), one in zip(own, inside, strict=True):
                    found[n] += [span for cell in one for span in spans[cell]]
        return found

    def _images(self, level: int) -> list[Directory]:
        """The level's image in the file, and its mask."""
        shape = self.spec.shapes[level]
        images: dict[bool, Directory] = {}
        for directory in self._directories:
            if (directory.rows, directory.cols) == shape:
                images.setdefault(directory.is_mask, directory)
        return list(images.values())

    def _decode(self, level: int, blocks: Sequence[Place], pieces: Pieces) -> None:
        """In a thread of its own: decode blocks of one level, neighbours together, some runs at a time."""
        runs = runs_of(blocks)
        for start in range(0, len(runs), RUNS_AT_ONCE):
            self._decode_runs(level, runs[start : start + RUNS_AT_ONCE], pieces)

    def _decode_runs(self, level: int, runs: Sequence[Sequence[Place]], pieces: Pieces) -> None:
        """Decode blocks that lie side by side; where that fails one by one, to find which is at fault."""
        windows = [[self.spec.window_of(at) for at in run] for run in runs]
        try:
            read = self._raw(level, [_around(run) for run in windows], pieces)
            read = [self._clean(block) for block in read]
        except Exception as error:  # noqa: BLE001  whoever waits for the blocks must hear of it
            alone = [at for run in runs for at in run]
            if len(alone) == 1:
                BLOCKS.failed(self._key, alone[0], error)
                return
            for at in alone:
                self._decode_runs(level, [[at]], pieces)
            return
        for run, inside, (pixels, validity) in zip(runs, windows, read, strict=True):
            for at, window in zip(run, inside, strict=True):
                part = slice(window.col - inside[0].col, window.right - inside[0].col)
                shown = None if validity is None else validity[:, part]
                BLOCKS.made(self._key, at, (pixels[..., part], shown))

    def _raw(self, level: int, windows: Sequence[Window], pieces: Pieces) -> list[Block]:
        """Windows of a level as GDAL gives them, and their validity. Raises: SourceUnreadable."""
        overview = self._file.levels[level].overview
        make = partial(Handle, self.source, self._remote, overview)
        with HANDLES.lent((*self._key, overview), make) as handle:
            handle.pieces = pieces
            return handle.read_all(windows, self._file.info, self._file.bands)

    def _made_level(self, level: int) -> Block:
        """A level that the file does not have, clean. Raises: SourceUnreadable."""
        with self._reducing:
            if self._reduced is None:
                self._reduced = self._reduce()
        return self._reduced[level - len(self._file.levels)]

    def _reduce(self) -> list[Block]:
        """All levels beyond the smallest overview, which is read whole, and counted."""
        spec, last = self.spec, len(self._file.levels) - 1
        whole = Window(0, 0, *spec.shapes[last])
        region = slice(0, whole.height), slice(0, whole.width)
        blocks, pieces = spec.blocks_of(last, region), NOTHING
        if self._remote is not None:
            places = self._places(blocks)
            spans = joined(span for own in places for span in own if not self._remote.has(*span))
            reads = self._remote.fetch_all(spans)
            pieces = Pieces([(span[0], read.result()) for span, read in zip(spans, reads, strict=True)])
        level = self._raw(last, [whole], pieces)[0]
        shown = 0 if level[1] is None else level[1].nbytes
        self.meter.decoded(level[0].nbytes + shown, len(blocks))
        self._share(blocks, level)
        made: list[Block] = []
        while len(made) < spec.levels - len(self._file.levels):
            level = halve(*level, spec.nodata)
            made.append(level)
        return [self._clean(level) for level in made]

    def _share(self, blocks: Sequence[Place], level: Block) -> None:
        """Let tiles of a level that was read whole have its blocks."""
        for at in BLOCKS.claim(self._key, blocks)[1]:
            window = self.spec.window_of(at)
            region = slice(window.row, window.bottom), slice(window.col, window.right)
            pixels, validity = level[0][:, *region].copy(), None if level[1] is None else level[1][region]
            BLOCKS.made(self._key, at, self._clean((pixels, validity)))

    def _clean(self, block: Block) -> Block:
        pixels, validity = block
        if not (self.spec.all_valid and self.spec.nodata is None):
            shown = np.full(pixels.shape[1:], 255, np.uint8) if validity is None else validity
            cleaned(pixels, shown, self.spec.nodata)
        return block


def cog_digest(source: str) -> str:
    """What names the content of a COG.

    Of a remote one size and ETag, by one request; of a local one its size, the time of its last change,
    and its first and last 64 KiB.

    Raises:
        SourceUnreadable: it is not there, or its server does not answer.
    """
    if is_remote(source):
        facts = remote_file(source)
        return _digest(f"{facts.size} {facts.etag or facts.modified}")
    mark = _local_mark(source)
    try:
        with Path(source).open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(max(0, Path(source).stat().st_size - HEAD_BYTES))
            tail = file.read()
    except OSError as error:
        raise SourceUnreadable(source, error.strerror or type(error).__name__) from None
    return _digest(mark, head, tail)


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def _local_mark(source: str) -> str:
    try:
        found = Path(source).stat()
    except OSError as error:
        raise SourceUnreadable(source, error.strerror or type(error).__name__) from None
    return f"{found.st_size} {found.st_mtime_ns}"


def _around(windows: Sequence[Window]) -> Window:
    """The window of blocks that lie side by side."""
    first, last = windows[0], windows[-1]
    return Window(first.row, first.col, first.height, last.right - first.col)


def _groups(blocks: list[Place]) -> list[list[Place]]:
    return [blocks[n : n + BLOCKS_AT_ONCE] for n in range(0, len(blocks), BLOCKS_AT_ONCE)]


@cache
def _batches() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(BATCHES_AT_ONCE, thread_name_prefix="tnet-geo-batch")


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODERS, thread_name_prefix="tnet-geo-decode")
