"""Stage A: features from dense multiple-instance training over the finest tiles.

The bag is every native tile of a site and its feature is the maximum over tiles, feature by feature:
small bags and attention from scratch both stay at chance (measured). Only tiles that win the maximum
have a gradient, so the others are passed without one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.grid import Tile, disjoint_tiles
from tnet_geo.learning.looks import LookBatch, LookRequest
from tnet_geo.learning.settings import DenseSettings
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.learning.stages import Draw, Room, Validation

__all__ = ["DenseStage", "native_bag"]

_PASS = 64
"""Tiles per pass without gradient: bounds memory."""


def native_bag(site: LabelledSite, draw: Draw | None, most: int) -> list[Tile]:
    """Native tiles that do not overlap; with `draw`, the lattice is shifted by a half at random.

    At most `most` of them, chosen at random (without `draw`: evenly spread).
    """
    half_px, window = site.task.reader.spec.half_px, site.task.window
    if site.root.level == 0:
        return [site.root]
    offset = (0, 0) if draw is None else (int(draw.chance.integers(2)), int(draw.chance.integers(2)))
    tiles = list(disjoint_tiles(window, 0, half_px, offset))
    if len(tiles) <= most:
        return tiles
    picked = (
        np.linspace(0, len(tiles) - 1, most).astype(int)
        if draw is None
        else draw.chance.permutation(len(tiles))[:most]
    )
    return [tiles[n] for n in picked]


class DenseStage:
    """Maximum over the features of native tiles, then a linear classifier of the stage's own."""

    name = "dense"

    def __init__(self, room: Room, settings: DenseSettings) -> None:
        self.room, self.schedule = room, settings
        network = room.network
        head = nn.Linear(network.classifier.in_features, network.settings.classes).to(room.device)
        self.modules = nn.ModuleDict({"network": network, "head": head})

    def loss(self, sites: Sequence[LabelledSite], draw: Draw, progress: float) -> Tensor:  # noqa: ARG002 (a stage's)
        """Cross entropy of the bags' maxima."""
        network, head = self.room.network, self.modules["head"]
        requests = [draw.request(site, native_bag(site, draw, self.schedule.most_tiles)) for site in sites]
        batch = LookBatch.read(requests, network, self.room.device)
        sizes = [len(request.tiles) for request in requests]
        rows, kept = self._winners(batch, sizes)
        network.train()
        taken = batch.rows(rows)
        features = network.features(taken.inputs, taken.places)
        bags = torch.stack([bag.amax(dim=0) for bag in features.split(kept)])
        return functional.cross_entropy(head(bags), self.room.labels(sites))

    def _winners(self, batch: LookBatch, sizes: list[int]) -> tuple[Tensor, list[int]]:
        """Rows of the tiles that win most features, and how many of each site."""
        most = self.schedule.tiles_with_gradient
        starts = np.cumsum([0, *sizes[:-1]])
        if max(sizes) <= most:
            return torch.arange(sum(sizes)), sizes
        rows = []
        for start, bag in zip(starts, self._features(batch).split(sizes), strict=True):
            wins = torch.bincount(bag.argmax(dim=0), minlength=len(bag))
            rows.append(start + torch.sort(wins, descending=True, stable=True).indices[:most].cpu())
        return torch.cat(rows), [len(row) for row in rows]

    @torch.no_grad()
    def _features(self, batch: LookBatch) -> Tensor:
        network = self.room.network.eval()
        parts = torch.arange(len(batch.inputs)).split(_PASS)
        return torch.cat([network.features(batch.inputs[p], batch.places.rows(p)) for p in parts])

    @torch.no_grad()
    def validate(self) -> Validation:
        """All native tiles of every validation site, by the stage's own classifier."""
        hits, loss, tiles = 0, 0.0, 0
        for site in self.room.validation:
            bag = native_bag(site, None, self.schedule.most_tiles)
            batch = LookBatch.read([LookRequest(site, bag)], self.room.network, self.room.device)
            logits = self.modules["head"](self._features(batch).amax(dim=0))
            hits += int(logits.argmax()) == site.label
            loss -= float(torch.log_softmax(logits, dim=0)[site.label])
            tiles += len(bag)
        count = len(self.room.validation)
        return Validation(hits / count, loss / count, tiles / count)
