"""Classifier = bundle + engine: what answers sites of an archive, or pictures in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet_geo.errors import ArchiveMismatch, SetAside, SiteMismatch, UsageError
from tnet_geo.grid import Window, root_of
from tnet_geo.imagery import Site
from tnet_geo.inference.budgets import NO_BUDGET, Budget
from tnet_geo.inference.crops import walk_crops
from tnet_geo.inference.engine import Engine, WalkResult
from tnet_geo.inference.expectations import Contradiction, Expectations
from tnet_geo.inference.pictures import own_units, picture_pixels, picture_reader
from tnet_geo.inference.runtimes import Precision, Runtime, prepared
from tnet_geo.inference.walks import SiteTask, Wish
from tnet_geo.model.bundle import Bundle, read_bundle
from tnet_geo.model.network import SiteOutput
from tnet_geo.model.settings import WalkSettings
from tnet_geo.pyramid import SceneArchive
from tnet_geo.trail import Answer, EndedBy, Failure, Look, Step, Trail

__all__ = ["Classification", "Classifier", "load_bundle"]

SCENES_AHEAD = 16
"""Scenes of a far archive that are opened at once; each takes a request or a few."""


@dataclass(frozen=True)
class Classification:
    """Answers to pictures in memory, in their order."""

    logits: NDArray[np.float32]
    """[N, classes]."""
    probabilities: NDArray[np.float32]
    """[N, classes]; rows sum to one."""
    labels: tuple[str, ...]
    trails: tuple[tuple[Step, ...], ...]
    """Of each picture, in the order looked at, the root first: (level, row, col, probability)."""
    evidence: tuple[tuple[float, ...], ...]
    """What each look of a trail adds to the logit of the picture's label, beside its bias."""


class _Found(NamedTuple):
    """Of one picture."""

    output: SiteOutput
    trail: tuple[Step, ...]
    ended_by: EndedBy


class ClassifierOptions(TypedDict, total=False):
    """How a bundle is asked: see `Classifier`."""

    walk: WalkSettings | None
    budget: Budget
    device: str
    accept: Collection[Contradiction]
    runtime: Runtime
    precision: Precision
    batch_looks: int | None
    pad: bool


