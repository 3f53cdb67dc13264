"""How fast this machine builds pyramids of given sources, measured on parts of them before a build."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tnet_geo.errors import SetAside
from tnet_geo.grid import Window
from tnet_geo.imagery.fingerprint import source_state
from tnet_geo.imagery.raster import open_raster
from tnet_geo.pyramid.assembler import Assembler, Block, Shard
from tnet_geo.pyramid.build import scene_layout
from tnet_geo.pyramid.pack_writer import write_pack
from tnet_geo.pyramid.packs import PackMember, PackPlan
from tnet_geo.pyramid.plan import SceneHeader
from tnet_geo.pyramid.scene_writer import SceneWriter
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.pyramid.source import blocks_of, in_bands
from tnet_geo.pyramid.store import open_store

__all__ = ["Rate", "pack_rate", "scene_rate", "values_of"]

Sample = TypeVar("Sample")

SECONDS = 3.0
"""What a measurement takes: no further part is begun after so long."""
MOST_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Rate:
    """What one value (a pixel of one band) of the sampled sources costs."""

    wall: float
    """Seconds in one worker that has the machine for itself."""
    cpu: float
    """Seconds of processor, of all its threads."""
    written: float
    """Bytes in the archive."""
    read: float
    """Bytes of the source's files."""


def scene_rate(headers: Sequence[SceneHeader], settings: ArchiveSettings) -> Rate | None:
    """Decode parts of some of these sources and build them in a temporary folder, for a few seconds.

    A source's chance to be among them is its share of all values. A large one with inner tiles gives
    2 x 2 shards of its middle, one without its first band, another one all its pixels. None: not one
    of them could be read.
    """
    if not headers:
        return None
    chosen = random.Random(0).choices(headers, [header.values for header in headers], k=MOST_SAMPLES)

    def build(header: SceneHeader, folder: Path) -> tuple[int, float]:
        done = _build_part(header, folder, settings)
        return done, _stored_bytes(header.source) * done / header.values

    return _measured(chosen, build)


def pack_rate(members: Sequence[PackMember], settings: ArchiveSettings) -> Rate | None:
    """The same by packing some of these sites; a value is one that must be decoded of the source."""
    if not members:
        return None
    chosen = random.Random(0).choices(members, [values_of(member) for member in members], k=MOST_SAMPLES)

    def build(member: PackMember, folder: Path) -> tuple[int, float]:
        outcome = write_pack(PackPlan((member,)), open_store(folder), settings)
        return values_of(member) * len(outcome.packed), _stored_bytes(member.source)

    return _measured(chosen, build)


def values_of(member: PackMember) -> int:
    """Pixels times bands to be decoded for a site of a pack."""
    return member.source_px * member.bands


def _stored_bytes(source: str) -> int:
    return sum(each.size for each in source_state(source))


def _measured(chosen: Sequence[Sample], build: Callable[[Sample, Path], tuple[int, float]]) -> Rate | None:
    """Build samples, which says how many values they are and how many bytes were read, until time is up."""
    values = 0
    written = read = wall = cpu = 0.0
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tnet-geo-rate-") as name:
        for number, sample in enumerate(chosen):
            folder = Path(name, str(number))
            before = time.perf_counter(), time.process_time()
            try:
                done, size = build(sample, folder)
            except SetAside:
                continue
            if not done:
                continue
            wall += time.perf_counter() - before[0]
            cpu += time.process_time() - before[1]
            values += done
            read += size
            written += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if time.perf_counter() - begun > SECONDS:
                break
    return Rate(wall / values, cpu / values, written / values, read / values) if values else None


def _build_part(header: SceneHeader, folder: Path, settings: ArchiveSettings) -> int:
    """Build a part of a source's pyramid; how many values that were. Raises: SetAside."""
    side = settings.shard_px
    rows, cols = header.shape
    if in_bands(header.tiled, header.shape, side):
        part = Window(0, 0, min(rows, side), cols)
    else:
        high, wide = min(rows, 2 * side), min(cols, 2 * side)
        part = Window((rows - high) // 2 // side * side, (cols - wide) // 2 // side * side, high, wide)
    with open_raster(header.source) as raster:
        layout = scene_layout(header.scene_id, header.source, raster.info, settings)
        layout = replace(layout, shape=(part.height, part.width))

        def read(window: Window) -> Block:
            return raster.read(
                Window(window.row + part.row, window.col + part.col, window.height, window.width)
            )

        writer = SceneWriter(open_store(folder), layout)
        top = Shard(len(layout.shapes) - 1, 0, 0)
        assembler = Assembler(layout, top, writer.write)
        try:
            with closing(blocks_of(read, header.tiled, layout, top)) as blocks:
                for shard, block in blocks:
                    assembler.add(shard, block)
            writer.settle()
        except BaseException:
            writer.abandon()
            raise
    return part.height * part.width * header.bands
