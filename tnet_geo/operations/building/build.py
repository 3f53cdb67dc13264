"""The job that builds an archive: every scene of a manifest becomes a sealed pyramid, or a reason."""

from __future__ import annotations

import csv
import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from distributed import Client
from pydantic import ValidationError

from tnet_geo.errors import Incomplete, SceneUnwritable, TnetGeoError, UsageError
from tnet_geo.imagery.fingerprint import DigestOf
from tnet_geo.imagery.manifest import Manifest, read_manifest
from tnet_geo.operations.building.plan import TASK_VALUES, Jobs, crew_of, items_of, plan_jobs, survey
from tnet_geo.operations.building.tasks import (
    Outcome,
    Place,
    SplitScene,
    build_group,
    build_pack,
    peak_bytes,
    worth_another_try,
)
from tnet_geo.operations.cluster import Task, cluster, outcome, run_graph
from tnet_geo.pyramid.archive import SETTINGS_FILE, Archive, create_archive
from tnet_geo.pyramid.build import SceneRecord
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.pack_writer import PackOutcome
from tnet_geo.pyramid.packs import PackPlan
from tnet_geo.pyramid.plan import SceneHeader
from tnet_geo.pyramid.sealing import sweep_drafts
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.pyramid.store import Store, open_store

__all__ = ["BuildFailure", "BuildReport", "archive_there", "build_archive", "settings_of"]

Progress = Callable[[int, int], None]
"""Called with the scenes that are done and all that are selected."""


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """A scene that has no pyramid, and the reason in one sentence."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `scenes` = `built` + `skipped` + the number of `set_aside`."""

    archive: str
    """The archive's folder, absolute, or its address."""
    scenes: int
    """On a canvas: sites."""
    built: int
    skipped: int
    """Sealed already, from the same bytes and with the same settings."""
    set_aside: tuple[BuildFailure, ...]
    seconds: float
    bytes_written: int
    memory_planned: int
    """Bytes: the most that a worker was expected to take; 0 if nothing was built."""
    memory_peak: int
    """Bytes: the most that a worker did take, where it lived to the end and its system says so; else 0."""

    @property
    def exit_code(self) -> Literal[0, 3]:
        """0 if every scene has its pyramid, 3 if some are set aside."""
        return 3 if self.set_aside else 0


@dataclass
class _Ledger:
    """What has become of the scenes so far."""

    total: int
    progress: Progress | None
    records: dict[str, SceneRecord] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    bytes_written: int = 0

    def enter(self, scene_id: str, outcome: Outcome | str) -> None:
        """Take in a record, or the reason why there is none."""
        if isinstance(outcome, SceneRecord):
            self.records[scene_id] = outcome
            self.bytes_written += outcome.bytes_written
        elif isinstance(outcome, TnetGeoError | str):
            self.reasons[scene_id] = str(outcome)
        else:
            self.reasons[scene_id] = f"{type(outcome).__name__}: {outcome}"
        if self.progress is not None:
            self.progress(len(self.records) + len(self.reasons), self.total)


def settings_of(half_px: int, codec: str, *, packs: bool, canvas: str) -> ArchiveSettings:
    """The settings of an archive. Raises: UsageError."""
    store = "packs" if packs else "scenes"
    try:
        return ArchiveSettings.model_validate(
            {"half_px": half_px, "codec": codec, "store": store, "canvas": canvas}
        )
    except ValidationError as error:
        wrong = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise UsageError(f"An archive cannot be built with these settings ({wrong}).") from error


