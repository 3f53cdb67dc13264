"""Where looks lie in their site: what networks are told of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Places"]


class Places(NamedTuple):
    """The places of n looks. Both kinds of coordinates run from -1 to 1, so that they turn with pixels."""

    depth: Tensor
    """int64 [n]: 0 at the root."""
    centre: Tensor
    """float32 [n, 2], rows then columns: the tile's centre in the root."""
    path: Tensor
    """float32 [n, 2]: the centre of the cell that the path leads to, where the windows along a side share
    their parent's cell equally. Two paths to one tile have two of them."""

    @classmethod
    def root(cls, count: int = 1) -> Places:
        """`count` times the root."""
        return cls(torch.zeros(count, dtype=torch.long), torch.zeros(count, 2), torch.zeros(count, 2))

    def to(self, device: torch.device) -> Places:
        """The same on a device."""
        return Places(*(tensor.to(device) for tensor in self))

    def rows(self, rows: Tensor | slice) -> Places:
        """Some of them, in the order of `rows`."""
        return Places(*(tensor[rows] for tensor in self))
