"""Classifier = bundle + engine: what answers sites of an archive, or pictures in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tnet_geo.errors import ArchiveMismatch, SetAside, SiteMismatch
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.inference.engine import Engine, WalkResult
from tnet_geo.inference.walks import SiteTask
from tnet_geo.model.bundle import Bundle, read_bundle
from tnet_geo.model.settings import WalkSettings
from tnet_geo.pyramid import MemoryReader, SceneArchive, TileReader
from tnet_geo.trail import Answer, Failure, Look, Trail

__all__ = ["Classification", "Classifier", "load_bundle"]


@dataclass(frozen=True)
class Classification:
    """Answers to pictures in memory, in their order."""

    logits: NDArray[np.float32]
    """[N, classes]."""
    probabilities: NDArray[np.float32]
    """[N, classes]; rows sum to one."""
    labels: tuple[str, ...]
    trails: tuple[Trail, ...]


class Classifier:
    """A bundle that can be asked.

    walk: other than what the bundle was trained with, e.g. a wider `keep`.
    device: `cpu` by default; a CUDA device computes looks in larger batches.
    """

    def __init__(self, bundle: Bundle, *, walk: WalkSettings | None = None, device: str = "cpu") -> None:
        self.bundle = bundle
        self.walk = walk or bundle.facts.walk
        where = torch.device(device)
        network = bundle.network.eval().on(where)
        size = 32 if where.type == "cpu" else 256
        self._engine = Engine(network, self.walk, batch_looks=size, in_flight=4 * size, device=where)

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

        images: [N, H, W, bands] in the bundle's dtype, any size from one pixel up.

        Raises:
            SiteMismatch: dtype or bands are not the bundle's.

        >>> import numpy as np, tnet_geo
        >>> classifier = tnet_geo.load_bundle("runs/first/bundle")
        >>> found = classifier.classify(np.zeros((2, 64, 64, 3), np.uint8))
        >>> len(found.labels), found.logits.shape
        (2, (2, 3))
        """
        tasks = []
        for n, image in enumerate(images):
            reader = MemoryReader.of(np.ascontiguousarray(image.transpose(2, 0, 1)), self.half_px)
            tasks.append(self._task(f"image {n}", reader, None))
        answers = [self._answer_of(result) for result in self._engine.walk(tasks)]
        # Memory cannot fail to be read, so nothing is set aside here.
        found = [answer for answer in answers if isinstance(answer, Answer)]
        return Classification(
            logits=np.array([answer.logits for answer in found], dtype=np.float32),
            probabilities=np.array([answer.probabilities for answer in found], dtype=np.float32),
            labels=tuple(answer.label for answer in found),
            trails=tuple(answer.trail for answer in found),
        )

    def answer(self, archive: SceneArchive, sites: Iterable[Site]) -> Iterator[Answer | Failure]:
        """One answer or one failure per site, in their order; only the tiles looked at are read.

        Raises:
            ArchiveMismatch: the archive's lattice or canvas cannot serve the bundle.
        """
        self.check(archive)
        early: dict[int, Failure] = {}

        def tasks() -> Iterator[SiteTask]:
            for n, site in enumerate(sites):
                try:
                    stored = archive.adopt(site)
                    reader = archive.reader(stored.scene_id, self.half_px)
                    yield self._task(site.site_id, reader, stored.window)
                except SetAside as error:
                    early[n] = Failure(site.site_id, str(error))

        place = 0
        for result in self._engine.walk(tasks()):
            while place in early:
                yield early.pop(place)
                place += 1
            yield self._answer_of(result)
            place += 1
        yield from early.values()

    def check(self, archive: SceneArchive) -> None:
        """Refuse an archive that this bundle cannot walk.

        Raises:
            ArchiveMismatch: see there.
        """
        archive.check_lattice(self.half_px)
        canvas = self.bundle.facts.canvas
        if archive.canvas != canvas:
            raise ArchiveMismatch(archive.place, f"canvas {archive.canvas}", f"canvas {canvas}")

    def _task(self, site_id: str, reader: TileReader, window: Window | None) -> SiteTask:
        spec = reader.spec
        pixels = self.bundle.facts.network.pixels
        if (spec.bands, spec.dtype) != (pixels.bands, pixels.dtype):
            has = f"{spec.bands} bands of {spec.dtype}"
            raise SiteMismatch(site_id, has, f"the bundle was trained on {pixels.bands} of {pixels.dtype}")
        scene = Window(0, 0, *spec.shape)
        if window is not None and not scene.contains(window):
            has = f"rows {window.row} to {window.bottom} and columns {window.col} to {window.right}"
            raise SiteMismatch(site_id, has, f"its scene has {scene.height} rows and {scene.width} columns")
        return SiteTask(site_id, reader, window or scene)

    def _answer_of(self, result: WalkResult | Failure) -> Answer | Failure:
        if isinstance(result, Failure):
            return result
        logits = result.output.logits[0]
        probabilities = torch.softmax(logits.double() / self.bundle.facts.temperature, dim=0)
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
        )


def load_bundle(path: str | Path, *, walk: WalkSettings | None = None, device: str = "cpu") -> Classifier:
    """A bundle from its folder, ready to be asked.

    >>> load_bundle("runs/first/bundle").classes
    ('meadow', 'quarry', 'water')

    Raises:
        InvalidBundle: the folder is no bundle of this version, or it is damaged.
    """
    return Classifier(read_bundle(Path(path)), walk=walk, device=device)
