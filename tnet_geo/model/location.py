"""The location head: scores a tile's nine children from its tap."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["LocationHead", "child_pooling"]


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


class LocationHead(nn.Module):
    """tap [n, channels, t, t], depth [n] -> child logits [n, 9].

    One score map per tile, averaged over each child's footprint and multiplied by a learned scale,
    so that logits can become sharp without large weights. Source: the location module of TNet
    (NeurIPS 2021), with a vector per depth in place of its position code.
    """

    def __init__(self, channels: int, depths: int, hidden: int = 48) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.reduce = nn.Conv2d(channels, hidden, 3, padding=1)
        self.depth = nn.Embedding(depths, hidden)
        self.score = nn.Conv2d(hidden, 1, 1)
        self.scale = nn.Parameter(torch.tensor(4.0))
        nn.init.zeros_(self.depth.weight)

    def forward(self, tap: Tensor, depth: Tensor) -> Tensor:
        """See the class; `depth` is int64 and below the number of trained depths."""
        hidden = self.reduce(self.norm(tap)) + self.depth(depth)[:, :, None, None]
        scores = self.score(torch.relu(hidden)).flatten(1)
        pooling = child_pooling(tap.shape[-1]).to(scores)
        logits: Tensor = self.scale * scores @ pooling.T
        return logits