def build_archive(  # noqa: PLR0913 - as many as the command has options
    manifest: str | Path | Manifest,
    out: str | Path,
    *,
    half_px: int = 112,
    workers: int | None = None,
    memory: str | int | None = None,
    scheduler: str | None = None,
    codec: Literal["fast", "interop"] = "fast",
    packs: bool = False,
    canvas: str = "native",
    source_digest: DigestOf = "content",
    progress: Progress | None = None,
) -> BuildReport:
    """Build a sealed pyramid of every scene of `manifest` in the archive `out`, on a Dask cluster.

    `out` is a folder or s3://bucket/prefix. What is sealed already from the same bytes is left alone; if
    that is all, no cluster starts. Scenes that cannot be read or written are set aside, with their
    reasons in `out`/failed.csv. Killed at any moment and started again, the job ends in the same pyramids.

    `packs` gathers small scenes in shared arrays. `canvas` "fit:N" makes every site, with its context, a
    square of N pixels, packed. `memory` is what one worker may take, by default its share of the
    machine's. `source_digest` "etag" takes size and ETag of remote sources for their bytes.

    >>> report = build_archive("sites.parquet", "pyramids", half_px=16, workers=1)
    >>> report.built, report.exit_code
    (36, 0)

    Raises:
        InvalidManifest, ArchiveMismatch, InvalidArchive, OutputExists, PlaceUnusable, TooLittleMemory:
            before anything is written.
        UsageError: an option is impossible, no scheduler answers, or its cluster has other versions.
        Incomplete: the scenes do not add up.
    """
    started = time.monotonic()
    table = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    settings = settings_of(half_px, codec, packs=packs, canvas=canvas)
    items = items_of(table, settings)
    archive = archive_there(out, settings)
    found = survey(items, archive, settings, source_digest)
    ledger = _Ledger(len({item.scene_id for item in items}), progress)
    planned = peak = 0
    with ExitStack() as stack:
        jobs = None
        if found.waiting:
            client = stack.enter_context(cluster(None, scheduler)) if scheduler else None
            crew = crew_of(client, workers, memory)
            jobs = plan_jobs(found, settings, crew)
        archive = archive or create_archive(out, settings)
        _sweep(archive.store)
        for scene_id, record in found.records.items():
            ledger.enter(scene_id, record)
        for scene_id, reason in found.reasons.items():
            ledger.enter(scene_id, reason)
        if jobs is not None and (jobs.groups or jobs.splits or jobs.packs):
            client = client or stack.enter_context(cluster(crew.workers, None, crew.memory_bytes))
            place = Place(archive.store, settings, source_digest)
            _Build(client, place, ledger).run(jobs)
            planned, peak = jobs.memory_bytes, _peak(client)
    return _report(archive, ledger, time.monotonic() - started, planned, peak)


def archive_there(out: str | Path, settings: ArchiveSettings) -> Archive | None:
    """The archive that is at `out` already; None if there is none.

    Raises: ArchiveMismatch, InvalidArchive, PlaceUnusable.
    """
    store = open_store(out)
    return None if store.size(SETTINGS_FILE) is None else create_archive(out, settings)


