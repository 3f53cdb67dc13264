"""The job that builds an archive: every scene of a manifest becomes a sealed pyramid, or a reason."""

from __future__ import annotations

import csv
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tnet_geo.errors import Incomplete, InvalidManifest, SetAside, SourceUnreadable, UsageError
from tnet_geo.imagery.manifest import Manifest, read_manifest
from tnet_geo.imagery.raster import open_raster
from tnet_geo.operations.cluster import cluster, run_tasks, threads_of
from tnet_geo.pyramid.archive import Archive, create_archive
from tnet_geo.pyramid.build import SceneRecord, draft_scene, scene_digest
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.sealing import seal_all, sweep_drafts
from tnet_geo.pyramid.settings import ArchiveSettings

__all__ = ["BuildFailure", "BuildReport", "build_archive"]

Progress = Callable[[int, int], None]
"""Called with the scenes that are done and all that are selected."""

Scene = tuple[str, str]
"""scene_id and source."""

TASK_VALUES = 40_000_000
"""Pixel values (pixels times bands) that keep one process busy for about a second."""
GROUPS_PER_WORKER = 8
"""At least so many tasks for each worker, where there are scenes enough, so that none is left idle."""
PROBES = 8
"""Sources whose headers or bytes are read at once before the cluster starts."""


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """A scene that has no pyramid, and the reason in one sentence."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `scenes` = `built` + `skipped` + the number of `set_aside`."""

    archive: Path
    scenes: int
    built: int
    skipped: int
    """Sealed already, from the same bytes and with the same settings."""
    set_aside: tuple[BuildFailure, ...]
    seconds: float
    bytes_written: int

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

    def enter(self, scene_id: str, outcome: SceneRecord | str) -> None:
        """Take in a record, or the reason why there is none."""
        if isinstance(outcome, SceneRecord):
            self.records[scene_id] = outcome
        else:
            self.reasons[scene_id] = outcome
        if self.progress is not None:
            self.progress(len(self.records) + len(self.reasons), self.total)


def build_archive(
    manifest: str | Path | Manifest,
    out: str | Path,
    *,
    half_px: int = 112,
    workers: int | None = None,
    scheduler: str | None = None,
    codec: Literal["fast", "interop"] = "fast",
    progress: Progress | None = None,
) -> BuildReport:
    """Build a sealed pyramid of every scene of `manifest` in the archive `out`, on a Dask cluster.

    What is sealed already from the same bytes is left alone; if that is all, no cluster starts.
    Scenes that cannot be read are set aside, with their reasons in `out`/failed.csv. Killed at any
    moment and started again, the job ends in the same pyramids.

    >>> report = build_archive("sites.parquet", "pyramids", half_px=16, workers=1)
    >>> report.built, report.exit_code
    (36, 0)

    Raises:
        InvalidManifest, ArchiveMismatch, InvalidArchive, OutputExists: before anything is written.
        UsageError: `half_px` or `codec` is impossible, or no scheduler answers.
        Incomplete: the scenes do not add up.
    """
    started = time.monotonic()
    table = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    scenes = _checked(table)
    try:
        settings = ArchiveSettings(half_px=half_px, codec=codec)
    except ValidationError as error:
        wrong = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise UsageError(f"An archive cannot be built with these settings ({wrong}).") from error
    archive = create_archive(out, settings)
    archive.scenes.mkdir(exist_ok=True)
    sweep_drafts(archive.scenes)
    ledger = _Ledger(len(scenes), progress)
    waiting = _not_sealed(scenes, archive, ledger)
    if waiting:
        with cluster(workers, scheduler) as client:
            groups = _groups(waiting, threads_of(client))
            task = partial(_build_group, folder=archive.path, settings=settings)
            while groups:
                suspects: list[Sequence[Scene]] = []
                run_tasks(client, task, groups, on_done=partial(_enter_group, ledger, suspects))
                # What broke a whole task is found by building its scenes one by one.
                groups = [[scene] for group in suspects for scene in group]
    return _report(archive, ledger, time.monotonic() - started)


def _checked(manifest: Manifest) -> Mapping[str, str]:
    """The scenes of a manifest by id. Raises: InvalidManifest."""
    scenes = manifest.scenes()
    for scene_id in scenes:
        if not re.fullmatch(r"\w[\w.-]*", scene_id, re.ASCII):
            remedy = "use letters, digits, '_', '-' and '.', beginning with a letter or digit"
            raise InvalidManifest(str(manifest.path), f"has the scene_id {scene_id!r}", remedy)
    return scenes


