"""What a build will do, known before it starts: its tasks, what they write, and the memory they need."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from tnet_geo.grid import last_level, level_shape
from tnet_geo.imagery.raster import RasterInfo
from tnet_geo.pyramid.assembler import Shard
from tnet_geo.pyramid.scene_writer import WRITES_PENDING
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.pyramid.source import in_bands

__all__ = [
    "GDAL_CACHE_BYTES",
    "PROCESS_BYTES",
    "SceneHeader",
    "check_writes",
    "scene_files",
    "shards_at",
    "split_level",
    "subtrees",
    "task_bytes",
    "too_large_blocks",
]

PROCESS_BYTES = 320 << 20
"""What a worker holds before its first task, libraries included: 290 MiB were measured on Linux."""
GDAL_CACHE_BYTES = 128 << 20
"""Blocks that GDAL keeps: `imagery.gdal` sets it."""
TASKS_PER_WORKER = 8
"""A scene is split into at least so many, where it is large enough, so that no worker ends much later."""
LEAST_SHARDS = 12
"""Scenes of fewer shards are one task: seconds of work at most."""


@dataclass(frozen=True, slots=True)
class SceneHeader:
    """What the plan needs to know of one scene."""

    scene_id: str
    source: str
    shape: tuple[int, int]
    bands: int
    itemsize: int
    tiled: bool
    all_valid: bool
    decoded_block_bytes: int

    @classmethod
    def of(cls, scene_id: str, info: RasterInfo) -> SceneHeader:
        """From the header of the source."""
        return cls(
            scene_id=scene_id,
            source=info.source,
            shape=info.shape,
            bands=info.bands,
            itemsize=np.dtype(info.dtype).itemsize,
            tiled=info.tiled,
            all_valid=info.all_valid,
            decoded_block_bytes=info.decoded_block_bytes,
        )

    @property
    def values(self) -> int:
        """Pixels times bands: what the time of a build goes by."""
        return math.prod(self.shape) * self.bands

    @property
    def pixel_bytes(self) -> int:
        """Of one stored pixel: all its bands, and its validity where some may not be valid."""
        return self.bands * self.itemsize + (0 if self.all_valid else 1)


def shards_at(shape: tuple[int, int], level: int, settings: ArchiveSettings) -> tuple[int, int]:
    """Rows and columns of shards at a level of a scene of `shape` native pixels."""
    rows, cols = (-(-side // settings.shard_px) for side in level_shape(shape, level))
    return rows, cols


def split_level(header: SceneHeader, settings: ArchiveSettings, workers: int, values: int) -> int | None:
    """The level whose shards are tasks of their own, with all below them; None: the scene is one task.

    `values` are those of the whole build: a scene that is a small part of one worker's share is not
    split, and neither is a source without inner tiles, which each of several tasks would decode anew.
    """
    small = header.values * TASKS_PER_WORKER * workers < values
    if not header.tiled or workers == 1 or small:
        return None
    if math.prod(shards_at(header.shape, 0, settings)) < LEAST_SHARDS:
        return None
    level = 1
    while math.prod(shards_at(header.shape, level + 1, settings)) >= TASKS_PER_WORKER * workers:
        level += 1
    return level if math.prod(shards_at(header.shape, level, settings)) > 1 else None


def subtrees(shape: tuple[int, int], level: int, settings: ArchiveSettings) -> list[Shard]:
    """The shards of one level, in the order in which their parents are complete soonest."""
    rows, cols = shards_at(shape, level, settings)

    def along_z(shard: Shard) -> int:
        return sum(
            (shard.row >> bit & 1) << 2 * bit + 1 | (shard.col >> bit & 1) << 2 * bit for bit in range(32)
        )

    return sorted((Shard(level, row, col) for row in range(rows) for col in range(cols)), key=along_z)


def check_writes(shape: tuple[int, int], tops: Iterable[Shard], settings: ArchiveSettings) -> None:
    """Refuse tasks of one scene of which two would write one shard, or of which none would.

    The task of a top writes its shard and all below it, at every level. What is above all tops is
    written where they are joined.

    Raises:
        ValueError: a defect of the plan. Shards that two tasks write lose pixels without an error.
    """
    owners: dict[Shard, Shard] = {}
    for top in tops:
        for level in range(top.level + 1):
            rows, cols = shards_at(shape, level, settings)
            depth = top.level - level
            for row in range(top.row << depth, min((top.row + 1) << depth, rows)):
                for col in range(top.col << depth, min((top.col + 1) << depth, cols)):
                    shard = Shard(level, row, col)
                    if shard in owners:
                        raise ValueError(f"tasks {owners[shard]} and {top} would both write {shard}")
                    owners[shard] = top
    native = sum(shard.level == 0 for shard in owners)
    if native != math.prod(shards_at(shape, 0, settings)):
        raise ValueError(f"{native} of {math.prod(shards_at(shape, 0, settings))} native shards have a task")


def scene_files(header: SceneHeader, settings: ArchiveSettings) -> int:
    """Files of one scene: its seal, and for each level a group and its arrays with their shards."""
    arrays = 1 if header.all_valid else 2
    levels = range(last_level(header.shape, settings.half_px) + 1)
    return 1 + sum(1 + arrays * (1 + math.prod(shards_at(header.shape, n, settings))) for n in levels)


def task_bytes(header: SceneHeader, settings: ArchiveSettings, split: int | None) -> int:
    """The most memory that one task of a scene takes, in bytes, what the process has anyway included."""
    side = settings.shard_px
    rows, cols = (min(side, size) for size in header.shape)
    area = rows * cols
    block = area * header.pixel_bytes
    # Masks of all bands while one block is read; float64 sums and counts while a band of one is halved.
    reading = 0 if header.all_valid else area * (2 * header.bands + 8)
    halving = block // 4 + area * (24 if header.itemsize > 2 or not header.all_valid else 2)
    writing = 2 * (WRITES_PENDING + 1) * block  # and their compressed copies
    last = last_level(header.shape, settings.half_px)
    if in_bands(header.tiled, header.shape, side):
        band = header.shape[1] * rows
        reading = 0 if header.all_valid else band * (2 * header.bands + 8)
        holding = 3 * band * header.pixel_bytes  # one at hand, one being read, and a row of parents a level
    else:
        holding = (2 + (last if split is None else split)) * block
    joining = 0 if split is None else (2 * 4 // 4 + last - split + 1) * block
    cache = GDAL_CACHE_BYTES + 2 * header.decoded_block_bytes
    return PROCESS_BYTES + max(holding + reading + cache, joining) + halving + writing


def too_large_blocks(header: SceneHeader, settings: ArchiveSettings, memory_bytes: int) -> bool:
    """Whether a worker would have room for a scene, were it not for one decoded block of its source."""
    with_block, without = (
        task_bytes(one, settings, None) for one in (header, replace(header, decoded_block_bytes=0))
    )
    return without <= memory_bytes < with_block
