"""Partitions of sites: which go together, and what names the part that each becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from tnet_geo.errors import SceneMissing, SetAside
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.pyramid import CogArchive, SceneArchive

__all__ = ["Partition", "cut", "partitions_of"]

SURVEYS_AT_ONCE = 16
"""Scenes that are asked for what names them; far ones take their time to answer."""
UNKNOWN_LOOKS = 16
"""Taken for a site whose size nobody knows before its COG is opened, which is left to the workers."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Sites that one task answers."""

    name: str
    """Made of everything that the answers depend on."""
    sites: tuple[Site, ...]
    looks: int = 0
    """At most."""


@dataclass(frozen=True, slots=True)
class _Scene:
    digest: str | None
    """None: there is no such scene, or nobody can say what it holds."""
    shape: tuple[int, int] | None
    """Rows and columns; None: not known without opening it."""


def partitions_of(
    sites: Sequence[Site],
    archive: SceneArchive,
    names: Sequence[str],
    *,
    looks_of: Callable[[Window], int],
    most_looks: int,
) -> list[Partition]:
    """Sites in the manifest's order, in groups of up to `most_looks` looks; a site of more is a group alone.

    `names`: what the answers of all groups depend on. `looks_of`: how many looks a window can take.
    A scene that changes, and sites that come at the end, change their own group alone: see `cut`.

    Raises:
        PlaceUnusable: the archive does not answer.
    """
    sites = [_adopted(site, archive) for site in sites]
    scenes = _survey(archive, list(dict.fromkeys(site.scene_id for site in sites)))
    known: dict[Window, int] = {}

    def looks(site: Site) -> int:
        shape = scenes[site.scene_id].shape
        window = site.window or (Window(0, 0, *shape) if shape else None)
        if window is None:
            return min(UNKNOWN_LOOKS, most_looks)
        if window not in known:
            known[window] = looks_of(window)
        return known[window]

    head = hashlib.sha256(json.dumps(list(names)).encode())
    counts = [looks(site) for site in sites]
    found = []
    for group in cut(counts, most_looks):
        members = tuple(sites[group])
        digest = head.copy()
        digest.update(json.dumps([_facts(site, scenes[site.scene_id].digest) for site in members]).encode())
        found.append(Partition(digest.hexdigest()[:16], members, sum(counts[group])))
    return found


def cut(looks: Sequence[int], most: int) -> Iterator[slice]:
    """Groups of neighbours of up to `most` looks each: blocks of `most` sites, halved until that holds.

    Blocks begin at multiples of `most`, so that a site of other looks moves no border beyond its block.

    >>> [(group.start, group.stop) for group in cut([1, 1, 1, 1, 9, 1, 1], 4)]
    [(0, 4), (4, 5), (5, 6), (6, 7)]
    """
    sums = [0]
    for count in looks:
        sums.append(sums[-1] + count)

    def halved(start: int, size: int) -> Iterator[slice]:
        stop = min(start + size, len(looks))
        if stop <= start:
            return
        if stop - start == 1 or sums[stop] - sums[start] <= most:
            yield slice(start, stop)
            return
        half = size // 2
        yield from halved(start, half)
        yield from halved(start + half, size - half)

    for start in range(0, len(looks), most):
        yield from halved(start, most)


def _survey(archive: SceneArchive, scenes: Sequence[str]) -> dict[str, _Scene]:
    with ThreadPoolExecutor(SURVEYS_AT_ONCE) as threads:
        chunks = [*range(0, len(scenes), 64), len(scenes)]
        groups = [scenes[start:stop] for start, stop in pairwise(chunks)]
        found = threads.map(lambda group: [_scene(archive, scene_id) for scene_id in group], groups)
        return dict(zip(scenes, (scene for group in found for scene in group), strict=True))


def _scene(archive: SceneArchive, scene_id: str) -> _Scene:
    """What a scene's seal says, by one request; of a COG only what names it: its header comes later."""
    if not isinstance(archive, CogArchive):
        try:
            spec = archive.reader(scene_id).spec
        except SetAside:
            pass
        else:
            return _Scene(spec.digest, spec.shape)
    return _Scene(archive.digest(scene_id), None)


def _adopted(site: Site, archive: SceneArchive) -> Site:
    """The site as the archive keeps it; one that it lacks is left as it is, and set aside by its walk."""
    try:
        return archive.adopt(site)
    except SceneMissing:
        return site


def _facts(site: Site, digest: str | None) -> tuple[object, ...]:
    window = site.window
    corners = None if window is None else (window.row, window.col, window.height, window.width)
    return site.site_id, site.scene_id, digest, corners, site.label, site.split, site.date
