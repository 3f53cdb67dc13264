"""What a walk leaves behind: its looks in order, and the answer that they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from tnet_geo.grid import Tile

__all__ = ["Answer", "EndedBy", "Failure", "Look", "Step", "Trail"]

EndedBy = Literal["complete", "tiles", "stop_at", "bytes", "deadline"]
"""Why a walk looked no further: nothing was left to look at, or the budget of that name."""


class Step(NamedTuple):
    """One look in short, as pictures in memory are answered with."""

    level: int
    row: int
    col: int
    probability: float
    """See `Look`."""


@dataclass(frozen=True, slots=True)
class Look:
    """One tile that was read and seen by the network."""

    order: int
    """Position in the walk; the root is 0."""
    depth: int
    """0 at the root, 1 at its children, ..."""
    tile: Tile
    parent: int | None
    """`order` of the look that chose this tile first; None for tiles that nobody chose."""
    probability: float
    """Share that the location head gave this child among its parent's candidates; the root has 1."""
    path_log_probability: float
    """Sum of the logarithms of the probabilities from the root down to here."""
    evidence: float
    """This look's additive share of the predicted class's logit."""


@dataclass(frozen=True, slots=True)
class Trail:
    """All looks of one walk, in the order in which they were made."""

    looks: tuple[Look, ...]

    def __len__(self) -> int:
        return len(self.looks)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one site was taken for, and why.

    `logits` and `probabilities` follow the bundle's order of classes. Evidence is exact: the
    predicted class's logit is `bias` plus the sum of the evidence of all looks.
    """

    site_id: str
    label: str
    confidence: float
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    bias: float
    trail: Trail
    bytes_decoded: int
    """Bytes of the chunks that the walk's tiles are made of, validity included."""
    ended_by: EndedBy = "complete"


@dataclass(frozen=True, slots=True)
class Failure:
    """A site that got no answer, and the reason in one sentence."""

    site_id: str
    reason: str
