"""From a source raster to a sealed pyramid: of one task or of many, in memory that is known before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tnet_geo.errors import SceneUnwritable, SourceUnreadable
from tnet_geo.imagery.fingerprint import DigestOf
from tnet_geo.imagery.raster import (
    CHANGED,
    NO_VALID_PIXELS,
    FileState,
    RasterInfo,
    open_raster,
    source_digest,
    source_files,
    source_state,
)
from tnet_geo.pyramid.assembler import Assembler, Block, Shard
from tnet_geo.pyramid.layout import SEAL, SceneLayout
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.scene_writer import SceneWriter, scene_documents, shard_keys
from tnet_geo.pyramid.sealing import Draft, abandon, begin, seal, sealed_digest
from tnet_geo.pyramid.settings import VERSION, ArchiveSettings
from tnet_geo.pyramid.source import blocks_of
from tnet_geo.pyramid.store import open_store

__all__ = [
    "Begun",
    "Drafted",
    "Quarter",
    "SceneRecord",
    "begin_scene",
    "build_scene",
    "build_subtree",
    "draft_scene",
    "finish_scene",
    "hash_scene",
    "join_subtrees",
    "scene_digest",
    "scene_layout",
    "seal_scenes",
]

SCENES = "scenes"


@dataclass(frozen=True, slots=True)
class SceneRecord:
    """What became of one scene."""

    scene_id: str
    digest: str
    skipped: bool
    """True if it was sealed with this digest already."""
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Begun:
    """A scene whose pyramid is being written, by one task or by many: small, it travels with each."""

    source: str
    files: tuple[str, ...]
    state: tuple[FileState, ...]
    """Of these files before the first of their pixels was read."""
    draft: Draft
    """Its digest is not known yet."""
    layout: SceneLayout
    digest_of: DigestOf
    settings: ArchiveSettings

    @property
    def top(self) -> Shard:
        """The one shard of the coarsest level."""
        return Shard(len(self.layout.shapes) - 1, 0, 0)


@dataclass(frozen=True, slots=True)
class Quarter:
    """A subtree that is written, as its parent needs it: what a task returns."""

    shard: Shard
    half: Block | None
    """None at the top of the scene, which has no parent."""
    saw_valid: bool
    saw_invalid: bool


@dataclass(frozen=True, slots=True)
class Drafted:
    """A scene that is written and not sealed, so that many small ones can be flushed together."""

    draft: Draft
    seal: bytes
    keys: frozenset[str]
    record: SceneRecord


def scene_digest(
    scene: str,
    settings: ArchiveSettings,
    digest_of: DigestOf = "content",
    *,
    files: Sequence[str] | None = None,
) -> str:
    """sha256, in hex, of what a pyramid follows from: source bytes, settings, format version.

    Raises: SourceUnreadable.
    """
    content = source_digest(scene, digest_of, files=files)
    facts = {"version": VERSION, "settings": settings.model_dump(), "source": content}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def build_scene(
    scene: str,
    scene_id: str,
    archive: Store | str | Path,
    settings: ArchiveSettings,
    digest_of: DigestOf = "content",
) -> SceneRecord:
    """Build and seal the pyramid of `scene` as scenes/`scene_id` of the archive at a place.

    Nothing is done if it is sealed with the same digest. Readers see the whole pyramid or none.

    Raises: SourceUnreadable, SceneUnwritable, WriteConflict, PlaceUnusable.
    """
    drafted = draft_scene(scene, scene_id, archive, settings, digest_of)
    if isinstance(drafted, SceneRecord):
        return drafted
    try:
        seal_scenes([drafted])
    except BaseException:
        abandon(drafted.draft)
        raise
    return drafted.record


def draft_scene(
    scene: str,
    scene_id: str,
    archive: Store | str | Path,
    settings: ArchiveSettings,
    digest_of: DigestOf = "content",
) -> Drafted | SceneRecord:
    """The same up to the seal; a record if there is nothing to be done."""
    store = archive if isinstance(archive, Store) else open_store(archive)
    if (known := sealed_digest(store.at(SCENES, scene_id))) is not None:
        digest = scene_digest(scene, settings, digest_of)
        if digest == known:
            return SceneRecord(scene_id, digest, True, 0)
    begun = begin_scene(scene, scene_id, store, settings, digest_of)
    try:
        with ThreadPoolExecutor(1) as hasher:
            digest_coming = hasher.submit(hash_scene, begun)
            whole = build_subtree(begun, begun.top)
            return finish_scene(begun, whole, digest_coming.result())
    except BaseException:
        abandon(begun.draft)
        raise


def begin_scene(
    scene: str, scene_id: str, archive: Store, settings: ArchiveSettings, digest_of: DigestOf = "content"
) -> Begun:
    """A new draft of a scene, and all that its tasks must know.

    The calling process owns the draft and must live until it is sealed or abandoned.

    Raises: SourceUnreadable.
    """
    files = tuple(source_files(scene))
    state = source_state(scene, files=files)
    with open_raster(scene) as raster:
        layout = scene_layout(scene_id, scene, raster.info, settings)
    home = archive.at(SCENES)
    try:
        draft = begin(home, scene_id, "")
    except OSError as error:
        raise SceneUnwritable(scene_id, home.url, error.strerror or str(error)) from error
    return Begun(scene, files, state, draft, layout, digest_of, settings)


def hash_scene(begun: Begun) -> str:
    """The scene's digest: needed only for its seal, so that it is worked out beside the pixels."""
    return scene_digest(begun.source, begun.settings, begun.digest_of, files=begun.files)


