"""Location heads: what a look says of where to look closer.

All of them give child logits [n, windows * windows]; the softmax of these is the probability of each
window.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.model.places import Places
from tnet_geo.model.settings import LocationSettings

__all__ = ["CellHead", "ContextHead", "MapHead", "NoHead", "child_pooling", "location_of"]

_FREE_SCALE = 4.0
"""Where the learned factor of free scores begins; that of unit scores begins at 1, as published."""


def child_pooling(cells: int) -> Tensor:
    """Weights that average a map of cells x cells over each child's footprint: float32 [9, cells * cells].

    Child k = 3 i + j covers the half of the side that begins at i quarters (down) and j quarters
    (right). Cells that a footprint cuts count by the share that lies inside, so that any side works.

    >>> child_pooling(4)[0].reshape(4, 4)[:2, :2].sum().item()
    1.0
    """
    edges = torch.arange(cells, dtype=torch.float64) / cells
    rows = []
    for i in range(3):
        first, last = i / 4, i / 4 + 0.5
        inside = torch.clamp(torch.clamp(edges + 1 / cells, max=last) - torch.clamp(edges, min=first), min=0)
        rows.append(inside / inside.sum())
    return torch.stack([torch.outer(rows[i], rows[j]).flatten() for i in range(3) for j in range(3)]).float()


@cache
def _pooling(cells: int, device: torch.device) -> Tensor:
    """The transpose of `child_pooling` on a device, made once."""
    with torch.inference_mode(False):  # kept beyond the pass that asks first
        return child_pooling(cells).to(device).T


class Sharpness(nn.Module):
    """From scores [n, k] to logits: unit length or free, times a learned factor or none."""

    def __init__(self, settings: LocationSettings) -> None:
        super().__init__()
        self._unit = settings.scores == "unit"
        learned = settings.temperature == "learned"
        self.scale = nn.Parameter(torch.tensor(1.0 if self._unit else _FREE_SCALE)) if learned else None

    def forward(self, scores: Tensor) -> Tensor:
        """See the class. Nine scores of exactly 0 stay 0, where the published code divides by their norm."""
        if self._unit:
            norm = scores.square().sum(dim=1, keepdim=True).sqrt()
            scores = scores / torch.where(norm > 0, norm, torch.ones_like(norm))
        return scores if self.scale is None else self.scale * scores


class Told(nn.Module):
    """What a head is told beside the tap: the place and the parent's feature, as [n, hidden] to be added.

    Begins at zero, so that a head starts as if it were told nothing.
    """

    def __init__(self, settings: LocationSettings, features: int, hidden: int) -> None:
        super().__init__()
        self.position = nn.Linear(3, hidden, bias=False) if settings.position else None
        self.parent = nn.Linear(features, hidden, bias=False) if settings.parent else None
        for layer in (self.position, self.parent):
            if layer is not None:
                nn.init.zeros_(layer.weight)

    def forward(self, hidden: Tensor, places: Places, parent: Tensor | None) -> Tensor:
        """hidden [n, h, t, t], parent's feature [n, F] (zero at the root) -> hidden with what is told."""
        if self.position is not None:
            place = torch.cat([places.centre, places.depth[:, None].to(hidden)], dim=1)
            hidden = hidden + self.position(place)[:, :, None, None]
        if self.parent is not None and parent is not None:
            hidden = hidden + self.parent(parent)[:, :, None, None]
        return hidden


class NoHead(nn.Module):
    """Of a network that never looks closer: no child is better than another."""

    def forward(self, tap: Tensor, end: Tensor, places: Places, parent: Tensor | None) -> Tensor:  # noqa: ARG002
        """Zeros [n, 9]."""
        return tap.new_zeros(len(tap), 9)


