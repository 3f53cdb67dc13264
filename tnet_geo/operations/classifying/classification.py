"""The archive job: one answer or one reason per site, over partitions on a Dask cluster."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from distributed import Client
from pyarrow import compute, parquet

from tnet_geo.errors import Incomplete, InvalidManifest, OutputExists, PlaceLost, UsageError
from tnet_geo.grid import Window
from tnet_geo.imagery import Manifest, read_manifest
from tnet_geo.inference import Classifier
from tnet_geo.inference.budgets import NO_BUDGET, Budget, most_looks
from tnet_geo.inference.expectations import Contradiction
from tnet_geo.inference.runtimes import Precision, Runtime
from tnet_geo.operations.classifying.course import Course
from tnet_geo.operations.classifying.partitions import Partition, partitions_of
from tnet_geo.operations.classifying.tasks import Job
from tnet_geo.operations.cluster import cluster
from tnet_geo.operations.devices import devices_here, devices_there
from tnet_geo.operations.forecasting.forecast import beside, forecast, look_seconds
from tnet_geo.operations.ledger import run_facts
from tnet_geo.operations.patience import why_lost
from tnet_geo.operations.stopping import Stop, held_sigterm
from tnet_geo.pyramid import CogArchive, SceneArchive, cog_manifest, open_scenes
from tnet_geo.results import RunRecord, finish_run
from tnet_geo.results.store import adopt_parts, begin_run, part_files, record_of

__all__ = ["ClassifyReport", "classify", "manifest_of"]

CPU_LOOKS, CUDA_LOOKS = 512, 16384
"""Looks that a partition comes to: seconds to minutes of one worker."""
TRIES = 2
"""Workers that may die of a partition before its sites are asked in a process of their own."""
TIMED_LOOKS = 20_000
"""From so many on a forecast is worth the second in which looks are timed."""


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


def classify(  # noqa: PLR0913 - as many as the command has options
    *,
    archive: str | Path,
    manifest: str | Path | Manifest | None = None,
    bundle: str | Path,
    out: str | Path,
    split: str | None = None,
    keep: Sequence[int] | None = None,
    budget: Budget = NO_BUDGET,
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
    partition: int | None = None,
    accept: Collection[Contradiction] = (),
    runtime: Runtime = "folded",
    precision: Precision = "float32",
) -> ClassifyReport:
    """Answer every site of a manifest, reading only the tiles that its walk looks at.

    `archive` is one of pyramids, or a folder, list or bucket of Cloud-Optimised GeoTIFFs as they are: see
    `open_scenes`. Of those, each is one site where there is no manifest. `keep` and `budget` say how far a
    walk goes, by default as the bundle was trained.

    Sites are answered in partitions of about `partition` looks, each of which is published whole, under a
    name made of the digests of its pixels, the bundle and its settings: the same call again does only what
    is missing, and what another run of these results has published is taken from there. Sites that cannot
    be answered are listed with the reason in `out`/failed.csv. So are those whose pixels contradict what
    the bundle was trained on, unless `accept` names the contradiction; an archive that does is refused.
    `runtime`, `precision` and `device` say what computes looks, see `Classifier` and `devices_here`.

    >>> report = classify(
    ...     archive="archive", manifest="sites.parquet", bundle="runs/first/bundle", out="answers", workers=1
    ... )
    >>> report.answered + report.set_aside == report.selected
    True

    Raises:
        InvalidManifest, InvalidArchive, InvalidBundle, ArchiveMismatch, OutputExists: nothing was written.
        RuntimeUnusable: this machine, or this network, cannot run so.
        UsageError: no scheduler answers, a manifest is missing, or options cannot be, alone or together.
        PlaceLost, ClusterLost: on the way; what was published stays.
        Incomplete: the parts do not add up to what was selected.
        SystemExit: with 143 after SIGTERM, when what was in hand is published.
    """
    begun = time.monotonic()
    store = open_scenes(archive)
    table = manifest_of(manifest, store).select(split)
    if not len(table):
        raise InvalidManifest(table.path, f"has no site in split {split!r}", "select another")
    folder = Path(out).absolute()
    kept = None if keep is None else tuple(keep)
    job = Job(
        store.place, Path(bundle).absolute(), folder, frozenset(accept), runtime, precision, kept, budget
    )
    with ExitStack() as stack:
        client = stack.enter_context(cluster(None, scheduler)) if scheduler else None
        devices = devices_here(device) if client is None else devices_there(device, client)
        job = replace(job, device=devices.name)
        classifier, computed = _classifier(job, client)
        classifier.check(store)
        if folder.exists() and (not folder.is_dir() or _foreign(folder)):
            raise OutputExists(str(folder), "it holds no results; name another folder")
        settings = _settings(job, classifier, computed)
        most = partition or (CPU_LOOKS if devices.name == "cpu" else CUDA_LOOKS)
        partitions = _partitions(table, store, classifier, settings, most)
        names = [part.name for part in partitions]
        job = replace(job, bundle_digest=classifier.bundle.digest, run_id=_digest("run", *names)[:12])
        with _kept(folder):
            begin_run(folder)
            there = adopt_parts(folder, job.run_id, names)
        missing = [part for part in partitions if part.name not in there]
        costs: dict[str, Any] = {}
        if missing:
            with held_sigterm() as stop:
                client = client or stack.enter_context(
                    cluster(workers, None, devices=devices.each, tries=TRIES)
                )
                costs = _run(Course(job, client, missing, begun), classifier, store, missing, stop)
    with _kept(folder):
        took = time.monotonic() - begun
        return _finish(job, classifier, table, split=split, settings=settings, costs=costs, seconds=took)


def manifest_of(manifest: str | Path | Manifest | None, archive: SceneArchive) -> Manifest:
    """The table of sites that is meant: of COGs every one, where none is given. Raises: UsageError."""
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


def _classifier(job: Job, client: Client | None) -> tuple[Classifier, tuple[str, str]]:
    """The bundle as it is asked, on a device that is here, and what computes its looks in the workers."""
    if client is None or job.device == "cpu":
        classifier = job.classifier()
        return classifier, _computes(classifier)
    # Where the command runs there need be no GPU.
    return replace(job, device="cpu").classifier(), client.submit(_worker_computes, job, pure=False).result()


def _worker_computes(job: Job) -> tuple[str, str]:
    return _computes(job.classifier())


def _computes(classifier: Classifier) -> tuple[str, str]:
    """Runtime and device by name: what tells the bits of one answer from another's."""
    device = classifier.engine.device
    return classifier.runtime, torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _settings(job: Job, classifier: Classifier, computed: tuple[str, str]) -> dict[str, Any]:
    """All that names answers, beside pixels and bundle."""
    return {
        **classifier.walk.model_dump(mode="json"),
        "budget": asdict(job.budget),
        "runtime": computed[0],
        "device": computed[1],
        "accept": sorted(job.accept),
    }


