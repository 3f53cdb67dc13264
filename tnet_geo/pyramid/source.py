"""Blocks of a source raster, each of its pixels decoded once, the next ones while these are worked on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from tnet_geo.grid import Window
from tnet_geo.pyramid.assembler import Block, Shard, children_of, shard_window, shards_across
from tnet_geo.pyramid.layout import SceneLayout

__all__ = ["blocks_of", "in_bands"]

Read = Callable[[Window], Block]
"""Gives the pixels of a window of the source."""

Blocks = Generator[tuple[Shard, Block], None, None]


def in_bands(tiled: bool, shape: tuple[int, int], shard_px: int) -> bool:
    """Whether a source is decoded in bands of its full width.

    JPEG, PNG and striped TIFF have no random access: each step back decodes from the top, and a window
    costs the whole width. One that is no wider than a shard needs no bands.
    """
    return not tiled and shape[1] > shard_px


def blocks_of(read: Read, tiled: bool, layout: SceneLayout, top: Shard) -> Blocks:
    """All blocks of level 0 below `top`, in the order in which they cost least.

    `read` gives windows of a source, `tiled` says whether it has inner tiles. One that has is read
    shard by shard in Z order, so that what is put together from them is small. In others each step back
    decodes from the top: they are decoded once, in bands of one row of shards from top to bottom; then
    `top` must be the last level. The next shard or band is decoded in a thread of its own, while this
    one is reduced, compressed and written.

    Raises: SourceUnreadable.
    """
    if in_bands(tiled, layout.shape, layout.shard_px):
        return _from_bands(read, layout)
    return _from_tiles(read, layout, top)


def _from_tiles(read: Read, layout: SceneLayout, top: Shard) -> Blocks:
    shards = list(_z_order(layout, top))
    windows = [shard_window(layout, shard) for shard in shards]
    with closing(_ahead(read, windows)) as blocks:
        yield from zip(shards, blocks, strict=True)


def _z_order(layout: SceneLayout, shard: Shard) -> Iterator[Shard]:
    """Shards of level 0 below a shard: all of one quarter before the next."""
    if not shard.level:
        yield shard
        return
    for child in children_of(layout, shard):
        yield from _z_order(layout, child)


def _from_bands(read: Read, layout: SceneLayout) -> Blocks:
    rows, cols = shards_across(layout, 0)
    firsts = [shard_window(layout, Shard(0, row, 0)) for row in range(rows)]
    bands = [Window(first.row, 0, first.height, layout.shape[1]) for first in firsts]
    with closing(_ahead(read, bands)) as blocks:
        for row, (pixels, validity) in enumerate(blocks):
            for col in range(cols):
                shard = Shard(0, row, col)
                window = shard_window(layout, shard)
                across = slice(window.col, window.right)
                # Copies: views would keep the whole band in memory until the last of them is written.
                valid = None if validity is None else np.ascontiguousarray(validity[:, across])
                yield shard, (np.ascontiguousarray(pixels[:, :, across]), valid)
            del pixels, validity


def _ahead(read: Read, windows: Sequence[Window]) -> Generator[Block, None, None]:
    """What `read` gives for each window, the next one read while this one is used; two are in memory."""
    if len(windows) == 1:
        yield read(windows[0])
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, windows[0])
        for window in windows[1:]:
            block = coming.result()
            coming = reader.submit(read, window)
            yield block
            del block
        yield coming.result()