class _Build:
    """The tasks of one build, and what becomes of those that fail."""

    def __init__(self, client: Client, place: Place, ledger: _Ledger) -> None:
        self._client, self._place, self._ledger = client, place, ledger
        self._broken: list[list[SceneHeader] | PackPlan] = []
        """Tasks that did not end: what broke them is found by building their items in smaller ones."""
        self._again: list[tuple[SceneHeader, Outcome]] = []
        """Scenes that may succeed when nothing else is under way."""

    def run(self, jobs: Jobs) -> None:
        """Run all tasks, large scenes first; then what broke, one by one; then what may succeed alone."""
        run_graph(self._client, self._tasks(jobs.splits, jobs.packs, jobs.groups))
        while self._broken:
            broken, self._broken = self._broken, []
            packs = [half for plan in broken if isinstance(plan, PackPlan) for half in plan.halves()]
            scenes = [[scene] for group in broken if isinstance(group, list) for scene in group]
            run_graph(self._client, self._tasks([], packs, scenes))
        self._alone()

    def _tasks(
        self,
        splits: Iterable[tuple[SceneHeader, int]],
        packs: Iterable[PackPlan],
        groups: Iterable[list[SceneHeader]],
    ) -> Iterator[Task]:
        # What takes longest and cannot be split begins first.
        groups = deque(groups)
        while groups and groups[0][0].values > TASK_VALUES:
            yield self._group_task(groups.popleft(), self._entered)
        for header, level in splits:
            yield from SplitScene(header, level, self._place, partial(self._entered, header)).tasks()
        for plan in packs:
            yield Task(build_pack, (plan, self._place), partial(self._pack_done, plan))
        for group in groups:
            yield self._group_task(group, self._entered)

    def _group_task(
        self, group: list[SceneHeader], entered: Callable[[SceneHeader, str, Outcome], None]
    ) -> Task:
        pairs = [(header.scene_id, header.source) for header in group]
        by_id = {header.scene_id: header for header in group}

        def on_done(future: Any) -> None:
            result = outcome(future)
            if not isinstance(result, Exception):
                for scene_id, one in result:
                    entered(by_id[scene_id], scene_id, one)
            elif len(group) > 1:
                self._broken.append(group)
            else:
                entered(group[0], group[0].scene_id, result)

        return Task(build_group, (pairs, self._place), on_done)

    def _entered(self, header: SceneHeader, scene_id: str, result: Outcome) -> None:
        if isinstance(result, Exception) and worth_another_try(result):
            self._again.append((header, result))
        else:
            self._ledger.enter(scene_id, result)

    def _pack_done(self, plan: PackPlan, future: Any) -> None:
        result = outcome(future)
        if isinstance(result, PackOutcome):
            self._ledger.bytes_written += result.bytes_written
            for record in result.packed:
                known = self._ledger.records.get(record.scene_id)
                if known is None:
                    done = SceneRecord(record.scene_id, record.digest, record.skipped, bytes_written=0)
                    self._ledger.enter(record.scene_id, done)
            for scene_id, reason in result.set_aside:
                self._ledger.enter(scene_id, reason)
        elif len(plan.members) > 1:
            self._broken.append(plan)
        else:
            self._ledger.enter(plan.members[0].scene_id, result)

    def _alone(self) -> None:
        """Scenes for which there was no room beside others, the smallest first; those whose worker died."""
        full: Outcome | None = None
        for header, failure in sorted(self._again, key=lambda one: (one[0].values, one[0].scene_id)):
            if full is not None and isinstance(failure, SceneUnwritable):
                self._ledger.enter(header.scene_id, failure)  # a smaller one did not fit
                continue
            ended: dict[str, Outcome] = {}
            task = self._group_task([header], partial(_keep, ended))
            run_graph(self._client, [task])
            result = ended[header.scene_id]
            self._ledger.enter(header.scene_id, result)
            if isinstance(result, SceneUnwritable):
                full = result


def _keep(ended: dict[str, Outcome], _: SceneHeader, scene_id: str, result: Outcome) -> None:
    ended[scene_id] = result


def _peak(client: Client) -> int:
    """The most memory that a worker had, in bytes."""
    return max((peak for peak in client.run(peak_bytes).values() if peak), default=0)


def _sweep(store: Store) -> None:
    """Remove what dead processes left."""
    for home in ("scenes", "packs"):
        sweep_drafts(store.at(home))


def _report(archive: Archive, ledger: _Ledger, seconds: float, planned: int, peak: int) -> BuildReport:
    """Add up, and leave the catalogue and the list of failures as they must be."""
    _sweep(archive.store)  # again: workers of a killed run may have outlived its start
    append_catalogue(archive.store, ledger.records)
    failures = tuple(BuildFailure(item, ledger.reasons[item]) for item in sorted(ledger.reasons))
    _write_failures(archive.store, failures)
    if len(ledger.records) + len(failures) != ledger.total:
        raise Incomplete(archive.place, ledger.total, len(ledger.records), len(failures))
    skipped = sum(record.skipped for record in ledger.records.values())
    return BuildReport(
        archive=archive.place,
        scenes=ledger.total,
        built=len(ledger.records) - skipped,
        skipped=skipped,
        set_aside=failures,
        seconds=seconds,
        bytes_written=ledger.bytes_written,
        memory_planned=planned,
        memory_peak=peak,
    )


def _write_failures(store: Store, failures: Sequence[BuildFailure]) -> None:
    """A table of item and reason; none where nothing is set aside."""
    if not failures:
        store.remove("failed.csv")
        return
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(("item", "reason"))
    rows.writerows((failure.item, failure.reason) for failure in failures)
    store.write("failed.csv", text.getvalue().encode())