class Classifier:
    """A bundle that can be asked.

    walk: other than what the bundle was trained with, e.g. a wider `keep`.
    budget: what a walk may cost, see `Budget`.
    device: `cpu` by default; a CUDA device computes looks in larger batches.
    accept: contradictions between pixels and bundle that are waived, see `Expectations`.
    runtime, precision: what computes looks, see `prepared`.
    batch_looks: looks per pass of the network; by default what suits the device.
    pad: fill every pass up, so that an answer never depends on what else is asked. Without it single
        pictures are answered soonest.

    Raises:
        UsageError: `accept` names no contradiction, or such a budget is not for these walks.
        RuntimeUnusable: this machine, or this network, cannot run so.
    """

    def __init__(  # noqa: PLR0913 - as many as there are things to choose
        self,
        bundle: Bundle,
        *,
        walk: WalkSettings | None = None,
        budget: Budget = NO_BUDGET,
        device: str = "cpu",
        accept: Collection[Contradiction] = (),
        runtime: Runtime = "folded",
        precision: Precision = "float32",
        batch_looks: int | None = None,
        pad: bool = True,
    ) -> None:
        self.bundle = bundle
        self._expects = Expectations.of(bundle.facts, accept)
        self.walk = walk or bundle.facts.walk
        where = torch.device(device)
        size = batch_looks or _batch_of(where, bundle.facts.network.base_px)
        ready = prepared(
            bundle.network,
            runtime=runtime,
            precision=precision,
            device=where,
            batch_looks=size,
            digest=bundle.digest,
        )
        self.runtime = ready.name if pad else f"{ready.name} at most"
        self.budget = budget
        self._temperatures = bundle.facts.temperatures_of(best_first=budget.tiles is not None)
        self.engine = Engine(
            ready.network,
            self.walk,
            budget=budget,
            temperatures=self._temperatures,
            batch_looks=size,
            pad=pad,
            in_flight=4 * size,
            device=where,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self.bundle.facts.classes

    @property
    def half_px(self) -> int:
        """Lattice step that the network looks with."""
        return self.bundle.facts.network.base_px // 2

    def classify(self, images: NDArray[np.generic]) -> Classification:
        """Answer pictures in memory by walking over pyramids made of them on the spot.

        images: [N, H, W, bands], any size from one pixel up, in the bundle's dtype, or floats: in the
        bundle's units, or, for a uint8 bundle, from 0 to 1.

        Raises:
            SiteMismatch: dtype or bands are not the bundle's.
            UsageError: windows that do not lie on the lattice, and a budget.

        >>> import numpy as np, tnet_geo
        >>> classifier = tnet_geo.load_bundle("runs/first/bundle")
        >>> found = classifier.classify(np.zeros((2, 64, 64, 3), np.uint8))
        >>> len(found.labels), found.logits.shape
        (2, (2, 3))
        """
        facts = self.bundle.facts
        pictures = own_units(np.asarray(images), facts, accept=self._expects.accept)
        on_lattice = facts.network.location.on_lattice
        if not on_lattice and self.budget != NO_BUDGET:
            raise UsageError("Walks over windows beside the lattice know no budget but `keep`.")
        found = self._walked(pictures) if on_lattice else self._cropped(pictures)
        outputs = [one.output for one in found]
        logits = np.array([output.logits[0].tolist() for output in outputs], dtype=np.float32)
        best = [int(row.argmax()) for row in logits]
        return Classification(
            logits=logits.reshape(len(found), len(self.classes)),
            probabilities=np.array(
                [self._probabilities(one.output, one.ended_by).tolist() for one in found], dtype=np.float32
            ).reshape(len(found), len(self.classes)),
            labels=tuple(self.classes[k] for k in best),
            trails=tuple(one.trail for one in found),
            evidence=tuple(
                tuple(output.shares[0, :, k].tolist()) for output, k in zip(outputs, best, strict=True)
            ),
        )

    def _walked(self, pictures: NDArray[np.generic]) -> list[_Found]:
        """Walks over pyramids in memory, made when their turn comes."""

        def tasks() -> Iterator[SiteTask]:
            for n, picture in enumerate(pictures):
                reader = picture_reader(picture, self.bundle.facts)
                site_id, scene = f"image {n}", Window(0, 0, *reader.spec.shape)
                examine = self._expects.examine(site_id, reader.spec)
                if examine is not None:  # here, so that it is raised: no picture is set aside
                    examine(reader.read([root_of(scene, self.half_px)]))
                yield SiteTask(site_id, reader, scene)

        results = [result for result in self.engine.walk(tasks()) if isinstance(result, WalkResult)]
        return [
            _Found(result.output, tuple(map(_step, result.walk.looked)), result.walk.ended_by)
            for result in results
        ]

    def _cropped(self, pictures: NDArray[np.generic]) -> list[_Found]:
        network, found = self.engine.network, []
        for picture in pictures:
            pixels = torch.from_numpy(picture_pixels(picture, self.bundle.facts))[None]
            everywhere = torch.ones(pixels.shape[0], *pixels.shape[2:])
            walked = walk_crops(network, network.scale(pixels, everywhere)[0], self.walk)
            found.append(_Found(walked.output, walked.trail, "complete"))
        return found

    def answer(
        self, archive: SceneArchive, sites: Iterable[Site], *, seconds: float | None = None
    ) -> Iterator[Answer | Failure]:
        """One answer or one failure per site, in their order; only the tiles looked at are read.

        seconds: how much of the budget's deadline is left for these sites; by default all of it.

        Raises:
            ArchiveMismatch: the archive's lattice or canvas cannot serve the bundle.
        """
        self.check(archive)
        tasks = _opened(partial(self.task_of, archive), sites, ahead="://" in archive.place)
        for result in self.engine.walk(tasks, seconds=seconds):
            yield self.answer_of(result)

    def task_of(self, archive: SceneArchive, site: Site) -> SiteTask | Failure:
        """What the engine is to walk for a site, or why it cannot be answered."""
        try:
            stored = archive.adopt(site)
            reader = archive.reader(stored.scene_id, self.half_px)
            self._expects.check_site(site, reader.spec, stored.window)
            examine = self._expects.examine(site.site_id, reader.spec)
            scene = Window(0, 0, *reader.spec.shape)
            window = _inside(site.site_id, stored.window or scene, scene)
            return SiteTask(site.site_id, reader, window, examine)
        except SetAside as error:
            return Failure(site.site_id, str(error))

    def check(self, archive: SceneArchive) -> None:
        """Refuse an archive that this bundle cannot walk.

        Raises:
            ArchiveMismatch: see there.
        """
        location = self.bundle.facts.network.location
        if not location.on_lattice:
            windows = f"{location.windows} x {location.windows} windows of {location.fraction:g} of a side"
            raise ArchiveMismatch(archive.place, "3 x 3 windows of one half", windows)
        archive.check_lattice(self.half_px)
        self._expects.check_archive(archive)

    def _probabilities(self, output: SiteOutput, ended_by: EndedBy) -> Tensor:
        """float64 [classes]: calibrated for a whole walk, or for one that ended after so many looks."""
        some, looks = self._temperatures, output.shares.shape[1]
        temperature = some[-1] if ended_by == "complete" else some[min(looks, len(some)) - 1]
        return torch.softmax(output.logits[0].double() / temperature, dim=0)

    def answer_of(self, result: WalkResult | Failure) -> Answer | Failure:
        """What the end of a walk says of its site, calibrated."""
        if isinstance(result, Failure):
            return result
        logits = result.output.logits[0]
        probabilities = self._probabilities(result.output, result.walk.ended_by)
        best = int(torch.argmax(logits))
        shares = result.output.shares[0, :, best].tolist()
        looks = tuple(
            Look(
                order, wish.depth, wish.tile, wish.parent, wish.probability, wish.path_log_probability, share
            )
            for order, (wish, share) in enumerate(zip(result.walk.looked, shares, strict=True))
        )
        return Answer(
            site_id=result.walk.task.site_id,
            label=self.classes[best],
            confidence=float(probabilities[best]),
            logits=tuple(logits.tolist()),
            probabilities=tuple(probabilities.tolist()),
            bias=self.bundle.network.classifier.bias[best].item(),
            trail=Trail(looks),
            bytes_decoded=result.bytes_decoded,
            ended_by=result.walk.ended_by,
        )


def _step(wish: Wish) -> Step:
    return Step(wish.tile.level, wish.tile.row, wish.tile.col, wish.probability)


def _inside(site_id: str, window: Window, scene: Window) -> Window:
    if scene.contains(window):
        return window
    has = f"rows {window.row} to {window.bottom} and columns {window.col} to {window.right}"
    raise SiteMismatch(site_id, has, f"its scene has {scene.height} rows and {scene.width} columns")


def _opened(
    task_of: Callable[[Site], SiteTask | Failure], sites: Iterable[Site], *, ahead: bool
) -> Iterator[SiteTask | Failure]:
    """Tasks in the order of sites; scenes of far archives are opened by threads before their turn comes."""
    if not ahead:
        yield from map(task_of, sites)
        return
    waiting: deque[Future[SiteTask | Failure]] = deque()
    with ThreadPoolExecutor(SCENES_AHEAD) as threads:
        for site in sites:
            waiting.append(threads.submit(task_of, site))
            if len(waiting) > SCENES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batch_of(device: torch.device, base_px: int) -> int:
    """Larger batches leave a CPU's caches; tiny tiles leave it idle."""
    if device.type != "cpu":
        return 256
    return 8 if base_px > 128 else 32


def load_bundle(path: str | Path, **how: Unpack[ClassifierOptions]) -> Classifier:
    """A bundle from its folder, ready to be asked; options as in `Classifier`.

    >>> load_bundle("runs/first/bundle").classes
    ('meadow', 'quarry', 'water')

    Raises:
        InvalidBundle: the folder is no bundle of this version, or it is damaged.
        UsageError, RuntimeUnusable: see `Classifier`.
    """
    return Classifier(read_bundle(Path(path)), **how)
