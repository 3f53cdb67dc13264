"""How the place of a look enters its feature."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.model.places import Places
from tnet_geo.model.settings import PositionSettings

__all__ = ["CentrePosition", "CodedPosition", "NoPosition", "place_code", "position_of"]


class CentrePosition(nn.Module):
    """Adds an embedding of the depth and a linear map of the tile's centre; both begin at zero."""

    def __init__(self, features: int, depths: int) -> None:
        super().__init__()
        self.depth = nn.Embedding(depths, features)
        self.centre = nn.Linear(2, features, bias=False)
        nn.init.zeros_(self.depth.weight)
        nn.init.zeros_(self.centre.weight)

    def forward(self, end: Tensor, places: Places) -> Tensor:
        """end [n, F] -> features [n, F]; depths beyond the last embedding share it."""
        known = places.depth.clamp(max=self.depth.num_embeddings - 1)
        features: Tensor = end + self.depth(known) + self.centre(places.centre)
        return features


class NoPosition(nn.Module):
    """A look does not know where it lies."""

    def forward(self, end: Tensor, places: Places) -> Tensor:  # noqa: ARG002 (a position's)
        """end [n, F] as it is."""
        return end


def place_code(row: Tensor, column: Tensor, depth: Tensor, width: int) -> Tensor:
    """Sines and cosines of three coordinates, float [n] each: float [n, width].

    [sin(y f) | cos(y f) | sin(x f) | cos(x f) | sin(s f) | cos(s f) | zeros], with width // 6
    frequencies f from 1 down to 1/100. Source: reference code of TNet (NeurIPS 2021).

    >>> place_code(torch.zeros(1), torch.zeros(1), torch.zeros(1), 14).tolist()[0][:5]
    [0.0, 0.0, 1.0, 1.0, 0.0]
    """
    angles = torch.stack([row.float(), column.float(), depth.float()], dim=1)[:, :, None] * _frequencies(
        width // 6, row.device
    )
    waves = torch.stack([torch.sin(angles), torch.cos(angles)], dim=2).flatten(1)
    return functional.pad(waves, (0, width - waves.shape[1]))


@cache
def _frequencies(count: int, device: torch.device) -> Tensor:
    """From 1 down to 1/100, evenly in logarithms: float32 [count]."""
    with torch.inference_mode(False):  # kept beyond the pass that asks first
        steps = torch.arange(count, device=device, dtype=torch.float64) / max(1, count - 1)
        return (100.0**-steps).float()


class CodedPosition(nn.Module):
    """Sines and cosines of the place, mapped linearly: the position module of TNet (NeurIPS 2021).

    `code`: swish(end + map of the code). `concat`: map of end and code, without activation.
    windows: along a side; the path's cell has that many cells of the next depth along a side.
    """

    def __init__(self, features: int, settings: PositionSettings, windows: int) -> None:
        super().__init__()
        self._settings, self._windows = settings, windows
        self.width = features // settings.divisor
        inputs = self.width + (features if settings.form == "concat" else 0)
        self.code = nn.Linear(inputs, features)

    def forward(self, end: Tensor, places: Places) -> Tensor:
        """end [n, F] -> features [n, F]."""
        row, column = self._cells(places).unbind(dim=1)
        code = place_code(row, column, places.depth, self.width)
        if self._settings.form == "concat":
            joined: Tensor = self.code(torch.cat([end, code], dim=1))
            return joined
        return functional.silu(end + self.code(code))

    def _cells(self, places: Places) -> Tensor:
        """Whole coordinates [n, 2] from those that run from -1 to 1."""
        depth = places.depth[:, None]
        if self._settings.coordinates == "path":
            return torch.round(((places.path.double() + 1) * self._windows**depth - 1) / 2)
        return torch.round((places.centre.double() + 1) * 2**depth - 1)


def position_of(settings: PositionSettings, features: int, depths: int, windows: int) -> nn.Module:
    """The position module of these settings, for feature vectors of length `features`."""
    if settings.form == "none":
        return NoPosition()
    if settings.form == "centre":
        return CentrePosition(features, depths)
    return CodedPosition(features, settings, windows)