def _partitions(
    table: Manifest, archive: SceneArchive, classifier: Classifier, settings: dict[str, Any], most: int
) -> list[Partition]:
    """Raises: PlaceLost: the archive was lost while it was asked what it holds."""

    def looks(window: Window) -> int:
        return most_looks(window, classifier.half_px, classifier.walk, classifier.budget)

    names = classifier.bundle.digest, json.dumps(settings)
    found = partitions_of(table.sites, archive, names, looks_of=looks, most_looks=most)
    cause = why_lost(archive)
    if cause is not None:
        raise PlaceLost(archive.place, cause)
    return found


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _run(
    course: Course, classifier: Classifier, archive: SceneArchive, partitions: Sequence[Partition], stop: Stop
) -> dict[str, Any]:
    """Run the job; gives what it was expected to take, in seconds too if it is long, and what it took."""
    sites = [site for part in partitions for site in part.sites]
    long = sum(part.looks for part in partitions) >= TIMED_LOOKS
    each = look_seconds(classifier) if long else None
    with ThreadPoolExecutor(1) as thread:  # its arithmetic takes a moment that workers need not wait for
        ahead = thread.submit(forecast, classifier, archive, sites, workers=course.hands, look_seconds=each)
        measured = course.run(stop)
        if stop.asked:
            return {}
        return beside(ahead.result(), measured, classifier.bundle.network)


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Raises: PlaceLost: the folder of results fails us."""
    try:
        yield
    except OSError as error:
        raise PlaceLost(str(folder), error.strerror or str(error)) from error


def _finish(
    job: Job,
    classifier: Classifier,
    table: Manifest,
    *,
    split: str | None,
    settings: dict[str, Any],
    costs: dict[str, Any],
    seconds: float,
) -> ClassifyReport:
    """Count what is there, write the record, and say it."""
    selected = len(table)
    rows, failed, tiles, decoded = _counts(job)
    if rows + failed != selected:
        raise Incomplete(job.run_id, selected, rows, failed)
    before = record_of(job.results, job.run_id)
    if before is not None and not costs:  # nothing was missing
        costs = {"predicted": before.predicted, "measured": before.measured}
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
        settings=settings,
        **costs,
        **run_facts(),
    )
    finish_run(job.results, record)  # again for a run that was finished before: it is now the latest
    return ClassifyReport(
        job.results, job.run_id, selected, rows, failed, tiles / max(rows, 1), decoded / max(rows, 1), seconds
    )


def _counts(job: Job) -> tuple[int, int, int, int]:
    """Answers, failures, tiles and bytes of the run's parts."""
    rows = failed = tiles = decoded = 0
    for file in part_files(job.results, "predictions", job.run_id):
        part = parquet.read_table(file, columns=["tiles", "bytes_decoded"], partitioning=None)
        rows += len(part)
        tiles += compute.sum(part["tiles"]).as_py() or 0
        decoded += compute.sum(part["bytes_decoded"]).as_py() or 0
    for file in part_files(job.results, "failed", job.run_id):
        failed += parquet.read_metadata(file).num_rows
    return rows, failed, tiles, decoded
