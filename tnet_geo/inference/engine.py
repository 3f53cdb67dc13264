"""Many walks at once, depth by depth: all reads are issued before one is waited for, looks share batches.

Every batch has the same shape (the last one is padded), and a site's looks are added up alone, so
that an answer does not depend on which sites happen to be walked beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet_geo.errors import SetAside
from tnet_geo.grid import Tile
from tnet_geo.inference.walks import SiteTask, Walk
from tnet_geo.model.network import LookOutput, SiteOutput, TraversalNetwork
from tnet_geo.model.places import Places
from tnet_geo.model.settings import WalkSettings
from tnet_geo.pyramid.tiles import TileBatch
from tnet_geo.trail import Failure

__all__ = ["Engine", "WalkResult", "pixels_tensor"]


@dataclass(frozen=True)
class WalkResult:
    """One walk that has ended: where it looked, and what its looks add up to."""

    walk: Walk
    output: SiteOutput
    """Of this one site: logits [1, classes], shares [1, looks, classes]."""
    bytes_decoded: int


def pixels_tensor(pixels: NDArray[np.generic]) -> Tensor:
    """Raw pixels of any accepted dtype as a tensor that can be computed with."""
    # torch has hardly an operation for uint16, and none of its values is lost in int32.
    return torch.from_numpy(pixels.astype(np.int32) if pixels.dtype == np.uint16 else pixels)


class Engine:
    """Runs walks over a network that is in evaluation mode.

    batch_looks: looks per pass of the network.
    pad: whether every pass has that shape, so that answers do not depend on how many there are; without it
        a pass is as small as what is left, which answers single pictures soonest.
    in_flight: walks that are under way at once; memory grows with it, not with the number of sites.
    """

    def __init__(
        self,
        network: TraversalNetwork,
        settings: WalkSettings,
        *,
        batch_looks: int = 32,
        pad: bool = True,
        in_flight: int = 64,
        device: torch.device | None = None,
    ) -> None:
        self.network = network
        self.settings = settings
        self.device = device or torch.device("cpu")
        self._batch_looks, self._pad = batch_looks, pad
        self._in_flight = in_flight

    def walk(self, tasks: Iterable[SiteTask]) -> Iterator[WalkResult | Failure]:
        """Walk every site; results come in the order of `tasks`, failures in their place."""
        waiting = iter(tasks)
        while group := list(islice(waiting, self._in_flight)):
            yield from self._walk_group(group)

    @torch.inference_mode()
    def _walk_group(self, tasks: Sequence[SiteTask]) -> list[WalkResult | Failure]:
        walks = [Walk(task, self.settings) for task in tasks]
        failures: dict[int, Failure] = {}
        while active := [n for n, walk in enumerate(walks) if walk.wanted and n not in failures]:
            reads = {n: walks[n].task.reader.submit(walks[n].wanted) for n in active}
            batches = self._gather(reads, walks, failures)
            self._look(batches, walks)
        return [failures.get(n) or self._result(walk) for n, walk in enumerate(walks)]

    @staticmethod
    def _gather(
        reads: dict[int, Future[TileBatch]], walks: Sequence[Walk], failures: dict[int, Failure]
    ) -> dict[int, TileBatch]:
        batches = {}
        for n, read in reads.items():
            task = walks[n].task
            try:
                batch = read.result()
                if task.examine is not None and not walks[n].looked:
                    task.examine(batch)
                batches[n] = batch
            except SetAside as error:
                failures[n] = Failure(task.site_id, str(error))
        return batches

    def _look(self, batches: dict[int, TileBatch], walks: Sequence[Walk]) -> None:
        """One look at every tile that has been read, in batches of one shape."""
        if not batches:
            return
        pixels = np.concatenate([batch.pixels for batch in batches.values()])
        validity = np.concatenate([batch.validity for batch in batches.values()])
        active = [walks[n] for n in batches]
        each = [walk.places for walk in active]
        places = Places(*(torch.cat(parts) for parts in zip(*each, strict=True)))
        parent = None
        if self.network.settings.location.parent:
            width = self.network.backbone.features
            parent = torch.cat([walk.parents(width) for walk in active])
        closer = not all(walk.ends for walk in active)
        output = self.looks(pixels, validity, places, parent, closer=closer)
        start = 0
        for n, batch in batches.items():
            stop = start + len(batch.pixels)
            walks[n].observe(output.features[start:stop], output.child_logits[start:stop], batch.validity)
            start = stop

    def looks(
        self,
        pixels: NDArray[np.generic],
        validity: NDArray[np.uint8],
        places: Places,
        parent: Tensor | None = None,
        *,
        closer: bool = True,
    ) -> LookOutput:
        """The network's output for any number of tiles, computed batch by batch.

        pixels [n, bands, B, B] raw, validity [n, B, B]; parent [n, F] and `closer` as in
        `TraversalNetwork.look`; outputs on the CPU, in the same order.
        """
        size = self._batch_looks
        features, child_logits = [], []
        for start in range(0, len(pixels), size):
            some = slice(start, min(start + size, len(pixels)))
            count = some.stop - start
            shape = size if self._pad else count
            batch = self._inputs(pixels[some], validity[some], shape)
            where = Places(*(_filled(part[some], shape) for part in places)).to(self.device)
            above = None if parent is None else _filled(parent[some], shape).to(self.device)
            output = self.network.look(batch, where, above, closer=closer)
            features.append(output.features[:count].cpu())
            child_logits.append(output.child_logits[:count].cpu())
        return LookOutput(torch.cat(features), torch.cat(child_logits))

    def _inputs(self, pixels: NDArray[np.generic], validity: NDArray[np.uint8], count: int) -> Tensor:
        """What the network takes in: scaled, and filled up to `count`."""
        short = count - len(pixels)
        if short:
            pixels = np.concatenate([pixels, np.zeros((short, *pixels.shape[1:]), pixels.dtype)])
            validity = np.concatenate([validity, np.zeros((short, *validity.shape[1:]), validity.dtype)])
        raw = pixels_tensor(pixels).to(self.device, non_blocking=True)
        return self.network.scale(raw, torch.from_numpy(validity).to(self.device))

    def _result(self, walk: Walk) -> WalkResult:
        features = walk.features.unsqueeze(0).to(self.device)
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=self.device)
        output = self.network.aggregate(features, mask)
        spec = walk.task.reader.spec
        read: list[Tile] = [look.tile for look in walk.looked]
        decoded = sum(spec.tile_bytes(tile) for tile in set(read))
        return WalkResult(walk, SiteOutput(output.logits.cpu(), output.shares.cpu()), decoded)


def _filled(rows: Tensor, count: int) -> Tensor:
    """Rows, followed by as many zeros as `count` asks for."""
    if len(rows) == count:
        return rows
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])])
