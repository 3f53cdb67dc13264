"""What all pyramids of one archive have in common: written once into archive.json, never changed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

__all__ = ["FORMAT", "VERSION", "ArchiveSettings"]

FORMAT = "tnet-geo archive"
VERSION = 1
"""Of the archive's layout; another number means that this code must not read it."""
CANVAS_SIDES = range(16, 4097)
"""Sides of a canvas in pixels: what one site of a pack may sensibly be."""


class ArchiveSettings(BaseModel):
    """How an archive's pyramids are made.

    >>> ArchiveSettings(half_px=32).shard_px
    512
    >>> ArchiveSettings(canvas="fit:896").store
    'packs'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    half_px: PositiveInt = 112
    """Lattice step at every level and side of a stored chunk, in pixels."""
    canvas: str = "native"
    """`native`: scenes as they are, not resampled. `fit:N`: every site with its context, N x N pixels."""
    store: Literal["scenes", "packs"] = "scenes"
    """`packs`: small scenes share arrays, the others stay scenes. Sites on a canvas are always packed."""
    reduction: Literal["area"] = "area"
    """`area`: a coarser pixel is the mean of its valid ones among 2 x 2 finer pixels."""
    codec: Literal["fast", "interop"] = "fast"
    """`fast`: zstd level 1; `interop`: gzip level 1. Both with a crc32c of every chunk."""
    shard_chunks: Annotated[int, Field(ge=2, multiple_of=2)] = 16
    """Chunks along one side of a full shard (one file) of a scene; even, so that shards halve exactly."""

    @field_validator("canvas")
    @classmethod
    def _known_canvas(cls, canvas: str) -> str:
        if canvas == "native":
            return canvas
        side = re.fullmatch(r"fit:([1-9]\d*)", canvas)
        if side is None or int(side[1]) not in CANVAS_SIDES:
            least, most = CANVAS_SIDES[0], CANVAS_SIDES[-1]
            raise ValueError(
                f"a canvas is 'native' or 'fit:N' with a side N of {least} to {most} pixels, such as "
                f"'fit:896', not {canvas!r}"
            )
        return canvas

    @model_validator(mode="before")
    @classmethod
    def _packed_on_a_canvas(cls, values: Any) -> Any:
        """Sites on a canvas are small and of one shape: they are packed whatever was asked for."""
        if isinstance(values, dict) and str(values.get("canvas", "")).startswith("fit:"):
            return values | {"store": "packs"}
        return values

    @property
    def shard_px(self) -> int:
        """Side of a full shard, in pixels."""
        return self.shard_chunks * self.half_px

    @property
    def canvas_px(self) -> int | None:
        """Side of the square that every site is resampled to; None on the native canvas."""
        return None if self.canvas == "native" else int(self.canvas.removeprefix("fit:"))