class MapHead(nn.Module):
    """One score map per tile, averaged over each child's footprint. A vector per depth is added inside."""

    def __init__(
        self, settings: LocationSettings, channels: int, features: int, depths: int, hidden: int = 48
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.reduce = nn.Conv2d(channels, hidden, 3, padding=1)
        self.depth = nn.Embedding(depths, hidden)
        self.score = nn.Conv2d(hidden, 1, 1)
        self.told = Told(settings, features, hidden)
        self.sharpness = Sharpness(settings)
        nn.init.zeros_(self.depth.weight)

    def forward(self, tap: Tensor, end: Tensor, places: Places, parent: Tensor | None) -> Tensor:  # noqa: ARG002
        """tap [n, channels, t, t], end and parent's feature [n, F] -> child logits [n, 9]."""
        known = places.depth.clamp(max=self.depth.num_embeddings - 1)
        hidden = self.reduce(self.norm(tap)) + self.depth(known)[:, :, None, None]
        scores = self.score(torch.relu(self.told(hidden, places, parent))).flatten(1)
        logits: Tensor = self.sharpness(scores @ _pooling(tap.shape[-1], scores.device).to(scores.dtype))
        return logits


class _SampledHead(nn.Module):
    """Cells of the tap that stand for windows, and their coordinates: what published heads share."""

    def __init__(self, settings: LocationSettings) -> None:
        super().__init__()
        self.register_buffer("_cells", torch.tensor(settings.cells), persistent=False)
        self.rows = nn.Linear(1, 1)
        self.columns = nn.Linear(1, 1)
        self.sharpness = Sharpness(settings)
        for layer in (self.rows, self.columns):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)

    def sampled(self, tap: Tensor) -> Tensor:
        """tap [n, channels, t, t] -> [n, channels, windows, windows]."""
        cells: Tensor = self.get_buffer("_cells")
        return tap[:, :, cells][:, :, :, cells]

    def with_coordinates(self, hidden: Tensor) -> Tensor:
        """[n, h, w, w] -> [n, h + 2, w, w]: row, then column, evenly from -1 to 1, each scaled."""
        n, _, side, _ = hidden.shape
        steps = torch.linspace(-1, 1, side, device=hidden.device)[:, None]
        rows = self.rows(steps).reshape(1, 1, side, 1).expand(n, 1, side, side)
        columns = self.columns(steps).reshape(1, 1, 1, side).expand(n, 1, side, side)
        return torch.cat([hidden, rows, columns], dim=1)


class CellHead(_SampledHead):
    """The location module of TNet (NeurIPS 2021) for fMoW and birds.

    One cell of the tap stands for a whole window; squeeze and excitation over the cells.
    """

    def __init__(self, settings: LocationSettings, channels: int, features: int) -> None:
        super().__init__(settings)
        self.first = nn.Conv2d(channels, channels, 1)
        self.reduce = nn.Conv2d(channels, channels // 2, 1)
        self.expand = nn.Conv2d(channels // 2, channels, 1)
        self.fuse = nn.Conv2d(channels + 2, channels, 1)
        self.score = nn.Conv2d(channels, 1, 1)
        self.told = Told(settings, features, channels)

    def forward(self, tap: Tensor, end: Tensor, places: Places, parent: Tensor | None) -> Tensor:  # noqa: ARG002
        """tap [n, channels, t, t], end and parent's feature [n, F] -> logits [n, windows * windows]."""
        hidden = functional.silu(self.told(self.first(self.sampled(tap)), places, parent))
        pooled = hidden.mean(dim=(2, 3), keepdim=True)
        hidden = hidden * torch.sigmoid(self.expand(functional.silu(self.reduce(pooled))))
        hidden = functional.silu(self.fuse(self.with_coordinates(hidden)))
        logits: Tensor = self.sharpness(self.score(hidden).flatten(1))
        return logits


class ContextHead(_SampledHead):
    """The location module of TNet (NeurIPS 2021) for ImageNet: it is told the look's own end."""

    def __init__(self, settings: LocationSettings, channels: int, features: int, hidden: int = 512) -> None:
        super().__init__(settings)
        self.fuse = nn.Conv2d(channels + features + 2, hidden, 1)
        self.score = nn.Conv2d(hidden, 1, 1)
        self.told = Told(settings, features, hidden)

    def forward(self, tap: Tensor, end: Tensor, places: Places, parent: Tensor | None) -> Tensor:
        """tap [n, channels, t, t], end and parent's feature [n, F] -> logits [n, windows * windows]."""
        cells = self.sampled(tap)
        context = end[:, :, None, None].expand(-1, -1, *cells.shape[2:])
        fused = self.fuse(self.with_coordinates(torch.cat([cells, context], dim=1)))
        hidden = functional.leaky_relu(self.told(fused, places, parent), 0.2)
        logits: Tensor = self.sharpness(self.score(hidden).flatten(1))
        return logits


def location_of(settings: LocationSettings, channels: int, features: int, depths: int) -> nn.Module:
    """The head of these settings, for a tap of `channels` and feature vectors of length `features`."""
    if settings.form == "none":
        return NoHead()
    if settings.form == "map":
        return MapHead(settings, channels, features, depths)
    if settings.form == "cells":
        return CellHead(settings, channels, features)
    return ContextHead(settings, channels, features)
