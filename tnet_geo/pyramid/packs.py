"""Many small sites in shared arrays: which go together, and what they cost."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window, last_level, level_shape
from tnet_geo.imagery.context import CONTEXT_RULE
from tnet_geo.imagery.raster import RasterInfo
from tnet_geo.pyramid.canvas import STRIP_BYTES, canvas_cut
from tnet_geo.pyramid.pack_layout import MOST_SITES, shard_sites
from tnet_geo.pyramid.settings import VERSION, ArchiveSettings

__all__ = [
    "MOST_PACKED_PX",
    "PackMember",
    "PackPlan",
    "pack_bytes",
    "pack_digest",
    "pack_files",
    "plan_packs",
    "planned_member",
]

MOST_PACKED_PX = 1024
"""Scenes with a longer side stay scenes of their own, in an archive of packs too."""
TASK_PX = 4_000_000_000
"""Pixels to be decoded for one pack: some minutes for one process."""
SHARED_BYTES = 256 << 20
"""A source without inner tiles that holds several sites of a pack is decoded once, if it is no larger."""


@dataclass(frozen=True, slots=True)
class PackMember:
    """One site to be packed, and what its source's header says of it."""

    scene_id: str
    """On a canvas that of `canvas_site`: every site is a scene of its own."""
    source: str
    window: Window | None
    """What is cut from the source on a canvas, without its context; None: all of it."""
    shape: tuple[int, int]
    """Rows and columns as packed."""
    bands: int
    dtype: str
    all_valid: bool
    source_px: int
    """Pixels that must be decoded for it."""

    @property
    def kind(self) -> tuple[tuple[int, int], int, str, bool]:
        """What the members of a pack have in common."""
        return self.shape, self.bands, self.dtype, self.all_valid


@dataclass(frozen=True, slots=True)
class PackPlan:
    """The members of one pack, at most 1024, of one shape, bands and dtype: one task's work."""

    members: tuple[PackMember, ...]

    def halves(self) -> tuple[PackPlan, PackPlan]:
        """Two plans of half the members: to find the one that breaks a task."""
        middle = len(self.members) // 2
        return PackPlan(self.members[:middle]), PackPlan(self.members[middle:])


def planned_member(
    scene_id: str, source: str, window: Window | None, info: RasterInfo, settings: ArchiveSettings
) -> PackMember | None:
    """A site as a member of a pack; None if its scene is too large and not cut out.

    On the native canvas scenes are packed, whatever windows sites have in them: `window` is None.

    Raises:
        SourceUnreadable: on a canvas, the window has no pixel on its source.
    """
    side = settings.canvas_px
    shape, source_px = info.shape, math.prod(info.shape)
    if side is not None:
        cut = canvas_cut(window, info.shape)
        if cut is None:
            raise SourceUnreadable(source, f"it has no pixel in the window of {scene_id}")
        shape = side, side
        source_px = cut.width * cut.height if info.tiled else cut.bottom * info.shape[1]
    elif max(info.shape) > MOST_PACKED_PX:
        return None
    return PackMember(scene_id, source, window, shape, info.bands, info.dtype, info.all_valid, source_px)


def plan_packs(members: Iterable[PackMember], packed: Collection[str] = ()) -> list[PackPlan]:
    """Who goes together: the same for the same members in any order.

    `members` are all that are selected, `packed` the ids of those that are in sealed packs with their
    present digest, which are left where they are. Packs of which nobody is sealed yet hold who they would
    have held in an undisturbed build, so that a build that was killed ends in the same packs; all
    others (added sites, and those that were set aside) are gathered into further ones.
    """
    kinds = sorted(set(members), key=lambda member: (member.kind, member.source, member.scene_id))
    plans: list[PackPlan] = []
    left: list[PackMember] = []
    for plan in _packs_of(kinds):
        waiting = tuple(member for member in plan if member.scene_id not in packed)
        if len(waiting) == len(plan):
            plans.append(PackPlan(waiting))
        else:
            left.extend(waiting)
    return plans + [PackPlan(plan) for plan in _packs_of(left)]


