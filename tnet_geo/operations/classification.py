"""The archive job: one answer or one reason per site, over partitions on a Dask cluster."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from distributed import Client
from pyarrow import compute, parquet

from tnet_geo.errors import Incomplete, InvalidManifest, OutputExists, SceneMissing, UsageError
from tnet_geo.grid import Window
from tnet_geo.imagery import Manifest, Site, read_manifest
from tnet_geo.inference import Classifier, load_bundle
from tnet_geo.inference.expectations import Contradiction
from tnet_geo.inference.runtimes import Precision, Runtime
from tnet_geo.operations.cluster import cluster, run_tasks
from tnet_geo.operations.ledger import run_facts
from tnet_geo.pyramid import CogArchive, SceneArchive, cog_manifest, open_scenes
from tnet_geo.results import PredictionRow, RunRecord, finish_run, has_part, write_part
from tnet_geo.results.store import part_files
from tnet_geo.trail import Answer, Failure

__all__ = ["ClassifyReport", "classify"]

DIGESTS_AT_ONCE = 16
"""Scenes that are asked for what names them; far ones take their time to answer."""


@dataclass(frozen=True)
class ClassifyReport:
    """What became of the sites that were selected."""

    results: Path
    run_id: str
    selected: int
    answered: int
    set_aside: int
    """With reasons in RESULTS/failed.csv."""
    tiles_per_site: float
    bytes_per_site: float
    seconds: float

    @property
    def exit_code(self) -> int:
        """0, or 3 where sites were set aside."""
        return 3 if self.set_aside else 0


@dataclass(frozen=True)
class _Job:
    """What workers need to know; small, because it travels with every task."""

    archive: str
    bundle: Path
    results: Path
    run_id: str
    accept: frozenset[Contradiction]
    runtime: Runtime
    precision: Precision

    def classifier(self) -> Classifier:
        """The bundle as the caller wants it asked."""
        return load_bundle(self.bundle, accept=self.accept, runtime=self.runtime, precision=self.precision)


@dataclass(frozen=True)
class _Partition:
    name: str
    sites: tuple[Site, ...]


def classify(  # noqa: PLR0913 - as many as the command has options
    *,
    archive: str | Path,
    manifest: str | Path | Manifest | None = None,
    bundle: str | Path,
    out: str | Path,
    split: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    partition: int = 64,
    accept: Collection[Contradiction] = (),
    runtime: Runtime = "folded",
    precision: Precision = "float32",
) -> ClassifyReport:
    """Answer every site of a manifest, reading only the tiles that its walk looks at.

    `archive` is one of pyramids, or a folder, list or bucket of Cloud-Optimised GeoTIFFs as they are: see
    `open_scenes`. Of those, each is one site where there is no manifest.

    A partition of sites is published whole, under a name made of the digests of its pixels, the bundle
    and its sites: the same call again does only what is missing. Sites that cannot be answered are listed
    with the reason in `out`/failed.csv. So are those whose pixels contradict what the bundle was trained
    on, unless `accept` names the contradiction; an archive that does is refused. `runtime` and
    `precision` say what computes looks, see `Classifier`; they are part of the name, too.

    >>> report = classify(
    ...     archive="archive", manifest="sites.parquet", bundle="runs/first/bundle", out="answers", workers=1
    ... )
    >>> report.answered + report.set_aside == report.selected
    True

    Raises:
        InvalidManifest, InvalidArchive, InvalidBundle, ArchiveMismatch, OutputExists: nothing was written.
        RuntimeUnusable: this machine, or this network, cannot run so.
        UsageError: no scheduler answers, a manifest is missing, or `accept` names no contradiction.
        Incomplete: the parts do not add up to what was selected.
    """
    begun = time.monotonic()
    store = open_scenes(archive)
    table = _manifest(manifest, store)
    sites = table.select(split).sites
    if not sites:
        raise InvalidManifest(table.path, f"has no site in split {split!r}", "select another")
    folder = Path(out).absolute()
    job = _Job(store.place, Path(bundle).absolute(), folder, "", frozenset(accept), runtime, precision)
    classifier = job.classifier()
    classifier.check(store)
    if folder.exists() and (not folder.is_dir() or _foreign(folder)):
        raise OutputExists(str(folder), "it holds no results; name another folder")
    asked = classifier.walk.model_dump(mode="json")
    asked |= {"runtime": classifier.runtime, "accept": sorted(job.accept)}
    names = classifier.bundle.digest, json.dumps(asked)
    partitions = _partitions(sites, store, names, partition)
    job = replace(job, run_id=_digest("run", *(part.name for part in partitions))[:12])
    missing = [part for part in partitions if not has_part(folder, job.run_id, part.name)]
    if missing:
        with cluster(workers, scheduler) as client:
            _compute(job, missing, client)
    took = time.monotonic() - begun
    return _finish(job, classifier, table, settings=asked, split=split, seconds=took)


def _manifest(manifest: str | Path | Manifest | None, archive: SceneArchive) -> Manifest:
    if isinstance(manifest, Manifest):
        return manifest
    if manifest is not None:
        return read_manifest(manifest)
    if not isinstance(archive, CogArchive):
        raise UsageError(f"{archive.place} is an archive of pyramids: name its sites with --manifest.")
    return cog_manifest(archive)


def _foreign(folder: Path) -> bool:
    """Whether a folder holds things, and none of them are results."""
    names = {path.name for path in folder.iterdir()} - {".lock"}  # all that a killed first run may leave
    return bool(names) and not names & {"predictions", "trails"}


def _partitions(
    sites: Sequence[Site], archive: SceneArchive, names: tuple[str, ...], size: int
) -> list[_Partition]:
    """Sites in the manifest's order, each group named by everything that its answers depend on.

    `names`: of that what all groups share.
    """
    sites = [_adopted(site, archive) for site in sites]
    scenes = list(dict.fromkeys(site.scene_id for site in sites))
    with ThreadPoolExecutor(DIGESTS_AT_ONCE) as threads:
        digests = dict(zip(scenes, threads.map(archive.digest, scenes), strict=True))
    found = []
    for start in range(0, len(sites), size):
        group = tuple(sites[start : start + size])
        facts = [
            (
                site.site_id,
                site.scene_id,
                digests[site.scene_id],
                _corners(site.window),
                site.label,
                site.split,
                site.date,
            )
            for site in group
        ]
        name = _digest(*names, json.dumps(facts))
        found.append(_Partition(name[:16], group))
    return found


def _adopted(site: Site, archive: SceneArchive) -> Site:
    """The site as the archive keeps it; one that it lacks is left as it is, and set aside by its walk."""
    try:
        return archive.adopt(site)
    except SceneMissing:
        return site


def _corners(window: Window | None) -> tuple[int, ...] | None:
    return None if window is None else (window.row, window.col, window.height, window.width)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _compute(job: _Job, partitions: Sequence[_Partition], client: Client) -> None:
    """One task per partition; a partition whose task breaks is tried again site by site."""
    broken: list[_Partition] = []

    def take(part: _Partition, result: Exception | None) -> None:
        if result is not None:
            broken.append(part)

    run_tasks(client, partial(_classify_partition, job), partitions, on_done=take)
    for part in broken:
        _rescue(job, part, client)


def _rescue(job: _Job, part: _Partition, client: Client) -> None:
    """Answer the sites of a broken partition one by one, so that one bad site costs only itself."""
    found: dict[str, Answer | Failure] = {}

    def take(site: Site, result: Answer | Failure | Exception) -> None:
        if isinstance(result, Exception):
            cause = " ".join(f"{type(result).__name__}: {result}".split())
            result = Failure(site.site_id, f"Site {site.site_id} broke its task ({cause[:200]}).")
        found[site.site_id] = result

    for site in part.sites:  # one at a time: Dask blames whatever waits on a worker that dies
        run_tasks(client, partial(_answer_one, job), [site], on_done=take)
    _publish(job, part, [found[site.site_id] for site in part.sites])


@lru_cache(maxsize=1)
def _loaded(job: _Job) -> tuple[Classifier, SceneArchive]:
    """Once per worker process."""
    return job.classifier(), open_scenes(job.archive)


def _classify_partition(job: _Job, part: _Partition) -> None:
    """In a worker: walk all sites of a partition, then publish what came out."""
    classifier, archive = _loaded(job)
    _publish(job, part, list(classifier.answer(archive, part.sites)))


def _answer_one(job: _Job, site: Site) -> Answer | Failure:
    classifier, archive = _loaded(job)
    return next(classifier.answer(archive, [site]))


def _publish(job: _Job, part: _Partition, outcomes: Sequence[Answer | Failure]) -> None:
    classifier, archive = _loaded(job)
    sites = {site.site_id: site for site in part.sites}
    rows = [
        _row(outcome, sites[outcome.site_id], archive, classifier.half_px)
        for outcome in outcomes
        if isinstance(outcome, Answer)
    ]
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    write_part(job.results, job.run_id, part.name, rows, failures)


def _row(answer: Answer, site: Site, archive: SceneArchive, half_px: int) -> PredictionRow:
    spec = archive.reader(site.scene_id).spec
    return PredictionRow(
        answer=answer,
        scene_id=site.scene_id,
        window=site.window or Window(0, 0, *spec.shape),
        half_px=half_px,
        expected=site.label,
        split=site.split,
        date=site.date,
        crs=spec.crs,
        transform=spec.transform,
    )


def _finish(
    job: _Job,
    classifier: Classifier,
    table: Manifest,
    *,
    settings: Mapping[str, Any],
    split: str | None,
    seconds: float,
) -> ClassifyReport:
    """Count what is there, write the record, and say it."""
    selected = len(table.select(split))
    rows, failed, tiles, decoded = _counts(job)
    if rows + failed != selected:
        raise Incomplete(job.run_id, selected, rows, failed)
    record = RunRecord(
        id=job.run_id,
        classes=classifier.classes,
        archive=job.archive,
        bundle=str(job.bundle),
        manifest=table.path if "://" in table.path else str(Path(table.path).absolute()),
        split=split,
        selected=selected,
        answered=rows,
        set_aside=failed,
        seconds=round(seconds, 2),
        settings=dict(settings),
        **run_facts(),
    )
    finish_run(job.results, record)  # again for a run that was finished before: it is now the latest
    return ClassifyReport(
        job.results, job.run_id, selected, rows, failed, tiles / max(rows, 1), decoded / max(rows, 1), seconds
    )


def _counts(job: _Job) -> tuple[int, int, int, int]:
    """Answers, failures, tiles and bytes of the run's parts."""
    rows = failed = tiles = decoded = 0
    for file in part_files(job.results, "predictions", job.run_id):
        part = parquet.read_table(file, columns=["tiles", "bytes_decoded"])
        rows += len(part)
        tiles += compute.sum(part["tiles"]).as_py() or 0
        decoded += compute.sum(part["bytes_decoded"]).as_py() or 0
    for file in part_files(job.results, "failed", job.run_id):
        failed += parquet.read_metadata(file).num_rows
    return rows, failed, tiles, decoded
