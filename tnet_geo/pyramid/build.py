"""From a source raster to a sealed pyramid, in memory that does not grow with the scene."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from tnet_geo.grid import Window
from tnet_geo.imagery.raster import RasterInfo, open_raster, source_digest
from tnet_geo.pyramid.geozarr import array_attributes, group_attributes
from tnet_geo.pyramid.layout import SEAL, SceneLayout, read_layout
from tnet_geo.pyramid.reduce import halve
from tnet_geo.pyramid.sealing import draft_folder, seal_all
from tnet_geo.pyramid.settings import VERSION, ArchiveSettings
from tnet_geo.pyramid.source import Block, blocks_of

__all__ = ["Draft", "SceneRecord", "build_scene", "draft_scene", "scene_digest"]

WRITES_PENDING = 2
"""Shards that may be under way while the next block is read."""


@dataclass(frozen=True, slots=True)
class SceneRecord:
    """What became of one scene."""

    scene_id: str
    digest: str
    skipped: bool
    """True if it was sealed with this digest already."""
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A finished pyramid under its temporary name: `seal_all` gives it its own."""

    folder: Path
    record: SceneRecord


def scene_digest(scene: str, settings: ArchiveSettings) -> str:
    """sha256, in hex, of what a pyramid follows from: source bytes, settings, format version.

    Raises: SourceUnreadable.
    """
    facts = {"version": VERSION, "settings": settings.model_dump(), "source": source_digest(scene)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def build_scene(scene: str, scene_id: str, folder: Path, settings: ArchiveSettings) -> SceneRecord:
    """Build and seal the pyramid of `scene` as `folder`/scenes/`scene_id`, where `folder` is the archive.

    Nothing is done if it is sealed with the same digest. The first thing seen under the final name
    is the whole, flushed pyramid.

    Raises: SourceUnreadable.
    """
    draft = draft_scene(scene, scene_id, folder, settings)
    if not draft.record.skipped:
        seal_all([(draft.folder, draft.record.digest)])
    return draft.record


def draft_scene(scene: str, scene_id: str, folder: Path, settings: ArchiveSettings) -> Draft:
    """The same up to the seal, so that many small scenes can be flushed and sealed together.

    Raises: SourceUnreadable.
    """
    scenes = Path(folder) / "scenes"
    final = scenes / scene_id
    if final.parent != scenes or scene_id.startswith("."):
        raise ValueError(f"scene id {scene_id!r} is no plain name of a folder")
    digest = scene_digest(scene, settings)
    if _is_sealed(final, digest):
        return Draft(final, SceneRecord(scene_id, digest, True, 0))
    draft = draft_folder(scenes, scene_id)
    draft.mkdir(parents=True)
    try:
        with open_raster(scene) as raster:
            layout = _layout(scene_id, scene, digest, raster.info, settings)
            with blocks_of(raster, layout.shard_px, draft) as read:
                pyramid = _Pyramid(draft, layout, read)
                try:
                    pyramid.build()
                except BaseException:
                    pyramid.abandon()
                    raise
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Draft(draft, SceneRecord(scene_id, digest, False, _size(draft)))


def _is_sealed(scene: Path, digest: str) -> bool:
    """Whether a scene is sealed with `digest`; a damaged seal is none."""
    try:
        return read_layout(scene).digest == digest
    except (OSError, ValueError):
        return False


def _layout(
    scene_id: str, scene: str, digest: str, info: RasterInfo, settings: ArchiveSettings
) -> SceneLayout:
    return SceneLayout(
        scene_id=scene_id,
        source=scene.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1],
        digest=digest,
        bands=info.bands,
        dtype=info.dtype,
        shape=info.shape,
        half_px=settings.half_px,
        shard_px=settings.shard_px,
        codec=settings.codec,
        all_valid=info.all_valid,
        crs=info.crs,
        transform=info.transform,
        nodata=info.nodata,
    )