def _not_sealed(scenes: Mapping[str, str], archive: Archive, ledger: _Ledger) -> list[Scene]:
    """Scenes that need building; the others are entered as skipped, or as set aside."""

    def outcome(scene: Scene) -> SceneRecord | str | None:
        scene_id, source = scene
        sealed = archive.digest(scene_id)
        if sealed is None:
            return None
        try:
            same = scene_digest(source, archive.settings) == sealed
        except SourceUnreadable as error:
            return str(error)
        return SceneRecord(scene_id, sealed, skipped=True, bytes_written=0) if same else None

    waiting = []
    with ThreadPoolExecutor(PROBES) as probes:
        for scene, found in zip(scenes.items(), probes.map(outcome, scenes.items()), strict=True):
            if found is None:
                waiting.append(scene)
            else:
                ledger.enter(scene[0], found)
    return waiting


def _groups(scenes: Sequence[Scene], workers: int) -> list[Sequence[Scene]]:
    """Scenes as tasks of about a second, the largest first: small ones share a task."""
    with ThreadPoolExecutor(PROBES) as probes:
        values = dict(zip(scenes, probes.map(_values, scenes), strict=True))
    limit = min(TASK_VALUES, sum(values.values()) / (GROUPS_PER_WORKER * workers))
    groups: list[list[Scene]] = []
    room = 0.0
    for scene in sorted(scenes, key=lambda scene: -values[scene]):
        if room < values[scene] or not groups:
            groups.append([])
            room = limit
        groups[-1].append(scene)
        room -= values[scene]
    return list(groups)


def _values(scene: Scene) -> int:
    """Pixel values of a source; none where it cannot be opened, which its task will report."""
    try:
        with open_raster(scene[1]) as raster:
            return raster.info.bands * raster.info.shape[0] * raster.info.shape[1]
    except SourceUnreadable:
        return 0


def _build_group(
    group: Sequence[Scene], *, folder: Path, settings: ArchiveSettings
) -> list[tuple[str, SceneRecord | str]]:
    """In a worker: draft every scene, then flush and seal them together."""
    outcomes: list[tuple[str, SceneRecord | str]] = []
    drafts = []
    try:
        for scene_id, source in group:
            try:
                draft = draft_scene(source, scene_id, folder, settings)
            except SetAside as error:
                outcomes.append((scene_id, str(error)))
                continue
            outcomes.append((scene_id, draft.record))
            if not draft.record.skipped:
                drafts.append((draft.folder, draft.record.digest))
        seal_all(drafts)
    except BaseException:
        for path, _ in drafts:
            shutil.rmtree(path, ignore_errors=True)
        raise
    return outcomes


def _enter_group(
    ledger: _Ledger,
    suspects: list[Sequence[Scene]],
    group: Sequence[Scene],
    result: list[tuple[str, SceneRecord | str]] | Exception,
) -> None:
    """Take in what became of one task."""
    if not isinstance(result, Exception):
        for scene_id, outcome in result:
            ledger.enter(scene_id, outcome)
    elif len(group) > 1:
        suspects.append(group)
    else:
        ledger.enter(group[0][0], f"{type(result).__name__}: {result}")


def _report(archive: Archive, ledger: _Ledger, seconds: float) -> BuildReport:
    """Add up, and leave the catalogue and the list of failures as they must be."""
    sweep_drafts(archive.scenes)  # again: workers of a killed run may have outlived its start
    append_catalogue(archive.path, ledger.records)
    failures = tuple(BuildFailure(item, ledger.reasons[item]) for item in sorted(ledger.reasons))
    _write_failures(archive.path / "failed.csv", failures)
    if len(ledger.records) + len(failures) != ledger.total:
        raise Incomplete(str(archive.path), ledger.total, len(ledger.records), len(failures))
    skipped = sum(record.skipped for record in ledger.records.values())
    return BuildReport(
        archive=archive.path,
        scenes=ledger.total,
        built=len(ledger.records) - skipped,
        skipped=skipped,
        set_aside=failures,
        seconds=seconds,
        bytes_written=sum(record.bytes_written for record in ledger.records.values()),
    )


def _write_failures(path: Path, failures: Sequence[BuildFailure]) -> None:
    """A table of item and reason; no file where nothing is set aside."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("item", "reason"))
        rows.writerows((failure.item, failure.reason) for failure in failures)
    draft.replace(path)
