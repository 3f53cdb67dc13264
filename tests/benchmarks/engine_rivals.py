"""Ways to make the same looks: tiles in memory, the engine, and a simple loop; each is what a crew does.

All three compute by the same runtime, on one thread, and look at the same tiles of the same sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tnet_geo.imagery import Site
from tnet_geo.inference import Classifier, load_bundle
from tnet_geo.inference.engine import WalkResult
from tnet_geo.inference.passes import pixels_tensor
from tnet_geo.inference.runtimes import Precision, Runtime
from tnet_geo.inference.walks import SiteTask, Walk, places_of
from tnet_geo.model import TraversalNetwork
from tnet_geo.model.network import SiteOutput
from tnet_geo.model.places import Places
from tnet_geo.pyramid import SceneArchive, open_scenes
from tnet_geo.trail import Answer, Failure

LOOP_BATCHES = 4
"""The simple loop walks so many times the looks of a pass at a time: 32 sites on a CPU."""


@dataclass(frozen=True)
class Rival:
    """One way to look."""

    way: Literal["memory", "engine", "loop"]
    bundle: str
    archive: str
    """Folder or address of the pyramids; of tiles in memory the place that they come from."""
    sites: tuple[Site, ...]
    runtime: Runtime = "folded"
    precision: Precision = "float32"
    device: str = "cpu"
    batch: int | None = None
    """Looks per pass; None is what the engine takes by itself."""

    def classifier(self) -> Classifier:
        """The bundle as this rival asks it."""
        how = {"runtime": self.runtime, "precision": self.precision, "device": self.device}
        return load_bundle(self.bundle, batch_looks=self.batch, **how)  # type: ignore[arg-type]

    def with_batch(self, batch: int) -> Rival:
        """The same with another batch size."""
        return replace(self, batch=batch)


def work_of(rival: Rival) -> Callable[[Any], int]:
    """What one process of a crew does: all sites once, and the number of looks that this took."""
    make = {"memory": _memory, "engine": _engine, "loop": _loop}[rival.way]
    work = make(rival)
    work(None)  # the first time is slower
    return work


def _engine(rival: Rival) -> Callable[[Any], int]:
    classifier = rival.classifier()

    def work(_: Any) -> int:
        archive = open_scenes(rival.archive)  # anew: nothing is known of its scenes
        return sum(len(answer.trail) for answer in answered(classifier.answer(archive, rival.sites)))

    return work


def answered(outcomes: Iterable[Answer | Failure]) -> Iterator[Answer]:
    """Answers; a site without one would make a benchmark of something else."""
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            raise RuntimeError(outcome.reason)
        yield outcome


def _loop(rival: Rival) -> Callable[[Any], int]:
    """A batch of sites at a time, depth by depth: all their tiles are asked for, waited for, looked at."""
    loop = SimpleLoop(rival.classifier(), torch.device(rival.device))
    return lambda _: sum(
        len(answer.trail) for answer in answered(loop.answer(open_scenes(rival.archive), rival.sites))
    )


class SimpleLoop:
    """What one would write first, written well: no site's reads overlap with the looks of another."""

    def __init__(self, classifier: Classifier, device: torch.device) -> None:
        self._classifier, self._device = classifier, device
        self._network: TraversalNetwork = classifier.engine.network
        self._batch = classifier.engine.passes.batch_looks

    @torch.inference_mode()
    def answer(self, archive: SceneArchive, sites: Iterable[Site]) -> Iterator[Answer | Failure]:
        """One answer per site, in their order, checked and calibrated like the engine's."""
        waiting = iter(sites)
        while group := list(islice(waiting, LOOP_BATCHES * self._batch)):
            walks = [Walk(self._task(archive, site), self._classifier.walk) for site in group]
            while active := [walk for walk in walks if walk.wanted]:
                self._step(active)
            yield from (self._classifier.answer_of(self._added_up(walk)) for walk in walks)

    def _task(self, archive: SceneArchive, site: Site) -> SiteTask:
        task = self._classifier.task_of(archive, site)
        if isinstance(task, Failure):
            raise RuntimeError(task.reason)
        return task

    def _step(self, walks: Sequence[Walk]) -> None:
        """One depth of all walks."""
        reads = [walk.task.reader.submit(walk.wanted) for walk in walks]
        batches = [read.result() for read in reads]
        for walk, batch in zip(walks, batches, strict=True):
            if walk.task.examine is not None and not walk.looked:
                walk.task.examine(batch)
        pixels = np.concatenate([batch.pixels for batch in batches])
        validity = np.concatenate([batch.validity for batch in batches])
        places = places_of([walk.place(n) for walk in walks for n in range(len(walk.wanted))])
        closer = not all(walk.ends for walk in walks)
        features, child_logits = self._looks(pixels, validity, places, closer=closer)
        start = 0
        for walk, batch in zip(walks, batches, strict=True):
            count = len(batch.pixels)
            rows = slice(start, start + count)
            candidates = np.stack([walk.candidates(n, batch.validity[n]) for n in range(count)])
            walk.observe(features[rows], child_logits[rows], candidates)
            start += count

    def _looks(
        self, pixels: np.ndarray, validity: np.ndarray, places: Places, *, closer: bool
    ) -> tuple[Tensor, Tensor]:
        features, child_logits = [], []
        for start in range(0, len(pixels), self._batch):
            rows = slice(start, start + self._batch)
            inputs = self._network.scale(
                pixels_tensor(pixels[rows]).to(self._device),
                torch.from_numpy(validity[rows]).to(self._device),
            )
            where = Places(*(part[rows] for part in places)).to(self._device)
            output = self._network.look(inputs, where, closer=closer)
            features.append(output.features.cpu())
            child_logits.append(output.child_logits.cpu())
        return torch.cat(features), torch.cat(child_logits)

    def _added_up(self, walk: Walk) -> WalkResult:
        features = walk.features.unsqueeze(0).to(self._device)
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=self._device)
        output = self._network.aggregate(features, mask)
        decoded = sum(walk.task.reader.spec.tile_bytes(look.tile) for look in walk.looked)
        return WalkResult(walk, SiteOutput(output.logits.cpu(), output.shares.cpu()), decoded)


