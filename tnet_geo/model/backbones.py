"""Backbones: tile -> (tap, end), the same two answers from every one.

`tap` is a feature map that still has at least 8 x 8 cells: fine enough to tell the nine children
apart. `end` is the pooled feature vector that the class is read from.
"""

from __future__ import annotations

from torch import Tensor, nn

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model.backbone import Backbone
from tnet_geo.model.bagnet import BagNet77
from tnet_geo.model.settings import NetworkSettings
from tnet_geo.model.timm_backbone import TimmBackbone, own_scaling

__all__ = ["Backbone", "BagNet77", "PlainBackbone", "TimmBackbone", "backbone_of", "own_scaling"]


class PlainBackbone(Backbone):
    """Four strided convolutions, 0.1 M weights: learns from a few hundred scenes in minutes on a CPU.

    The end is the maximum over the last cells, not their mean: one small object is enough to be seen.
    """

    tap_channels = 64
    features = 96

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self._refuse_switches(settings)
        self.to_tap = nn.Sequential(_conv(settings.pixels.bands, 24), _conv(24, 48), _conv(48, 64))
        self.to_end = _conv(64, 96)
        self.tap_cells = -(-settings.base_px // 8)
        self._settle(settings)

    def run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See `Backbone`; the tap has stride 8, the end stride 16."""
        tap = self.to_tap(pixels)
        return tap, self.to_end(tap).amax(dim=(2, 3))


def _conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """A 3 x 3 convolution of stride 2 with batch norm and ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


def backbone_of(settings: NetworkSettings) -> Backbone:
    """The backbone that `settings` name, with fresh weights: `plain`, `bagnet77` or `timm/NAME`.

    Raises:
        InvalidRunFile: there is none of that name, or it cannot be one for these settings.
    """
    own = {"plain": PlainBackbone, "bagnet77": BagNet77}.get(settings.backbone)
    if own is not None:
        return own(settings)
    family, _, model = settings.backbone.partition("/")
    if family != "timm" or not model:
        raise InvalidRunFile(
            "[model]",
            f"names the unknown backbone {settings.backbone!r}",
            "write `plain`, `bagnet77` or `timm/NAME`",
        )
    return TimmBackbone(settings)
