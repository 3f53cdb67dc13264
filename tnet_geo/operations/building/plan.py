"""What a build will do: which scenes need it, in which tasks, and whether workers have room for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client
from distributed.system import MEMORY_LIMIT

from tnet_geo.errors import InvalidManifest, SourceUnreadable, TooLittleMemory, UsageError
from tnet_geo.grid import Window
from tnet_geo.imagery.fingerprint import DigestOf, source_digest
from tnet_geo.imagery.manifest import Manifest
from tnet_geo.imagery.raster import RasterInfo, open_raster
from tnet_geo.operations.cluster import memory_of, threads_of
from tnet_geo.pyramid.archive import Archive
from tnet_geo.pyramid.build import SceneRecord
from tnet_geo.pyramid.canvas import canvas_site
from tnet_geo.pyramid.pack_index import pack_table
from tnet_geo.pyramid.packs import PackMember, PackPlan, pack_bytes, pack_digest, plan_packs, planned_member
from tnet_geo.pyramid.plan import (
    GDAL_CACHE_BYTES,
    PROCESS_BYTES,
    SceneHeader,
    split_level,
    task_bytes,
    too_large_blocks,
)
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.units import bytes_text

__all__ = ["TASK_VALUES", "Crew", "Item", "Jobs", "Survey", "crew_of", "items_of", "plan_jobs", "survey"]

Looked = TypeVar("Looked")

TASK_VALUES = 40_000_000
"""Pixel values (pixels times bands) that keep one process busy for about a second."""
GROUPS_PER_WORKER = 8
"""At least so many tasks for each worker, where there are scenes enough, so that none is left idle."""
PROBES = 8
"""Sources whose headers or bytes are read at once before the cluster starts."""


@dataclass(frozen=True, slots=True)
class Item:
    """What becomes one scene of the archive."""

    scene_id: str
    source: str
    window: Window | None
    """On a canvas: what is cut from the source, without its context."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Who builds."""

    workers: int
    memory_bytes: int
    """What one of them may take."""
    machine_bytes: int | None
    """What all of them share; None where they are on machines of their own."""


@dataclass
class Survey:
    """What is known of all items before anything is built."""

    records: dict[str, SceneRecord] = field(default_factory=dict)
    """Sealed already from the same bytes."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Items that cannot be built, as far as their headers tell."""
    headers: list[SceneHeader] = field(default_factory=list)
    """Scenes of their own that need building."""
    members: list[PackMember] = field(default_factory=list)
    """Sites for packs, those that are packed already too."""

    @property
    def waiting(self) -> bool:
        """Whether there is anything to be built."""
        return bool(self.headers) or any(one.scene_id not in self.records for one in self.members)


@dataclass(frozen=True, slots=True)
class Jobs:
    """The tasks of a build."""

    groups: list[list[SceneHeader]]
    """Whole scenes, in tasks of about a second, the largest first."""
    splits: list[tuple[SceneHeader, int]]
    """Scenes of many tasks, each with the level whose shards are tasks of their own."""
    packs: list[PackPlan]
    memory_bytes: int
    """The most that any of these takes in its worker."""


def items_of(manifest: Manifest, settings: ArchiveSettings) -> list[Item]:
    """What a manifest asks for: its scenes, or on a canvas its sites. Raises: InvalidManifest."""
    if settings.canvas_px is not None:
        return [Item(canvas_site(site).scene_id, site.scene, site.window) for site in manifest.sites]
    scenes = manifest.scenes()
    for scene_id in scenes:
        if not re.fullmatch(r"\w[\w.-]*", scene_id, re.ASCII):
            remedy = "use letters, digits, '_', '-' and '.', beginning with a letter or digit"
            raise InvalidManifest(str(manifest.path), f"has the scene_id {scene_id!r}", remedy)
    return [Item(scene_id, source, None) for scene_id, source in scenes.items()]


def survey(
    items: Sequence[Item], archive: Archive | None, settings: ArchiveSettings, digest_of: DigestOf
) -> Survey:
    """Look at what is sealed, and at the headers of the sources of what is not."""
    found = Survey()
    with ThreadPoolExecutor(PROBES) as probes:
        sealed: dict[str, str | None] = {}
        if archive is not None:
            pack_table(archive.store).refresh()
            ids = [item.scene_id for item in items]
            sealed = dict(zip(ids, probes.map(archive.digest, ids), strict=True))
        once = list(dict.fromkeys(item.source for item in items if sealed.get(item.scene_id)))
        hashed = probes.map(_or_reason(partial(source_digest, digest_of=digest_of)), once)
        contents = dict(zip(once, hashed, strict=True))
        waiting = []
        for item in items:
            outcome = _sealed(item, sealed.get(item.scene_id), contents.get(item.source), settings)
            if isinstance(outcome, SceneRecord):
                found.records[item.scene_id] = outcome
            elif isinstance(outcome, SourceUnreadable):
                found.reasons[item.scene_id] = str(outcome)
            else:
                waiting.append(item)
        # Who shares a pack follows from all members, those too that are packed already.
        looked = items if waiting and settings.store == "packs" else waiting
        once = list(dict.fromkeys(item.source for item in looked))
        infos = dict(zip(once, probes.map(_or_reason(_info), once), strict=True))
    for item in looked:
        if item.scene_id not in found.reasons:
            _enter(item, infos[item.source], settings, found)
    return found


