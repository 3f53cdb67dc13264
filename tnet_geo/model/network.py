"""TraversalNetwork: one look at a tile, and what all looks of a site add up to."""

from __future__ import annotations

from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model.aggregation import aggregation_of
from tnet_geo.model.backbones import backbone_of
from tnet_geo.model.location import location_of
from tnet_geo.model.places import Places
from tnet_geo.model.position import position_of
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
    """Backbone, position, location head, aggregation and classifier, for every backbone.

    Published TNet (NeurIPS 2021) is one of its settings; the defaults are ours.

    Raises:
        InvalidRunFile: no such backbone, or settings that do not fit it.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        pixels = settings.pixels
        self.backbone = backbone_of(settings)
        features = self.backbone.features
        _check_cells(settings, self.backbone.tap_cells)
        tap_channels = self.backbone.tap_channels
        self.location = location_of(settings.location, tap_channels, features, settings.depths)
        self.norm = nn.LayerNorm(features) if settings.feature_norm == "layer" else nn.Identity()
        windows = settings.location.windows
        self.position = position_of(settings.position, features, settings.depths, windows)
        self.aggregation = aggregation_of(settings.aggregation, features)
        self.classifier = nn.Linear(features, settings.classes)
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
        # rows of one band at a time: in the backbone's layout, band by band, it takes three times as long
        scaled = pixels.to(mean.dtype, copy=True).sub_(mean).div_(std)
        if not validity.is_cuda and bool(validity.all()):  # a GPU would have to be waited for
            return scaled
        return scaled.mul_((validity > 0).unsqueeze(1))

    def look(
        self, inputs: Tensor, places: Places, parent: Tensor | None = None, *, closer: bool = True
    ) -> LookOutput:
        """One pass over tiles.

        inputs float32 [n, bands, B, B] from `scale`; parent float32 [n, F]: the features of the looks
        that chose the tiles, zero at the root. Only heads with `location.parent` need them. Without
        `closer` nobody asks where to look closer, and child logits are zero.
        """
        tap, end = self.encode(inputs, places.depth)
        features = self.place(end, places)
        if not closer:
            return LookOutput(features, features.new_zeros(len(features), self.settings.location.windows**2))
        return LookOutput(features, self.locate(tap, end, places, parent))

    def encode(self, inputs: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Tap [n, channels, t, t] and end [n, F] of inputs from `scale`; depth int64 [n]."""
        tap, end = self.backbone(inputs.contiguous(memory_format=self.backbone.layout), depth)
        return tap, end

    def place(self, end: Tensor, places: Places) -> Tensor:
        """Features float32 [n, F] of the ends of the backbone."""
        features: Tensor = self.position(self.norm(end), places)
        return features

    def locate(self, tap: Tensor, end: Tensor, places: Places, parent: Tensor | None = None) -> Tensor:
        """Child logits float32 [n, 9]."""
        if self.settings.location.stop_gradient:
            tap, end, parent = tap.detach(), end.detach(), None if parent is None else parent.detach()
        logits: Tensor = self.location(tap, end, places, parent)
        return logits

    def features(self, inputs: Tensor, places: Places) -> Tensor:
        """Only the features [n, F] of `look`, where nobody asks where to look closer."""
        _, end = self.encode(inputs, places.depth)
        return self.place(end, places)

    def aggregate(self, features: Tensor, mask: Tensor) -> SiteOutput:
        """Features [s, looks, F] of s sites, and mask bool [s, looks] of the looks that exist, to logits.

        In training, looks and features are dropped as the settings say; the first look never is.
        """
        if self.training and self.settings.tile_dropout:
            dropped = torch.rand(mask.shape, device=mask.device) < self.settings.tile_dropout
            dropped[:, 0] = False
            mask = mask & ~dropped
        weights = self.aggregation(features, mask)
        if self.training and self.settings.dropout:
            # the same numbers of all looks of a site: what is dropped is a part of what they add up to
            features = functional.dropout1d(features.transpose(1, 2), self.settings.dropout).transpose(1, 2)
        shares = weights.unsqueeze(-1) * (features @ self.classifier.weight.T)
        return SiteOutput(self.classifier.bias + shares.sum(dim=1), shares)


def _check_cells(settings: NetworkSettings, tap_cells: int) -> None:
    """Refuse cells that the tap has not. Raises: InvalidRunFile."""
    strange = [cell for cell in settings.location.cells if not 0 <= cell < tap_cells]
    if strange:
        raise InvalidRunFile(
            "[model]",
            f"names cell {strange[0]} of a tap of {tap_cells} x {tap_cells} cells",
            f"take location.cells from 0 to {tap_cells - 1}",
        )
