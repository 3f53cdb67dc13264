"""BagNet-77: a residual network of mostly 1 x 1 kernels, the backbone of TNet for ImageNet."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model.backbone import TAP_CELLS, Backbone
from tnet_geo.model.settings import NetworkSettings

__all__ = ["BagNet77"]

_SLOPE = 0.2
_WIDTHS = (64, 128, 256, 512)
_BLOCKS = (3, 4, 6, 3)
_STRIDES = (2, 2, 2, 1)
_PADDED = (True, True, False, False)
"""Whether the first 3 x 3 kernel of a part sees zeros beyond the map's edge."""


class _Convolution(nn.Conv2d):
    """With bias, Glorot's initial weights, and zeros around the map as TensorFlow puts them, or none."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, *, padded: bool = True
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride)
        self._padded = padded and kernel > 1
        nn.init.xavier_normal_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """[n, in, h, w] -> [n, out, h', w']."""
        if self._padded:
            height, width = (self._beyond(int(side)) for side in maps.shape[-2:])
            maps = functional.pad(maps, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(maps)

    def _beyond(self, side: int) -> int:
        """Zeros that a map of that side gets along it; the odd one comes last."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        return max((-(-side // stride) - 1) * stride + kernel - side, 0)


class _Bottleneck(nn.Module):
    """1 x 1, k x k, 1 x 1, beside a shortcut that is cut to the same map; activation after the sum."""

    def __init__(self, channels_in: int, width: int, kernel: int, stride: int, *, padded: bool) -> None:
        super().__init__()
        self.first = _Convolution(channels_in, width, 1)
        self.second = _Convolution(width, width, kernel, stride, padded=padded)
        self.third = _Convolution(width, 4 * width, 1)
        changes = stride > 1 or channels_in != 4 * width
        self.shortcut = _Convolution(channels_in, 4 * width, 1, stride) if changes else nn.Identity()
        self._trim = 0 if padded else kernel // 2

    def forward(self, maps: Tensor) -> Tensor:
        """[n, in, h, w] -> [n, 4 width, h', w']."""
        branch = functional.leaky_relu(self.first(maps), _SLOPE)
        branch = self.third(functional.leaky_relu(self.second(branch), _SLOPE))
        if self._trim:
            maps = maps[:, :, self._trim : -self._trim, self._trim : -self._trim]
        return functional.leaky_relu(branch + self.shortcut(maps), _SLOPE)


def _part(channels_in: int, width: int, blocks: int, stride: int, *, padded: bool) -> nn.Sequential:
    """The first kernel reduces the map, the second is 3 x 3, the others look at one cell."""
    kernels = [3, 3] + [1] * (blocks - 2)
    strides = [stride] + [1] * (blocks - 1)
    channels = [channels_in] + [4 * width] * blocks
    return nn.Sequential(
        *(
            _Bottleneck(before, width, kernel, step, padded=padded or index > 0)
            for index, ((before, _), kernel, step) in enumerate(
                zip(pairwise(channels), kernels, strides, strict=True)
            )
        )
    )


class BagNet77(Backbone):
    """Backbone `bagnet77`; every cell of its last map has seen 77 px. The tap has stride 8.

    `drop_path` drops whole channels of the last map, in training (published: 0.5).
    Source: TNet (NeurIPS 2021), published code for ImageNet; 20,033,664 parameters for three bands.

    Raises:
        InvalidRunFile: base_px is so small that the tap is too coarse, or `location.tap` is set.
    """

    tap_channels = 1024
    features = 512

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self._refuse_switches(settings, known=("drop_path",))
        widths = [_WIDTHS[0] // 4, *_WIDTHS]  # the stem gives the channels of a part of a quarter the width
        parts = [
            _part(4 * before, width, blocks, stride, padded=padded)
            for (before, width), blocks, stride, padded in zip(
                pairwise(widths), _BLOCKS, _STRIDES, _PADDED, strict=True
            )
        ]
        self.stem = _Convolution(settings.pixels.bands, _WIDTHS[0], 3, padded=False)
        self.to_tap = nn.Sequential(*parts[:3])
        self.to_end = nn.Sequential(parts[3], _Convolution(4 * _WIDTHS[3], self.features, 1))
        self.drop = nn.Dropout2d(settings.drop_path)
        self.tap_cells = _tap_cells(settings.base_px)
        if self.tap_cells < TAP_CELLS:
            raise InvalidRunFile(
                "[model]",
                f"has base_px {settings.base_px}, too small for bagnet77",
                "take 77, or at least 67",
            )
        self._settle(settings)

    def run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See `Backbone`."""
        tap = self.to_tap(functional.leaky_relu(self.stem(pixels), _SLOPE))
        last = self.drop(functional.leaky_relu(self.to_end(tap), _SLOPE))
        return tap, torch.mean(last, dim=(2, 3))


def _tap_cells(base_px: int) -> int:
    """Cells along a side of the tap: no padding in the stem and in the part that ends in the tap."""
    return (-(-(base_px - 2) // 4) - 3) // 2 + 1