def _size(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(Path(at, name).stat().st_size for at, _, names in os.walk(folder) for name in names)


@cache
def _context() -> ts.Context:
    """One per process. Files are flushed once, before the seal, not one by one while they are written."""
    return ts.Context({"cache_pool": {"total_bytes_limit": 0}, "file_io_sync": False})


class _Pyramid:
    """The quad-tree of one scene's shards, written from the finest up.

    A block is one shard of one level. Level 0 reads it from the source; every other level puts
    together the halves of up to four finer blocks. So each shard is written once, nothing is read
    back, and at most one block of every level is in memory.
    """

    def __init__(self, folder: Path, layout: SceneLayout, read: Callable[[Window], Block]) -> None:
        self._folder, self._layout, self._read = folder, layout, read
        self._names = ("data",) if layout.all_valid else ("data", "valid")
        self._arrays: dict[tuple[int, str], ts.TensorStore] = {}
        self._writes: deque[ts.WriteFutures] = deque()
        self._saw_invalid = False

    def build(self) -> None:
        """Write all levels, and last the scene's own metadata."""
        levels = range(len(self._layout.shapes))
        for level in levels:
            self._create(level)
        self._block(levels[-1], 0, 0)
        self._settle(0)
        layout = self._layout
        if not layout.all_valid and not self._saw_invalid:
            # A mask was declared, but every pixel turned out to be valid.
            layout = replace(layout, all_valid=True)
            for level in levels:
                shutil.rmtree(self._folder / str(level) / "valid")
        attributes = group_attributes(layout.scene_id, layout.crs, layout.transform, layout.shapes)
        _write_json(self._folder / SEAL, _group(attributes | {"tnet_geo": layout.attributes()}))

    def _create(self, level: int) -> None:
        """Metadata of one level, and its open arrays."""
        layout, group = self._layout, self._folder / str(level)
        attributes = array_attributes(layout.crs, layout.transform, layout.shapes[level], level)
        for name in self._names:
            array = group / name
            array.mkdir(parents=True)
            metadata = layout.array_metadata(level, name)
            _write_json(array / "zarr.json", metadata | {"attributes": attributes})
            spec = {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": f"{array}/"},
                "metadata": metadata,
                "open": True,
                "assume_metadata": True,
                "store_data_equal_to_fill_value": True,  # so that a missing shard is always a loss
            }
            self._arrays[level, name] = ts.open(spec, context=_context()).result()
        _write_json(group / "zarr.json", _group({}))

    def _block(self, level: int, row: int, col: int) -> Block:
        """Write shard (row, col) of `level` and all below it; its pixels and validity."""
        rows, cols = self._layout.shapes[level]
        side = self._layout.shard_px
        window = Window(row * side, col * side, min(side, rows - row * side), min(side, cols - col * side))
        block = self._assembled(level, row, col, window) if level else self._read(window)
        self._write(level, window, block)
        return block

    def _assembled(self, level: int, row: int, col: int, window: Window) -> Block:
        """The block made of the halves of the finer blocks under it."""
        layout, side = self._layout, self._layout.shard_px
        pixels = np.empty((layout.bands, window.height, window.width), layout.dtype)
        validity = None if layout.all_valid else np.empty((window.height, window.width), np.uint8)
        finer_rows, finer_cols = layout.shapes[level - 1]
        for i in range(min(2, -(-finer_rows // side) - 2 * row)):
            for j in range(min(2, -(-finer_cols // side) - 2 * col)):
                part, valid = halve(*self._block(level - 1, 2 * row + i, 2 * col + j))
                top, left = i * side // 2, j * side // 2
                there = slice(top, top + part.shape[1]), slice(left, left + part.shape[2])
                pixels[:, *there] = part
                if validity is not None:
                    validity[there] = 255 if valid is None else valid
        return pixels, validity

    def _write(self, level: int, window: Window, block: Block) -> None:
        """Begin to write one shard; wait for older ones if too many are under way."""
        there = slice(window.row, window.bottom), slice(window.col, window.right)
        pixels, validity = block
        parts: dict[str, Any] = {"data": pixels}
        if not self._layout.all_valid:
            full = np.full((window.height, window.width), 255, np.uint8)
            parts["valid"] = full if validity is None else validity
            self._saw_invalid = self._saw_invalid or int(parts["valid"].min()) < 255
        for name, part in parts.items():
            target = self._arrays[level, name][..., *there]
            # Blocks are never changed after they are made, so that no copy is needed.
            self._writes.append(target.write(part, can_reference_source_data_indefinitely=True))
        self._settle(WRITES_PENDING * len(parts))

    def _settle(self, pending: int) -> None:
        """Wait until at most `pending` writes are under way."""
        while len(self._writes) > pending:
            self._writes.popleft().result()

    def abandon(self) -> None:
        """Wait for writes under way, whatever becomes of them: later they would put their files back."""
        for write in self._writes:
            write.exception()


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Compact and with keys in a fixed order: equal content is equal bytes."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    path.write_text(text, encoding="utf-8")
