"""From tiles of sites to the network's inputs, augmented: what every stage passes over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet_geo.grid import Tile
from tnet_geo.inference import position_in
from tnet_geo.inference.engine import pixels_tensor
from tnet_geo.learning.augmentation import SiteAugmentation
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.model import LookOutput, TraversalNetwork

__all__ = ["LookBatch", "LookRequest", "look"]


@dataclass(frozen=True)
class LookRequest:
    """Tiles of one site, all seen through the same augmentation."""

    site: LabelledSite
    tiles: Sequence[Tile]
    augmentation: SiteAugmentation | None = None


@dataclass(frozen=True)
class LookBatch:
    """Tiles of several sites, read, augmented and scaled; rows in the order of the requests."""

    inputs: Tensor
    """float32 [n, bands, B, B]."""
    depth: Tensor
    """int64 [n]."""
    position: Tensor
    """float32 [n, 2], turned along with the pixels."""
    inverse: Tensor
    """int64 [n, 9]; puts child logits back into the order of the original's children."""
    validity: NDArray[np.uint8]
    """[n, B, B], as read: for telling candidates in the original's frame."""

    @classmethod
    def read(
        cls, requests: Sequence[LookRequest], network: TraversalNetwork, device: torch.device
    ) -> LookBatch:
        """Read all tiles (every request's reads are issued before the first is waited for)."""
        reads = [request.site.task.reader.submit(request.tiles) for request in requests]
        pixels, turned, validity, positions, inverses, depths = [], [], [], [], [], []
        for request, read in zip(requests, reads, strict=True):
            batch, draw, root = read.result(), request.augmentation, request.site.root
            places = np.array([position_in(root, tile) for tile in request.tiles], dtype=np.float32)
            validity.append(batch.validity)
            pixels.append(draw.pixels(batch.pixels) if draw else batch.pixels)
            turned.append(draw.validity(batch.validity) if draw else batch.validity)
            positions.append(places @ draw.matrix.T if draw else places)
            inverses.append(np.tile(draw.inverse if draw else np.arange(9), (len(places), 1)))
            depths += [root.level - tile.level for tile in request.tiles]
        raw = pixels_tensor(np.concatenate(pixels)).to(device)
        return cls(
            inputs=network.scale(raw, torch.from_numpy(np.concatenate(turned)).to(device)),
            depth=torch.tensor(depths, device=device),
            position=torch.from_numpy(np.concatenate(positions)).to(device),
            inverse=torch.from_numpy(np.concatenate(inverses)).to(device),
            validity=np.concatenate(validity),
        )

    def rows(self, rows: Tensor) -> LookBatch:
        """Some of the rows, in the order of `rows` (int64)."""
        picked = (self.inputs[rows], self.depth[rows], self.position[rows], self.inverse[rows])
        return LookBatch(*picked, self.validity[rows.cpu().numpy()])


def look(network: TraversalNetwork, batch: LookBatch) -> LookOutput:
    """One pass; child logits come back in the order of the original's children, whatever was turned."""
    output = network.look(batch.inputs, batch.depth, batch.position)
    return LookOutput(output.features, output.child_logits.gather(1, batch.inverse))
