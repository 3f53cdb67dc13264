"""Windows of any number and size in a square: the geometry of published TNet.

Its 3 x 3 windows of one half are the children of our lattice; its 5 x 5 windows are not.
Source: reference code of TNet (NeurIPS 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Windows"]


@dataclass(frozen=True)
class Windows:
    """`count` x `count` windows, evenly spread over a square and a border around it."""

    side: int
    """Of a window, in pixels of the square."""
    stride: int
    before: int
    """Pixels of border above and to the left, which are zero for the network."""
    after: int

    @classmethod
    def of(cls, square: int, count: int, fraction: float) -> Windows:
        """The windows of a square of `square` pixels a side, each of `fraction` of its side.

        >>> Windows.of(224, 5, 0.35)
        Windows(side=78, stride=37, before=1, after=1)
        """
        side = round(square * fraction)  # halves to even, as numpy rounds
        stride = math.ceil((square - side) / (count - 1))
        border = (count - 1) * stride + side - square
        before = math.ceil(border / 2)
        return cls(side, stride, before, border - before)

    def origin(self, index: int) -> int:
        """Where window `index` along an axis begins, in pixels of the square; in its border below 0."""
        return index * self.stride - self.before
