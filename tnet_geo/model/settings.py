"""What a network is made of and how it walks: the tables `[network]` and `[walk]` of a bundle.

Every switch whose documentation says "published" has a value that makes the network the published one
(TNet, NeurIPS 2021, or a sibling of it); `configs/models/` holds them together.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

__all__ = [
    "Aggregation",
    "ArchitectureSettings",
    "LocationSettings",
    "NetworkSettings",
    "PixelSettings",
    "Policy",
    "PositionSettings",
    "WalkSettings",
]

Aggregation = Literal["mean", "feature_weighting", "gated_attention", "ltpa"]
Policy = Literal["location", "random", "dense"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PixelSettings(_Table):
    """Pixels that a network was trained on, and how they are scaled: (value - mean) / std."""

    bands: PositiveInt = 3
    dtype: str = "uint8"
    mean: tuple[float, ...] = (110.0, 110.0, 110.0)
    """One number a band, in the source's units."""
    std: tuple[float, ...] = (45.0, 45.0, 45.0)


class PositionSettings(_Table):
    """How the place of a look enters its feature."""

    form: Literal["centre", "code", "concat", "none"] = "centre"
    """`centre`: plus an embedding of the depth and a linear map of the tile's centre. `code` (published):
    swish(feature + linear map of sines and cosines of the place). `concat` (published, ImageNet): linear
    map of feature and code side by side. `none`: a look does not know where it lies."""
    coordinates: Literal["lattice", "path"] = "lattice"
    """Of the code. `lattice`: a place has one code. `path` (published): it has one for each way there."""
    divisor: PositiveInt = 4
    """The code has features // divisor numbers."""


class LocationSettings(_Table):
    """How a look tells where to look closer."""

    form: Literal["map", "cells", "context", "none"] = "map"
    """`map`: one score map, averaged over each child's footprint. `cells` (published): one cell of the tap
    stands for each window. `context` (published, ImageNet): the same, told the look's own feature.
    `none`: a network that never looks closer."""
    tap: str = "auto"
    """`auto`: the backbone's deepest map of at least 8 x 8 cells. Else one of its modules: `blocks.3`."""
    cells: tuple[int, ...] = ()
    """Rows, and columns, of the tap that stand for the windows; `cells` and `context` need them."""
    scores: Literal["free", "unit"] = "free"
    """`unit` (published): divided by their Euclidean norm, so that probabilities never become sharp."""
    temperature: Literal["learned", "fixed"] = "learned"
    """A learned factor before the softmax, or none (published)."""
    position: bool = False
    """Whether the head is told where the tile lies."""
    parent: bool = False
    """Whether the head is told the feature of the look that chose the tile."""
    stop_gradient: bool = False
    """Published: nothing that the head learns reaches the backbone."""
    fraction: float = Field(default=0.5, gt=0, lt=1)
    """Side of a window as a share of its parent's. Only 3 x 3 windows of one half lie on the lattice."""

    @property
    def windows(self) -> int:
        """Windows along a side."""
        return len(self.cells) or 3

    @property
    def on_lattice(self) -> bool:
        """Whether windows are the nine children of the lattice, which is what archives can be walked by."""
        return self.windows == 3 and self.fraction == 0.5

    @model_validator(mode="after")
    def _cells_where_needed(self) -> Self:
        sampled = self.form in {"cells", "context"}
        if sampled != bool(self.cells):
            raise ValueError(f"form {self.form!r} {'needs' if sampled else 'takes no'} cells")
        return self


class ArchitectureSettings(_Table):
    """What a run may choose of a network; the sites give the rest."""

    backbone: str = "plain"
    """`plain`, `timm/NAME`, or `bagnet77`."""
    base_px: PositiveInt = 64
    aggregation: Aggregation = "gated_attention"
    """`mean` (published), `feature_weighting` (published, birds), `gated_attention`, `ltpa`."""
    position: PositionSettings = Field(default_factory=PositionSettings)
    location: LocationSettings = Field(default_factory=LocationSettings)
    feature_norm: Literal["layer", "none"] = "layer"
    """Layer norm of the backbone's end, or none (published)."""
    batch_norm: Literal["shared", "by_depth", "per_depth"] = "shared"
    """Of the backbone. `shared`: looks of all depths are normalised together in training. `by_depth`
    (published): every depth in a batch of its own, one set of moving statistics. `per_depth`: a set for
    each depth."""
    norm_momentum: PositiveFloat | None = None
    """Of the backbone's moving statistics, in torch's sense (published: 0.01); None: the backbone's own."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of features before the classifier, in training."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth of the backbone's last block, in training; earlier blocks have less."""
    tile_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of looks that are left out in training; the root never is. Published: 0."""

    @model_validator(mode="after")
    def _quarters_of_tiles(self) -> Self:
        if self.location.on_lattice and self.base_px % 4:
            raise ValueError(f"base_px {self.base_px} is no multiple of 4")
        return self


class NetworkSettings(ArchitectureSettings):
    """Architecture of a `TraversalNetwork`; networks of equal settings have weights of equal shapes."""

    classes: PositiveInt
    depths: PositiveInt
    """Depths that have an embedding of their own; deeper looks share the last one."""
    pixels: PixelSettings = Field(default_factory=PixelSettings)


class WalkSettings(_Table):
    """How far and how wide a walk looks."""

    policy: Policy = "location"
    """Who chooses: the location head, chance (a rival), or nobody: `dense` looks at every native tile."""
    keep: tuple[PositiveInt, ...] = (2, 1, 1)
    """Children kept below each tile of depth 0, 1, ...; the last number holds for all deeper ones.
    Empty: the root is the only look."""
    duplicates: Literal["once", "twice"] = "once"
    """A child that two parents share is looked at once, or for each of them (published)."""
    order: Literal["best", "window"] = "best"
    """Children of a parent are looked at best first, or in the order of windows (published)."""
    seed: int = 0
    """Only for `random`."""

    def keep_at(self, depth: int) -> int:
        """Children to keep below a tile at `depth`."""
        return self.keep[min(depth, len(self.keep) - 1)] if self.keep else 0
