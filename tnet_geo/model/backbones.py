"""Backbones: tile -> (tap, end), the same two answers from every one.

`tap` is the deepest feature map that still has at least 8 x 8 cells: fine enough to tell the nine
children apart. `end` is the pooled feature vector that the class is read from.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file
from torch import Tensor, nn

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model.settings import NetworkSettings

__all__ = ["Backbone", "PlainBackbone", "TimmBackbone", "backbone_of", "own_scaling"]

_TAP_CELLS = 8


class Backbone(nn.Module):
    """Protocol of all backbones.

    forward: float32 [n, bands, B, B] -> (tap float32 [n, tap_channels, t, t], end float32 [n, features])
    """

    tap_channels: int
    features: int

    def forward(self, pixels: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the class; depth int64 [n] matters to batch norms that are not shared."""
        raise NotImplementedError


class PlainBackbone(Backbone):
    """Four strided convolutions, 0.1 M weights: learns from a few hundred scenes in minutes on a CPU.

    The end is the maximum over the last cells, not their mean: one small object is enough to be seen.
    """

    tap_channels = 64
    features = 96

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.to_tap = nn.Sequential(_conv(bands, 24), _conv(24, 48), _conv(48, 64))
        self.to_end = _conv(64, 96)

    def forward(self, pixels: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """See `Backbone`; the tap has stride 8, the end stride 16."""
        tap = self.to_tap(pixels)
        return tap, self.to_end(tap).amax(dim=(2, 3))


def _conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """A 3 x 3 convolution of stride 2 with batch norm and ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


def _timm() -> Any:
    """timm, which takes seconds to import, only where a run asks for one of its models."""
    import_module("tnet_geo.model.torchvision_schemas")  # must come first
    return import_module("timm")


class TimmBackbone(Backbone):
    """Any timm model that offers intermediate features.

    Raises:
        InvalidRunFile: timm knows no such model, or it has no map of 8 x 8 cells at this base_px.
    """

    def __init__(self, name: str, bands: int, base_px: int) -> None:
        super().__init__()
        timm = _timm()

        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5])
            raise InvalidRunFile(
                "[model]", f"names the unknown backbone timm/{name}", f"take one of timm's: {near}"
            )
        self.net: Any = timm.create_model(name, num_classes=0, in_chans=bands, pretrained=False)
        stages = [(info["reduction"], info["num_chs"]) for info in self.net.feature_info]
        fine = [k for k, (stride, _) in enumerate(stages) if base_px // stride >= _TAP_CELLS]
        if not fine:
            raise InvalidRunFile(
                "[model]",
                f"has base_px {base_px}, too small for timm/{name}",
                f"take at least {_TAP_CELLS * stages[0][0]}",
            )
        self._tap = fine[-1]
        self.tap_channels = stages[self._tap][1]
        self.features = cast(int, self.net.num_features)

    def forward(self, pixels: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """See `Backbone`; both outputs come from one pass."""
        last, taps = self.net.forward_intermediates(pixels, indices=[self._tap])
        return taps[0], self.net.forward_head(last, pre_logits=True)

    def load_weights(self, path: Path) -> None:
        """Load a local safetensors file of timm's own key names (any float type) into the backbone.

        Raises:
            InvalidRunFile: the file is missing or its keys or shapes are not this model's.
        """
        try:
            state = {key: tensor.float() for key, tensor in load_file(path).items()}
            self.net.load_state_dict(state, strict=True)
        except (OSError, RuntimeError) as error:
            cause = str(error).splitlines()[0]
            raise InvalidRunFile(
                "[model]", f"names weights {path} that do not load ({cause})", "check file and backbone"
            ) from error


def backbone_of(settings: NetworkSettings) -> Backbone:
    """The backbone that `settings` name, with fresh weights.

    Raises:
        InvalidRunFile: there is none of that name.
    """
    name, bands, base_px = settings.backbone, settings.pixels.bands, settings.base_px
    if name == "plain":
        return PlainBackbone(bands)
    family, _, model = name.partition("/")
    if family != "timm" or not model:
        raise InvalidRunFile(
            "[model]", f"names the unknown backbone {name!r}", "write `plain` or `timm/NAME`"
        )
    return TimmBackbone(model, bands, base_px)


def own_scaling(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and spread (of values from 0 to 1) that a timm model was pretrained with; None for others."""
    family, _, model = name.partition("/")
    if family != "timm":
        return None
    known = _timm().get_pretrained_cfg(model)
    return (known.mean, known.std) if known else None
