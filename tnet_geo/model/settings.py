"""What a network is made of and how it walks: the tables `[network]` and `[walk]` of a bundle."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

__all__ = ["Aggregation", "NetworkSettings", "PixelSettings", "Policy", "WalkSettings"]

Aggregation = Literal["mean", "gated_attention"]
Policy = Literal["location", "random", "dense"]


class PixelSettings(BaseModel):
    """Pixels that a network was trained on, and how they are scaled: (value - mean) / std."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bands: PositiveInt = 3
    dtype: str = "uint8"
    mean: tuple[float, ...] = (110.0, 110.0, 110.0)
    """One number a band, in the source's units."""
    std: tuple[float, ...] = (45.0, 45.0, 45.0)


class NetworkSettings(BaseModel):
    """Architecture of a `TraversalNetwork`; networks of equal settings have weights of equal shapes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = "plain"
    """`plain`, or `timm/NAME`."""
    base_px: PositiveInt = Field(default=64, multiple_of=4)
    classes: PositiveInt
    depths: PositiveInt
    """Depths that have an embedding of their own; deeper looks share the last one."""
    aggregation: Aggregation = "gated_attention"
    pixels: PixelSettings = Field(default_factory=PixelSettings)


class WalkSettings(BaseModel):
    """How far and how wide a walk looks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: Policy = "location"
    """Who chooses: the location head, chance (a rival), or nobody: `dense` looks at every native tile."""
    keep: tuple[PositiveInt, ...] = (2, 1, 1)
    """Children kept below each tile of depth 0, 1, ...; the last number holds for all deeper ones.
    Empty: the root is the only look."""
    seed: int = 0
    """Only for `random`."""

    def keep_at(self, depth: int) -> int:
        """Children to keep below a tile at `depth`."""
        return self.keep[min(depth, len(self.keep) - 1)] if self.keep else 0
