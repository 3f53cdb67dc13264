"""What workers do to build an archive, and how tasks of one scene follow from each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distributed import KilledWorker

from tnet_geo.errors import SceneUnwritable, SetAside
from tnet_geo.imagery.fingerprint import DigestOf
from tnet_geo.operations.cluster import Task, outcome
from tnet_geo.pyramid.assembler import Shard
from tnet_geo.pyramid.build import (
    Begun,
    Drafted,
    Quarter,
    SceneRecord,
    begin_scene,
    build_subtree,
    draft_scene,
    finish_scene,
    hash_scene,
    join_subtrees,
    seal_scenes,
)
from tnet_geo.pyramid.pack_writer import PackOutcome, write_pack
from tnet_geo.pyramid.packs import PackPlan
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.plan import SceneHeader, check_writes, shards_at, subtrees
from tnet_geo.pyramid.sealing import abandon
from tnet_geo.pyramid.settings import ArchiveSettings

__all__ = ["Outcome", "Place", "SplitScene", "build_group", "build_pack", "peak_bytes", "worth_another_try"]

log = logging.getLogger(__name__)

Outcome = SceneRecord | Exception
"""What became of a scene."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where all tasks of a build write, and how."""

    store: Store
    settings: ArchiveSettings
    digest_of: DigestOf


def worth_another_try(failure: Exception) -> bool:
    """Whether an item may succeed alone: another one filled the disk, or broke the worker of both."""
    return isinstance(failure, SceneUnwritable | KilledWorker)


def build_group(group: Sequence[tuple[str, str]], place: Place) -> list[tuple[str, Outcome]]:
    """In a worker: draft every scene (id and source), then flush and seal them together."""
    outcomes: list[tuple[str, Outcome]] = []
    drafts: list[Drafted] = []
    try:
        for scene_id, source in group:
            try:
                drafted = draft_scene(source, scene_id, place.store, place.settings, place.digest_of)
            except SetAside as error:
                outcomes.append((scene_id, error))
                continue
            if isinstance(drafted, Drafted):
                drafts.append(drafted)
            else:
                outcomes.append((scene_id, drafted))
        outcomes += [(one.record.scene_id, _sealed(one)) for one in _unsealed(drafts)]
    except BaseException:
        for one in drafts:
            abandon(one.draft)
        raise
    return outcomes + [(one.record.scene_id, one.record) for one in drafts]


def _unsealed(drafts: list[Drafted]) -> list[Drafted]:
    """Seal all at once; if that fails, those that are left to be sealed one by one."""
    try:
        seal_scenes(drafts)
    except SetAside as error:
        log.debug("drafts are sealed one by one: %s", error)
        one_by_one = list(drafts)
        drafts.clear()
        return one_by_one
    return []


def _sealed(one: Drafted) -> Outcome:
    """The record of a draft that is sealed now, or why it cannot be: then it is gone."""
    try:
        seal_scenes([one])
    except SetAside as error:
        abandon(one.draft)
        return error
    return one.record


def build_pack(plan: PackPlan, place: Place) -> PackOutcome:
    """In a worker: write one pack."""
    return write_pack(plan, place.store, place.settings, place.digest_of)


def seal_split(begun: Begun, digest: str, *quarters: Quarter) -> SceneRecord:
    """In a worker: put the last subtrees of a scene together, and seal it."""
    whole = quarters[0]
    if whole.shard != begun.top:
        whole = join_subtrees(begun, begun.top, quarters)
    drafted = finish_scene(begun, whole, digest)
    seal_scenes([drafted])
    return drafted.record


def join_split(begun: Begun, top: Shard, *quarters: Quarter) -> Quarter:
    """In a worker: put four subtrees together."""
    return join_subtrees(begun, top, quarters)


def peak_bytes() -> int | None:
    """In a worker: the most memory that this process ever had resident; None where Linux does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - no file of ours
            return int(status.read().split("VmHWM:")[1].split()[0]) << 10
    except (OSError, IndexError, ValueError):
        return None


@dataclass
class SplitScene:
    """One scene as many tasks: subtrees, parents that join four, and the seal. Lives where the build runs.

    When one task fails, no more of them are begun; when the last one under way has ended, the draft is
    removed and the scene has its reason.
    """

    header: SceneHeader
    level: int
    place: Place
    entered: Callable[[str, Outcome], None]
    """Called once, with what became of the scene."""
    _begun: Begun | None = None
    _failure: Exception | None = None
    _under_way: int = 0
    _done: dict[Shard, Any] = field(default_factory=dict)
    _digest: Any = None

    def tasks(self) -> Iterator[Task]:
        """The scene's tasks that wait for nothing. Its draft is begun when the first one is taken."""
        header, settings = self.header, self.place.settings
        tops = subtrees(header.shape, self.level, settings)
        check_writes(header.shape, tops, settings)
        try:
            self._begun = begin_scene(
                header.source, header.scene_id, self.place.store, settings, self.place.digest_of
            )
        except SetAside as error:
            self.entered(header.scene_id, error)
            return
        yield self._task(hash_scene, (self._begun,), self._hashed)
        for top in tops:
            if self._failure is not None:
                return
            yield self._task(build_subtree, (self._begun, top), partial(self._joined, top))

    def _task(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        taken: Callable[[Any], Sequence[Task]],
    ) -> Task:
        self._under_way += 1

        def on_done(future: Any) -> Sequence[Task]:
            self._under_way -= 1
            if self._failure is None:
                self._failure = future.exception()
            if self._failure is None:
                return taken(future)
            self._fail()
            return ()

        return Task(function, arguments, on_done)

    def _hashed(self, future: Any) -> Sequence[Task]:
        self._digest = future
        return self._last()

    def _joined(self, shard: Shard, future: Any) -> Sequence[Task]:
        """A subtree is there: begin its parent if it was the last one of it."""
        self._done[shard] = future
        if shard.level == self._final:
            return self._last()
        parent = shard.parent
        rows, cols = shards_at(self.header.shape, shard.level, self.place.settings)
        children = [
            Shard(shard.level, row, col)
            for row in range(2 * parent.row, min(2 * parent.row + 2, rows))
            for col in range(2 * parent.col, min(2 * parent.col + 2, cols))
        ]
        if not all(child in self._done for child in children):
            return ()
        quarters = [self._done.pop(child) for child in children]
        return [self._task(join_split, (self._begun, parent, *quarters), partial(self._joined, parent))]

    @property
    def _final(self) -> int:
        """The level below the first one that is a single shard."""
        level = self.level
        while shards_at(self.header.shape, level + 1, self.place.settings) != (1, 1):
            level += 1
        return level

    def _last(self) -> Sequence[Task]:
        """The seal, as soon as the digest and the last subtrees are there."""
        tops = sorted(shard for shard in self._done if shard.level == self._final)
        rows, cols = shards_at(self.header.shape, self._final, self.place.settings)
        if self._digest is None or len(tops) < rows * cols:
            return ()
        quarters = [self._done.pop(shard) for shard in tops]
        return [self._task(seal_split, (self._begun, self._digest, *quarters), self._sealed)]

    def _sealed(self, future: Any) -> Sequence[Task]:
        self.entered(self.header.scene_id, outcome(future))
        return ()

    def _fail(self) -> None:
        """Wait for the last task under way: a later write would put its files back."""
        if self._under_way or self._begun is None or self._failure is None:
            return
        abandon(self._begun.draft)
        self._begun = None
        self._done.clear()
        self.entered(self.header.scene_id, self._failure)
