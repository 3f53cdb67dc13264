"""From tiles of sites to the network's inputs, augmented: what every stage passes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet_geo.grid import Tile, parents_of
from tnet_geo.inference import position_in
from tnet_geo.inference.passes import pixels_tensor
from tnet_geo.inference.walks import path_centre, usual_path
from tnet_geo.learning.augmentation import SiteAugmentation
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.model import LookOutput, Places, TraversalNetwork

__all__ = ["LookBatch", "LookRequest", "look", "parent_row"]


@dataclass(frozen=True)
class LookRequest:
    """Tiles of one site, all seen through the same augmentation."""

    site: LabelledSite
    tiles: Sequence[Tile]
    augmentation: SiteAugmentation | None = None
    places: Places | None = None
    """Of a walk that led to the tiles; by default those of the usual paths."""


@dataclass(frozen=True)
class LookBatch:
    """Tiles of several sites, read, augmented and scaled; rows in the order of the requests."""

    inputs: Tensor
    """float32 [n, bands, B, B]."""
    places: Places
    """Turned along with the pixels; a tile that several paths lead to has the usual one."""
    parent: Tensor
    """int64 [n]: the row of a tile that has this one among its children; -1 where the batch has none."""
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
        pixels, turned, validity, inverses, places = [], [], [], [], []
        parents: list[int] = []
        for request, read in zip(requests, reads, strict=True):
            batch, draw = read.result(), request.augmentation
            parents += _parents(request.tiles, len(parents))
            validity.append(batch.validity)
            pixels.append(draw.pixels(batch.pixels) if draw else batch.pixels)
            turned.append(draw.validity(batch.validity) if draw else batch.validity)
            places.append(_places(request))
            inverses.append(np.tile(draw.inverse if draw else np.arange(9), (len(request.tiles), 1)))
        raw = pixels_tensor(np.concatenate(pixels)).to(device)
        return cls(
            inputs=network.scale(raw, torch.from_numpy(np.concatenate(turned)).to(device)),
            places=Places(*(torch.cat(parts) for parts in zip(*places, strict=True))).to(device),
            parent=torch.tensor(parents, device=device),
            inverse=torch.from_numpy(np.concatenate(inverses)).to(device),
            validity=np.concatenate(validity),
        )

    def rows(self, rows: Tensor) -> LookBatch:
        """Some of the rows, in the order of `rows` (int64); none of them has a parent."""
        nobody = torch.full((len(rows),), -1, device=rows.device)
        picked = (self.inputs[rows], self.places.rows(rows), nobody, self.inverse[rows])
        return LookBatch(*picked, self.validity[rows.cpu().numpy()])


def _places(request: LookRequest) -> Places:
    root = request.site.root
    depths = [root.level - tile.level for tile in request.tiles]
    places = request.places or Places(
        torch.tensor(depths),
        torch.tensor([position_in(root, tile) for tile in request.tiles]),
        torch.tensor(
            [path_centre(usual_path(root, t), d) for t, d in zip(request.tiles, depths, strict=True)]
        ),
    )
    if request.augmentation is None:
        return places
    turn = torch.from_numpy(request.augmentation.matrix).T
    return places._replace(centre=places.centre @ turn, path=places.path @ turn)


def _parents(tiles: Sequence[Tile], first: int) -> list[int]:
    """Rows of the tiles' parents, where the tiles are rows `first` and on."""
    index = {tile: first + n for n, tile in enumerate(tiles)}
    return [parent_row(tile, index) for tile in tiles]


def parent_row(tile: Tile, index: Mapping[Tile, int]) -> int:
    """The number of the first parent of a tile that `index` knows; -1 if it knows none."""
    return next((index[parent] for parent in parents_of(tile) if parent in index), -1)


def look(network: TraversalNetwork, batch: LookBatch, parent: Tensor | None = None) -> LookOutput:
    """One pass; child logits come back in the order of the original's children, whatever was turned.

    parent [n, F]: the features of the looks that chose the tiles; without it they are the batch's own.
    """
    tap, end = network.encode(batch.inputs, batch.places.depth)
    features = network.place(end, batch.places)
    if parent is None and network.settings.location.parent:
        parent = torch.where(batch.parent[:, None] < 0, 0.0, features[batch.parent])
    child_logits = network.locate(tap, end, batch.places, parent)
    return LookOutput(features, child_logits.gather(1, batch.inverse))