def _or_reason(look: Callable[[str], Looked]) -> Callable[[str], Looked | SourceUnreadable]:
    """The same for threads: an error is a result."""

    def found(source: str) -> Looked | SourceUnreadable:
        try:
            return look(source)
        except SourceUnreadable as error:
            return error

    return found


def _info(source: str) -> RasterInfo:
    with open_raster(source) as raster:
        return raster.info


def _sealed(
    item: Item, sealed: str | None, content: str | SourceUnreadable | None, settings: ArchiveSettings
) -> SceneRecord | SourceUnreadable | None:
    """The record of an item that is sealed from its present source; None if it must be built."""
    if sealed is None or content is None or isinstance(content, SourceUnreadable):
        return content if isinstance(content, SourceUnreadable) else None
    # On the native canvas this is the digest of a scene, packed or not.
    same = pack_digest(content, item.window, settings) == sealed
    return SceneRecord(item.scene_id, sealed, skipped=True, bytes_written=0) if same else None


def _enter(item: Item, info: RasterInfo | SourceUnreadable, settings: ArchiveSettings, found: Survey) -> None:
    """Take in one item's header."""
    if isinstance(info, SourceUnreadable):
        if item.scene_id not in found.records:
            found.reasons[item.scene_id] = str(info)
        return
    member = None
    if settings.store == "packs":
        try:
            member = planned_member(item.scene_id, item.source, item.window, info, settings)
        except SourceUnreadable as error:
            found.reasons[item.scene_id] = str(error)
            return
    if member is not None:
        found.members.append(member)
    elif item.scene_id not in found.records:
        found.headers.append(SceneHeader.of(item.scene_id, info))


def crew_of(client: Client | None, workers: int | None, memory: str | int | None) -> Crew:
    """Who will build: the workers of a running cluster, or those that this machine will start.

    Each has `memory` (bytes, or text such as 2GiB), by default its share of the machine's, or of what the
    control group of this process allows; on a running cluster what its workers say.

    Raises:
        UsageError: `memory` is no amount of memory.
    """
    try:
        asked = None if memory is None else int(parse_bytes(memory))
    except ValueError as error:
        raise UsageError(f"{memory!r} is no amount of memory: name one such as 2GiB.") from error
    if client is not None:
        has = memory_of(client)
        limits = [limit for limit in (asked, has) if limit]
        return Crew(threads_of(client), min(limits, default=MEMORY_LIMIT), None)
    count = workers or CPU_COUNT
    return Crew(count, asked or MEMORY_LIMIT // count, MEMORY_LIMIT)


def plan_jobs(found: Survey, settings: ArchiveSettings, crew: Crew) -> Jobs:
    """The tasks of a build. Sources of which a worker cannot hold one block become reasons in `found`.

    Raises:
        TooLittleMemory: a task needs more than a worker has, and an option can change that.
    """
    for header in found.headers:
        if too_large_blocks(header, settings, crew.memory_bytes):
            cause = (
                f"one block of it decodes to {bytes_text(header.decoded_block_bytes)}, more than a worker of "
                f"{bytes_text(crew.memory_bytes)} can hold"
            )
            found.reasons[header.scene_id] = str(SourceUnreadable(header.source, cause))
    headers = [header for header in found.headers if header.scene_id not in found.reasons]
    values = sum(header.values for header in headers)
    splits: list[tuple[SceneHeader, int]] = []
    whole: list[SceneHeader] = []
    most = PROCESS_BYTES
    for header in sorted(headers, key=lambda one: (-one.values, one.scene_id)):
        level = split_level(header, settings, crew.workers, values)
        need = task_bytes(header, settings, level)
        _check_memory(header.source, need, crew)
        most = max(most, need)
        if level is None:
            whole.append(header)
        else:
            splits.append((header, level))
    packed = {member.scene_id for member in found.members} & set(found.records)
    packs = plan_packs(found.members, packed)
    for plan in packs:
        need = PROCESS_BYTES + GDAL_CACHE_BYTES + pack_bytes(plan, settings)
        _check_memory(f"The pack of {plan.members[0].scene_id}", need, crew)
        most = max(most, need)
    return Jobs(_groups(whole, crew.workers), splits, packs, most)


def _check_memory(item: str, need: int, crew: Crew) -> None:
    """Raises: TooLittleMemory, with what to lower."""
    if need <= crew.memory_bytes:
        return
    remedy = "take a cluster whose workers have more, or tile the source"
    if crew.machine_bytes is not None:
        fitting = crew.machine_bytes // need
        if crew.machine_bytes // crew.workers >= need:
            remedy = f"allow --memory {-(-need >> 20)}MiB or more"
        elif fitting:
            remedy = f"lower --workers to {fitting}, and leave --memory out"
    raise TooLittleMemory(item, bytes_text(need), bytes_text(crew.memory_bytes), remedy)


def _groups(scenes: Sequence[SceneHeader], workers: float) -> list[list[SceneHeader]]:
    """Scenes as tasks of about a second, the largest first: small ones share a task."""
    total = sum(scene.values for scene in scenes)
    limit = min(TASK_VALUES, total / (GROUPS_PER_WORKER * workers))
    groups: list[list[SceneHeader]] = []
    room = 0.0
    for scene in sorted(scenes, key=lambda scene: (-scene.values, scene.scene_id)):
        if room < scene.values or not groups:
            groups.append([])
            room = limit
        groups[-1].append(scene)
        room -= scene.values
    return groups
