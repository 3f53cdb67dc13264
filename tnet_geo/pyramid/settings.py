"""What all pyramids of one archive have in common: written once into archive.json, never changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

__all__ = ["FORMAT", "VERSION", "ArchiveSettings"]

FORMAT = "tnet-geo archive"
VERSION = 1
"""Of the archive's layout; another number means that this code must not read it."""


class ArchiveSettings(BaseModel):
    """How an archive's pyramids are made.

    >>> ArchiveSettings(half_px=32).shard_px
    512
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    half_px: PositiveInt = 112
    """Lattice step at every level and side of a stored chunk, in pixels."""
    canvas: Literal["native"] = "native"
    """`native`: scenes as they are, not resampled."""
    reduction: Literal["area"] = "area"
    """`area`: a coarser pixel is the mean of its valid ones among 2 x 2 finer pixels."""
    codec: Literal["fast", "interop"] = "fast"
    """`fast`: zstd level 1; `interop`: gzip level 1. Both with a crc32c of every chunk."""
    shard_chunks: Annotated[int, Field(ge=2, multiple_of=2)] = 16
    """Chunks along one side of a full shard (one file); even, so that shards halve exactly."""

    @property
    def shard_px(self) -> int:
        """Side of a full shard, in pixels."""
        return self.shard_chunks * self.half_px
