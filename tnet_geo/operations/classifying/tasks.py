"""What workers do for `classify`: walk the sites of a partition, and publish what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from tnet_geo.errors import ClusterLost, PlaceLost, PlaceUnusable
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.inference import Classifier
from tnet_geo.inference.budgets import NO_BUDGET, Budget, walk_with
from tnet_geo.inference.expectations import Contradiction
from tnet_geo.inference.runtimes import Precision, Runtime
from tnet_geo.model.bundle import read_bundle
from tnet_geo.operations.classifying.partitions import Partition
from tnet_geo.operations.forecasting.forecast import Cost, MeteredArchive, cost_of
from tnet_geo.operations.patience import PAUSES, is_servers, patiently, why_lost
from tnet_geo.pyramid import CogArchive, SceneArchive, open_scenes
from tnet_geo.pyramid.tiles import ReadCount, TileReader
from tnet_geo.results import PredictionRow, write_part
from tnet_geo.trail import Answer, Failure

__all__ = [
    "Job",
    "Outcome",
    "WalkedArchive",
    "classify_partition",
    "loaded",
    "outcomes_of",
    "publish",
    "site_of",
]

Outcome = PredictionRow | Failure


@dataclass(frozen=True)
class Job:
    """What workers need to know; small, because it travels with every task."""

    archive: str
    bundle: Path
    results: Path
    accept: frozenset[Contradiction]
    runtime: Runtime
    precision: Precision
    keep: tuple[int, ...] | None = None
    budget: Budget = NO_BUDGET
    device: str = "cpu"
    bundle_digest: str = ""
    """Of the bundle that the answers are named after; none: whatever is there."""
    run_id: str = ""
    pauses: tuple[float, ...] = PAUSES
    """Seconds between tries where a place does not answer."""

    def classifier(self) -> Classifier:
        """The bundle as the caller wants it asked.

        Raises: UsageError, InvalidBundle, RuntimeUnusable.
        """
        bundle = read_bundle(self.bundle)
        return Classifier(
            bundle,
            walk=walk_with(bundle.facts.walk, self.keep, self.budget),
            budget=self.budget,
            device=self.device,
            accept=self.accept,
            runtime=self.runtime,
            precision=self.precision,
        )


@lru_cache(maxsize=1)
def loaded(job: Job) -> tuple[Classifier, SceneArchive]:
    """Once per process.

    Raises:
        PlaceLost: the archive is not there, and does not come back.
        ClusterLost: the bundle here is not the one that the answers are named after.
    """
    archive = patiently(job.archive, lambda: open_scenes(job.archive), job.pauses)
    classifier = job.classifier()
    if job.bundle_digest not in {"", classifier.bundle.digest}:
        raise ClusterLost("A worker", f"it finds another bundle at {job.bundle} than the command did")
    return classifier, archive


class WalkedArchive(MeteredArchive):
    """An archive that remembers what rows say of a scene, so that no seal or header is read for that."""

    def __init__(self, archive: SceneArchive) -> None:
        super().__init__(archive)
        self._specs: dict[str, _Scene] = {}

    def reader(self, scene_id: str, half_px: int | None = None) -> TileReader:
        """See `SceneArchive`."""
        reader = super().reader(scene_id, half_px)
        spec = reader.spec
        self._specs[scene_id] = _Scene(spec.shape, spec.crs, spec.transform)
        return reader

    def outcomes(
        self,
        classifier: Classifier,
        sites: Sequence[Site],
        seconds: float | None = None,
        *,
        begun: Callable[[str], None] | None = None,
    ) -> Iterator[Outcome]:
        """What `classifier` says of sites, in their order, as rows; `begun` is told what is read next."""

        def told() -> Iterator[Site]:
            for site in sites:
                if begun is not None:
                    begun(site.site_id)
                yield site

        for site, outcome in zip(sites, classifier.answer(self, told(), seconds=seconds), strict=True):
            yield outcome if isinstance(outcome, Failure) else self._row(outcome, site, classifier.half_px)

    def _row(self, answer: Answer, site: Site, half_px: int) -> PredictionRow:
        scene = self._specs[self.adopt(site).scene_id]
        return PredictionRow(
            answer=answer,
            scene_id=site.scene_id,
            window=site.window or Window(0, 0, *scene.shape),
            half_px=half_px,
            expected=site.label,
            split=site.split,
            date=site.date,
            crs=scene.crs,
            transform=scene.transform,
        )


@dataclass(frozen=True, slots=True)
class _Scene:
    shape: tuple[int, int]
    crs: str | None
    transform: tuple[float, float, float, float, float, float] | None


def classify_partition(job: Job, part: Partition, seconds: float | None = None) -> Cost:
    """In a worker: answer all sites of a partition in `seconds`, publish, and say what it took.

    Raises:
        PlaceLost: archive or results do not answer, and did not come back.
        Exception: whatever a site breaks the walks with; `rescue_partition` finds out which.
    """
    classifier, archive = loaded(job)
    walked = WalkedArchive(archive)
    outcomes = outcomes_of(job, part.sites, partial(walked.outcomes, classifier), seconds=seconds)
    return publish(job, part, outcomes, walked.lap())


def outcomes_of(
    job: Job,
    sites: Sequence[Site],
    ask: Callable[[Sequence[Site], float | None], Iterable[Outcome]],
    *,
    seconds: float | None = None,
    twice: bool = True,
) -> list[Outcome]:
    """What `ask` says of the sites, in their order; it is asked again where the archive had been lost.

    twice: what fails is asked for once more when the archive is seen to answer, so that a server that
    failed for a moment sets nothing aside.

    Raises:
        PlaceLost: the archive does not answer, and did not come back.
    """
    _, archive = loaded(job)
    begun = time.monotonic()
    found: dict[str, Outcome] = {}

    def failed() -> list[Site]:
        return [site for site in sites if not isinstance(found.get(site.site_id), PredictionRow)]

    def attempt() -> None:
        left = None if seconds is None else max(0.0, seconds - (time.monotonic() - begun))
        try:
            found.update((site_of(outcome), outcome) for outcome in ask(failed(), left))
        except Exception:
            _check(archive)
            raise
        if failed():
            _check(archive)

    def attempts() -> None:
        attempt()
        if twice and failed():
            attempt()
        _check_server(archive, [found[site.site_id] for site in failed()])

    try:
        patiently(job.archive, attempts, job.pauses, on=(PlaceUnusable,))
    except PlaceLost:
        # Of COGs on many servers one may be gone for good.
        if not isinstance(archive, CogArchive) or len(found) < len(sites) or why_lost(archive):
            raise
    return [found[site.site_id] for site in sites]


def site_of(outcome: Outcome) -> str:
    """The id of the site that an outcome is of."""
    return outcome.site_id if isinstance(outcome, Failure) else outcome.answer.site_id


def _check(archive: SceneArchive) -> None:
    """Raises: PlaceLost."""
    cause = why_lost(archive)
    if cause is not None:
        raise PlaceLost(archive.place, cause)


def _check_server(archive: SceneArchive, outcomes: Iterable[Outcome]) -> None:
    """Raises: PlaceLost: a site has no answer because a server did not do its work."""
    for outcome in outcomes:
        if isinstance(outcome, Failure) and is_servers(outcome.reason):
            raise PlaceLost(archive.place, outcome.reason)


def publish(job: Job, part: Partition, outcomes: Sequence[Outcome], read: ReadCount) -> Cost:
    """Write the part, and say what it took. Raises: PlaceLost."""
    rows = [outcome for outcome in outcomes if isinstance(outcome, PredictionRow)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]

    def write() -> None:
        write_part(job.results, job.run_id, part.name, rows, failures, there=True)

    patiently(str(job.results), write, job.pauses)
    return cost_of([*(row.answer for row in rows), *failures], read)
