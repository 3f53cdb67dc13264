"""What every backbone is: a tile in, (tap, end) out, and whom a look is normalised with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model.depth_norm import RowDepths, norms_per_depth
from tnet_geo.model.settings import NetworkSettings

__all__ = ["TAP_CELLS", "Backbone"]

TAP_CELLS = 8
"""A tap has at least so many cells a side: enough to tell the nine children apart."""


class Backbone(nn.Module):
    """All backbones: float32 [n, bands, B, B] -> (tap [n, tap_channels, t, t], end [n, features]).

    `tap` is a feature map that the location head reads, `end` the pooled vector that the class is read
    from. A backbone implements `run`, and calls `_settle` when its layers are made.
    """

    tap_channels: int
    tap_cells: int
    """Along the tap's shorter side, at the settings' base_px."""
    features: int
    layout: torch.memory_format = torch.channels_last
    """Of the pixels that it is fastest with."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self._batch_norm = settings.batch_norm
        self._last_depth = settings.depths - 1
        self._rows: RowDepths | None = None

    def run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; the rows are one batch to every layer."""
        raise NotImplementedError

    def forward(self, pixels: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the class. `depth` int64 [n] matters only where batch norms are not shared.

        In training, batch norms that are not shared see the rows of one depth at a time, shallow ones
        first; rows without `depth` are of one depth.

        Raises:
            ValueError: batch norms are per depth, and `depth` is not given.
        """
        if self._rows is not None:
            if depth is None:
                raise ValueError("batch norms per depth need the depth of every row")
            depth = depth.clamp(max=self._last_depth)
        if self.training and depth is not None and self._batch_norm != "shared":
            return self._depth_by_depth(pixels, depth)
        return self._run_at(pixels, depth)

    def _run_at(self, pixels: Tensor, depth: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._rows is None or depth is None:
            return self.run(pixels)
        with self._rows.of(depth):
            return self.run(pixels)

    def _depth_by_depth(self, pixels: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        groups = [torch.nonzero(depth == value).squeeze(1) for value in depth.unique()]
        parts = [self._run_at(pixels[rows], depth[rows]) for rows in groups]
        back = torch.argsort(torch.cat(groups))
        taps, ends = zip(*parts, strict=True)
        return torch.cat(taps)[back], torch.cat(ends)[back]

    def _settle(self, settings: NetworkSettings) -> None:
        """Give the batch norms the settings' momentum, and one of them to each depth where that is asked for.

        Raises:
            InvalidRunFile: norms per depth of a backbone that has none, or other ones than of maps.
        """
        if settings.norm_momentum is not None:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.momentum = settings.norm_momentum
        if settings.batch_norm == "per_depth":
            self._rows = RowDepths()
            if not norms_per_depth(self, settings.depths, self._rows):
                raise InvalidRunFile(
                    "[model]",
                    f"asks for batch norms per depth, which {settings.backbone} does not have",
                    'write batch_norm = "shared"',
                )

    def _refuse_switches(self, settings: NetworkSettings, known: Sequence[str] = ()) -> None:
        """Refuse switches that only timm's models obey, but for those of `known`.

        Raises:
            InvalidRunFile: one of them is set.
        """
        asked = {"drop_path": bool(settings.drop_path), "location.tap": settings.location.tap != "auto"}
        for switch, is_set in asked.items():
            if is_set and switch not in known:
                raise InvalidRunFile(
                    "[model]",
                    f"sets {switch}, which backbone {settings.backbone} does not know",
                    "leave it out, or take a backbone of timm",
                )
