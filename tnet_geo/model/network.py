"""TraversalNetwork: one look at a tile, and what all looks of a site add up to."""

from __future__ import annotations

from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from tnet_geo.model.aggregation import aggregation_of
from tnet_geo.model.backbones import backbone_of
from tnet_geo.model.location import LocationHead
from tnet_geo.model.settings import NetworkSettings

__all__ = ["LookOutput", "SiteOutput", "TraversalNetwork"]


class LookOutput(NamedTuple):
    """What one pass over n tiles gives."""

    features: Tensor
    """float32 [n, F]: what the tile adds to its site."""
    child_logits: Tensor
    """float32 [n, 9]: where to look closer, row-major over the 3 x 3 children."""


class SiteOutput(NamedTuple):
    """What the looks of s sites add up to."""

    logits: Tensor
    """float32 [s, classes]."""
    shares: Tensor
    """float32 [s, looks, classes]: exact additive parts; logits = bias + sum over looks."""


class TraversalNetwork(nn.Module):
    """Backbone, location head, aggregation and classifier, for every backbone.

    A look's feature is the layer-normalised end of the backbone plus an embedding of where the tile
    lies: its depth and its centre relative to the root. Source: TNet (NeurIPS 2021).
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        pixels = settings.pixels
        self.backbone = backbone_of(settings.backbone, pixels.bands, settings.base_px)
        features = self.backbone.features
        self.location = LocationHead(self.backbone.tap_channels, settings.depths)
        self.norm = nn.LayerNorm(features)
        self.depth = nn.Embedding(settings.depths, features)
        self.position = nn.Linear(2, features, bias=False)
        self.aggregation = aggregation_of(settings.aggregation, features)
        self.classifier = nn.Linear(features, settings.classes)
        nn.init.zeros_(self.depth.weight)
        nn.init.zeros_(self.position.weight)
        self.register_buffer("mean", torch.tensor(pixels.mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixels.std).reshape(1, -1, 1, 1), persistent=False)

    def on(self, device: torch.device) -> Self:
        """Move to a device, in the memory layout that convolutions are fastest in."""
        # torch's stubs do not know this argument of Module.to
        layout = {"memory_format": torch.channels_last}
        return self.to(device).to(**layout)  # type: ignore[call-overload,no-any-return]

    def scale(self, pixels: Tensor, validity: Tensor) -> Tensor:
        """Raw pixels [n, bands, B, B] to the network's input: float32, zero where validity [n, B, B] is 0."""
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        scaled = (pixels.float() - mean) / std
        return scaled * (validity > 0).unsqueeze(1)

    def look(self, inputs: Tensor, depth: Tensor, position: Tensor) -> LookOutput:
        """One pass over tiles.

        inputs float32 [n, bands, B, B] from `scale`; depth int64 [n]; position float32 [n, 2], the
        tile's centre in the root, rows then columns, from -1 to 1.
        """
        tap, end = self.backbone(inputs.contiguous(memory_format=torch.channels_last))
        depth = self._known(depth)
        return LookOutput(self._placed(end, depth, position), self.location(tap, depth))

    def features(self, inputs: Tensor, depth: Tensor, position: Tensor) -> Tensor:
        """Only the features [n, F] of `look`, where nobody asks where to look closer."""
        _, end = self.backbone(inputs.contiguous(memory_format=torch.channels_last))
        return self._placed(end, self._known(depth), position)

    def _known(self, depth: Tensor) -> Tensor:
        return depth.clamp(max=self.settings.depths - 1)

    def _placed(self, end: Tensor, depth: Tensor, position: Tensor) -> Tensor:
        features: Tensor = self.norm(end) + self.depth(depth) + self.position(position)
        return features

    def aggregate(self, features: Tensor, mask: Tensor) -> SiteOutput:
        """Features [s, looks, F] of s sites, and mask bool [s, looks] of the looks that exist, to logits."""
        weights = self.aggregation(features, mask)
        shares = weights.unsqueeze(-1) * (features @ self.classifier.weight.T)
        return SiteOutput(self.classifier.bias + shares.sum(dim=1), shares)