def build_subtree(begun: Begun, top: Shard) -> Quarter:
    """Write shard `top` and all below it, reading each pixel once.

    Raises: SourceUnreadable, SceneUnwritable.
    """
    with _written(begun) as writer:
        assembler = Assembler(begun.layout, top, writer.write)
        with open_raster(begun.source) as raster:
            now = scene_layout(begun.layout.scene_id, begun.source, raster.info, begun.settings)
            if now.attributes() != begun.layout.attributes():  # as JSON: NaN is not equal to itself
                raise SourceUnreadable(begun.source, CHANGED)
            with closing(blocks_of(raster.read, raster.info.tiled, begun.layout, top)) as blocks:
                for shard, block in blocks:
                    assembler.add(shard, block)
    return Quarter(top, assembler.half, writer.saw_valid, writer.saw_invalid)


@contextmanager
def _written(begun: Begun) -> Iterator[SceneWriter]:
    """A writer whose shards are all written when the block ends, or none under way when it fails."""
    writer = SceneWriter(begun.draft.store, begun.layout)
    try:
        yield writer
        writer.settle()
    except BaseException:
        writer.abandon()
        raise


def join_subtrees(begun: Begun, top: Shard, quarters: Sequence[Quarter]) -> Quarter:
    """Write shard `top`, and what is between it and its subtrees, of which nothing is read back.

    Raises: SceneUnwritable.
    """
    with _written(begun) as writer:
        assembler = Assembler(begun.layout, top, writer.write)
        for quarter in quarters:
            if quarter.half is not None:
                assembler.put(quarter.shard, quarter.half)
    saw = any(quarter.saw_valid for quarter in quarters), any(quarter.saw_invalid for quarter in quarters)
    return Quarter(top, assembler.half, *saw)


def finish_scene(begun: Begun, whole: Quarter, digest: str) -> Drafted:
    """Write all metadata but the seal of a scene whose shards are written.

    Raises: SceneUnwritable; SourceUnreadable: the source changed while it was read, or has no valid pixel.
    """
    layout, draft = begun.layout, replace(begun.draft, digest=digest)
    if whole.shard != begun.top:
        raise ValueError(f"{whole.shard} is not the top of {layout.scene_id}")
    if source_state(begun.source, files=begun.files) != begun.state:
        raise SourceUnreadable(begun.source, CHANGED)
    if not whole.saw_valid:
        raise SourceUnreadable(begun.source, NO_VALID_PIXELS)
    if not layout.all_valid and not whole.saw_invalid:
        # A mask was declared, but every pixel turned out to be valid.
        for level in range(len(layout.shapes)):
            draft.store.remove(f"{level}/valid")
        layout = replace(layout, all_valid=True)
    layout = replace(layout, digest=digest)
    documents = scene_documents(layout)
    content = documents.pop(SEAL)
    with _told(layout.scene_id, draft):
        draft.write_all(documents)
    record = SceneRecord(layout.scene_id, digest, False, draft.bytes_written() + len(content))
    return Drafted(draft, content, frozenset([*documents, *shard_keys(layout)]), record)


@contextmanager
def _told(scene_id: str, draft: Draft) -> Iterator[None]:
    """Errors of the file system, such as a full disk, as the scene's own."""
    try:
        yield
    except OSError as error:
        raise SceneUnwritable(scene_id, draft.home.url, error.strerror or str(error)) from error


def seal_scenes(drafted: Sequence[Drafted]) -> None:
    """Seal drafts together, or none of those that lie in a folder. Raises: WriteConflict, SceneUnwritable."""
    if drafted:
        with _told(drafted[0].record.scene_id, drafted[0].draft):
            seal([(one.draft, one.seal) for one in drafted], [one.keys for one in drafted])


def scene_layout(scene_id: str, scene: str, info: RasterInfo, settings: ArchiveSettings) -> SceneLayout:
    """How the scene will lie on disk; its digest is not known yet."""
    facts: dict[str, Any] = {
        name: getattr(info, name)
        for name in (
            "bands",
            "dtype",
            "shape",
            "all_valid",
            "crs",
            "transform",
            "nodata",
            "scale",
            "offset",
            "georeference",
            "georeference_error_px",
        )
    }
    return SceneLayout(
        scene_id=scene_id,
        source=scene.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1],
        digest="",
        half_px=settings.half_px,
        shard_px=settings.shard_px,
        codec=settings.codec,
        **facts,
    )
