"""What a build would do, and about how long it would take: said before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dask.system import CPU_COUNT

from tnet_geo.imagery.fingerprint import DigestOf
from tnet_geo.imagery.manifest import Manifest, read_manifest
from tnet_geo.operations.building.build import BuildFailure, archive_there, settings_of
from tnet_geo.operations.building.plan import Crew, Jobs, crew_of, items_of, plan_jobs, survey
from tnet_geo.operations.building.rate import Rate, pack_rate, scene_rate, values_of
from tnet_geo.operations.cluster import cluster
from tnet_geo.pyramid.packs import pack_files
from tnet_geo.pyramid.plan import SceneHeader, scene_files, subtrees
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.units import bytes_text, seconds_text

__all__ = ["BuildPlan", "plan_archive"]


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What `build_archive` would do with the same arguments. Bytes and seconds are estimates."""

    scenes: int
    """On a canvas: sites."""
    skipped: int
    """Sealed already, from the same bytes and with the same settings."""
    set_aside: tuple[BuildFailure, ...]
    """What is known from headers to have no pyramid; others may prove to be damaged."""
    tasks: int
    split_scenes: int
    """Scenes that are more than one task."""
    packs: int
    values: int
    """Pixels times bands to be decoded."""
    bytes_read: int
    """From the files of the sources: once for their pixels, and once for their digest."""
    bytes_written: int
    files: int
    """At most: levels on which every pixel proves to be valid keep no validity."""
    workers: int
    memory_peak: int
    """Bytes of one worker at most."""
    memory_limit: int
    """Bytes that one worker may take."""
    seconds: float | None
    """Without the start of the workers; None if nothing could be measured. From the rate at which one process
    decodes and builds parts of the manifest's own sources here, and the processor time that it takes."""

    @property
    def exit_code(self) -> Literal[0, 3]:
        """0 if every scene can be expected to have its pyramid, 3 if some are set aside."""
        return 3 if self.set_aside else 0

    def lines(self) -> list[str]:
        """For people."""
        rows = (
            ("scenes", f"{self.scenes}, of them {self.skipped} sealed already"),
            ("tasks", f"{self.tasks}; {self.split_scenes} scenes are split, {self.packs} packs"),
            ("read", bytes_text(self.bytes_read)),
            ("written", f"{bytes_text(self.bytes_written)} in at most {self.files} files"),
            ("memory", f"{bytes_text(self.memory_peak)} of {bytes_text(self.memory_limit)} in each worker"),
            ("workers", str(self.workers)),
            ("time", "unknown" if self.seconds is None else f"about {seconds_text(self.seconds)}"),
        )
        aside = [f"set aside {failure.item}: {failure.reason}" for failure in self.set_aside]
        return [f"{name:<8} {text}" for name, text in rows] + aside


def plan_archive(  # noqa: PLR0913 - as many as the command has options
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
) -> BuildPlan:
    """What `build_archive` would do with the same arguments; nothing is written at `out`.

    The time comes from a rate that is measured here, for a few seconds, by decoding and building parts
    of the sources in a temporary folder.

    Raises: the same as `build_archive` before it writes.
    """
    table = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    settings = settings_of(half_px, codec, packs=packs, canvas=canvas)
    items = items_of(table, settings)
    found = survey(items, archive_there(out, settings), settings, source_digest)
    with ExitStack() as stack:
        client = stack.enter_context(cluster(None, scheduler)) if scheduler else None
        crew = crew_of(client, workers, memory)
        jobs = plan_jobs(found, settings, crew)
    headers = [header for group in jobs.groups for header in group] + [header for header, _ in jobs.splits]
    members = [member for plan in jobs.packs for member in plan.members]
    work = [
        (scene_rate(headers, settings), sum(header.values for header in headers)),
        (pack_rate(members, settings), sum(map(values_of, members))),
    ]
    measured = [(rate, values) for rate, values in work if rate is not None]
    reads = 2 if source_digest == "content" else 1
    return BuildPlan(
        scenes=len({item.scene_id for item in items}),
        skipped=len(found.records),
        set_aside=tuple(BuildFailure(item, found.reasons[item]) for item in sorted(found.reasons)),
        tasks=len(jobs.groups) + len(jobs.packs) + sum(_tasks_of(*split, settings) for split in jobs.splits),
        split_scenes=len(jobs.splits),
        packs=len(jobs.packs),
        values=sum(values for _, values in work),
        bytes_read=round(sum(reads * rate.read * values for rate, values in measured)),
        bytes_written=round(sum(rate.written * values for rate, values in measured)),
        files=sum(scene_files(header, settings) for header in headers)
        + sum(pack_files(len(plan.members), plan.members[0], settings) for plan in jobs.packs),
        workers=crew.workers,
        memory_peak=jobs.memory_bytes,
        memory_limit=crew.memory_bytes,
        seconds=_seconds(measured, jobs, crew),
    )


def _tasks_of(header: SceneHeader, level: int, settings: ArchiveSettings) -> int:
    """Tasks of a split scene: its subtrees, its digest, those that join four, and the seal."""
    count = 1
    while (here := len(subtrees(header.shape, level, settings))) > 1:
        count += here
        level += 1
    return count + 1


def _seconds(measured: Sequence[tuple[Rate, int]], jobs: Jobs, crew: Crew) -> float | None:
    """The longest of: all work over all workers, over all cores, and the largest task that is not split."""
    if not measured:
        return None
    cores = CPU_COUNT if crew.machine_bytes is not None else crew.workers
    over_workers = sum(rate.wall * values for rate, values in measured) / crew.workers
    over_cores = sum(rate.cpu * values for rate, values in measured) / cores
    longest = max((sum(header.values for header in group) for group in jobs.groups), default=0)
    return max(over_workers, over_cores, longest * measured[0][0].wall)
