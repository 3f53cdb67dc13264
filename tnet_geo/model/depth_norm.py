"""Batch norms with statistics and weights of their own for every depth.

A root is a whole site made small, a deep tile a detail at native resolution: their statistics differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["DepthNorm", "RowDepths", "norms_per_depth", "shared_name"]


class RowDepths:
    """The depths of the rows that are on their way through a backbone; all its norms share one."""

    def __init__(self) -> None:
        self.depth: Tensor | None = None

    @contextmanager
    def of(self, depth: Tensor) -> Iterator[None]:
        """Within it, the rows have these depths: int64 [n]."""
        self.depth = depth
        try:
            yield
        finally:
            self.depth = None


class DepthNorm(nn.Module):
    """A batch norm of maps [n, C, h, w] (torch's, or timm's with its activation) for each depth.

    In training the rows of a pass are of one depth (`Backbone.forward` sees to it). Otherwise rows of
    all depths go through together, each scaled by the statistics of its own.
    """

    def __init__(self, norm: _BatchNorm, depths: int, rows: RowDepths) -> None:
        super().__init__()
        self.of_depth = nn.ModuleList(deepcopy(norm) for _ in range(depths))
        self._rows = rows

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        depth = self._rows.depth
        if depth is None:
            raise ValueError("batch norms per depth are called without the depth of every row")
        if self.training:
            one: Tensor = self.of_depth[int(depth[0])](maps)
            return one
        scale, shift = (table[depth][:, :, None, None] for table in self._tables())
        scaled: Tensor = maps * scale.to(maps.dtype) + shift.to(maps.dtype)
        first: Any = self.of_depth[0]
        if hasattr(first, "act"):  # timm's
            scaled = first.act(first.drop(scaled))
        return scaled

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Factor and summand [depths, C] of the norms."""
        norms: list[Any] = list(self.of_depth)
        scale = torch.stack([norm.weight * torch.rsqrt(norm.running_var + norm.eps) for norm in norms])
        shift = torch.stack(
            [norm.bias - norm.running_mean * row for norm, row in zip(norms, scale, strict=True)]
        )
        return scale, shift


def norms_per_depth(module: nn.Module, depths: int, rows: RowDepths) -> int:
    """Put a `DepthNorm` in place of every batch norm inside `module`: how many there were.

    0, and nothing is changed, where one of them is not of maps (as LeViT's, which are of tokens) or has
    no weights or statistics.
    """
    places = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm)
    ]
    if not all(_of_maps(norm) for _, _, norm in places):
        return 0
    for parent, name, norm in places:
        setattr(parent, name, DepthNorm(norm, depths, rows))
    return len(places)


def shared_name(key: str) -> str:
    """The key that a norm's tensor has where all depths share it.

    >>> shared_name("blocks.0.bn1.of_depth.2.running_var")
    'blocks.0.bn1.running_var'
    """
    return re.sub(r"\.of_depth\.\d+\.", ".", key)


def _of_maps(norm: _BatchNorm) -> bool:
    known = type(norm) is nn.BatchNorm2d or type(norm).__name__ == "BatchNormAct2d"  # the latter is timm's
    return known and norm.affine and norm.track_running_stats