def _packs_of(members: Iterable[PackMember]) -> Iterator[tuple[PackMember, ...]]:
    """Sorted members in packs that are full, or enough work for one task."""
    for _, same in groupby(members, key=lambda member: member.kind):
        pack: list[PackMember] = []
        room = 0
        for member in same:
            if pack and (len(pack) == MOST_SITES or room < member.source_px):
                yield tuple(pack)
                pack = []
            if not pack:
                room = TASK_PX
            pack.append(member)
            room -= member.source_px
        yield tuple(pack)


def pack_digest(source_digest: str, window: Window | None, settings: ArchiveSettings) -> str:
    """sha256, in hex, of what a packed site follows from: source bytes, window, settings, format version."""
    facts = {"version": VERSION, "settings": settings.model_dump(), "source": source_digest}
    if settings.canvas_px is not None:
        place = None if window is None else [window.row, window.col, window.height, window.width]
        facts |= {"window": place, "context": CONTEXT_RULE}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def pack_files(sites: int, member: PackMember, settings: ArchiveSettings) -> int:
    """Files of the packs of `sites` sites like `member`, the most there can be: with validity if it may have.

    >>> site = PackMember("a", "a.png", None, (512, 512), 3, "uint8", True, 512 * 512)
    >>> pack_files(1_000_000, site, ArchiveSettings())
    18560
    """
    packs, rest = divmod(sites, MOST_SITES)
    return packs * _files_of(MOST_SITES, member, settings) + _files_of(rest, member, settings)


def _files_of(sites: int, member: PackMember, settings: ArchiveSettings) -> int:
    """Files of one pack of so many sites: seal, index, and for each level its group, arrays and shards."""
    if not sites:
        return 0
    shards = [
        -(-sites // in_shard)
        for both in sites_in_shards(sites, member, settings)
        for in_shard in (both[:1] if member.all_valid else both)
    ]
    levels = last_level(member.shape, settings.half_px) + 1
    return 2 + levels + len(shards) + sum(shards)


def sites_in_shards(sites: int, member: PackMember, settings: ArchiveSettings) -> tuple[tuple[int, int], ...]:
    """Of every level of a pack of `sites` sites: how many are in a shard of `data`, and of `valid`."""
    return tuple(
        (
            min(sites, shard_sites(shape, settings.half_px, size)),
            min(sites, shard_sites(shape, settings.half_px, 1)),
        )
        for shape, size in _levels(member, settings)
    )


def _levels(member: PackMember, settings: ArchiveSettings) -> Iterator[tuple[tuple[int, int], int]]:
    """Rows and columns of every level, and the bytes of a pixel, without validity."""
    size = member.bands * np.dtype(member.dtype).itemsize
    for level in range(last_level(member.shape, settings.half_px) + 1):
        yield level_shape(member.shape, level), size


def pack_bytes(plan: PackPlan, settings: ArchiveSettings) -> int:
    """The most memory that packing takes, in bytes, known before it starts.

    On top of what a process has anyway, GDAL's cache of blocks included. It is: a shard of every level and
    array being filled, the two largest of them being written with their compressed copies, and the
    decoded pixels of one site.
    """
    member = plan.members[0]
    counts = sites_in_shards(len(plan.members), member, settings)
    shards = [
        count * math.prod(shape) * bytes_each
        for both, (shape, size) in zip(counts, _levels(member, settings), strict=True)
        for count, bytes_each in zip(both, (size, 0 if member.all_valid else 1), strict=True)
    ]
    written = 2 * sum(sorted(shards)[-2:])
    return sum(shards) + written + _decoding_bytes(member, settings)


def _decoding_bytes(member: PackMember, settings: ArchiveSettings) -> int:
    """Of one site: its pixels and validity in a few copies; on a canvas what `fit` works on."""
    pixel = member.bands * np.dtype(member.dtype).itemsize + 1
    if settings.canvas_px is None:
        return 4 * math.prod(member.shape) * pixel
    cells = 4 * math.prod(member.shape) * member.bands * 8  # at up to twice the canvas' resolution, floats
    return SHARED_BYTES + 8 * STRIP_BYTES + 3 * cells