def _memory(rival: Rival) -> Callable[[Any], int]:
    """The looks of the engine's walks at tiles that are in memory: nothing is read, chosen or added up.

    Looks that nobody follows are batched apart, so that the head is asked no more often than it must be.
    """
    classifier, archive = rival.classifier(), open_scenes(rival.archive)
    network, size = classifier.engine.network, classifier.engine.passes.batch_looks
    device = torch.device(rival.device)
    groups = [
        _Tiles.read(classifier, archive, rival.sites, closer=closer, pinned=device.type == "cuda")
        for closer in (True, False)
    ]

    @torch.inference_mode()
    def work(_: Any) -> int:
        found = []
        for group in groups:
            for start in range(0, len(group.pixels), size):
                rows = slice(start, start + size)
                there = [part[rows].to(device, non_blocking=True) for part in (group.pixels, group.validity)]
                where = Places(*(part[rows] for part in group.places)).to(device)
                output = network.look(network.scale(*there), where, closer=group.closer)
                found.append(output.child_logits)  # stays on a GPU: nothing waits in between
        torch.cat(found).cpu()
        return sum(len(group.pixels) for group in groups)

    return work


@dataclass(frozen=True)
class _Tiles:
    """Tiles in memory, raw, with their places; of looks that are followed, or of all others."""

    pixels: Tensor
    validity: Tensor
    places: Places
    closer: bool

    @classmethod
    def read(
        cls,
        classifier: Classifier,
        archive: SceneArchive,
        sites: Sequence[Site],
        *,
        closer: bool,
        pinned: bool,
    ) -> _Tiles:
        """Those that the walks of `sites` look at."""
        pixels, validity, depths = [], [], []
        for site, answer in zip(sites, answered(classifier.answer(archive, sites)), strict=True):
            looks = [look for look in answer.trail.looks if (look.tile.level > 0) == closer]
            reader = archive.reader(archive.adopt(site).scene_id, classifier.half_px)
            batch = reader.read([look.tile for look in looks])
            pixels.append(batch.pixels)
            validity.append(batch.validity)
            depths += [look.depth for look in looks]
        centres = torch.zeros(len(depths), 2)  # where a tile lies changes no time
        tensors = pixels_tensor(np.concatenate(pixels)), torch.from_numpy(np.concatenate(validity))
        if pinned:
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
        return cls(*tensors, Places(torch.tensor(depths), centres, centres), closer)
