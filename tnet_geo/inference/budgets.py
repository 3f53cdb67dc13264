"""What a walk may cost, and how many looks that makes by arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tnet_geo.errors import UsageError
from tnet_geo.grid import Window, root_of
from tnet_geo.model.settings import WalkSettings

__all__ = ["NO_BUDGET", "Budget", "most_looks", "walk_with"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of every walk; none by default.

    A walk goes depth by depth with `keep` children of each tile, or, with `tiles`, best-first. The other
    three end either of them early. The first look is always made, so that every site gets an answer.

    Raises:
        UsageError: a limit that no walk can keep.
    """

    tiles: int | None = None
    """Looks per site. Of all children of all tiles seen, the next look is at the one with the highest
    probability of its path; how many children of one tile are kept is left to that."""
    stop_at: float | None = None
    """Between 0 and 1: a walk whose answer so far has this calibrated confidence looks no further."""
    bytes: int | None = None
    """Decoded bytes per site; a tile that would go beyond is not looked at."""
    deadline: float | None = None
    """Seconds for a whole call. After that walks under way answer with what they have seen, and sites that
    have not begun get their first look."""

    def __post_init__(self) -> None:
        if self.tiles is not None and self.tiles < 1:
            raise UsageError(f"A budget of {self.tiles} tiles is no walk: take 1 or more.")
        if self.stop_at is not None and not 0 < self.stop_at < 1:
            raise UsageError(f"No walk stops at confidence {self.stop_at:g}: take a number between 0 and 1.")
        if self.bytes is not None and self.bytes < 1:
            raise UsageError(f"A budget of {self.bytes} bytes is no walk: take 1 or more.")
        if self.deadline is not None and not self.deadline >= 0:
            raise UsageError(f"A deadline of {self.deadline:g} seconds has passed: take 0 or more.")

    def check(self, walk: WalkSettings) -> None:
        """Refuse a budget of tiles for walks in which no head says what is best.

        Raises: UsageError.
        """
        if self.tiles is not None and walk.policy != "location":
            raise UsageError(f"A budget of tiles needs walks led by a location head, not {walk.policy} ones.")


NO_BUDGET = Budget()


def walk_with(walk: WalkSettings, keep: Sequence[int] | None, budget: Budget) -> WalkSettings:
    """The walk that a bundle was trained with, with another `keep` if one is given.

    Raises:
        UsageError: both `keep` and a budget of tiles say how wide to look, or `keep` is no list of counts.
    """
    if keep is None:
        return walk
    if budget.tiles is not None:
        raise UsageError("`keep` has no say where a budget of tiles picks the best first: give one of them.")
    if any(count < 1 for count in keep):
        raise UsageError(f"No walk keeps {', '.join(map(str, keep))} children: take numbers from 1 on.")
    return walk.model_copy(update={"keep": tuple(keep)})


def most_looks(window: Window, half_px: int, walk: WalkSettings, budget: Budget = NO_BUDGET) -> int:
    """Looks that a walk over `window` takes at most: as many as if no two parents shared a child.

    >>> most_looks(Window(0, 0, 896, 896), 112, WalkSettings(keep=(2, 1)))
    5
    """
    root = root_of(window, half_px)
    if walk.policy == "dense":
        rows = -(-window.bottom // (2 * half_px)) - window.row // (2 * half_px)
        return rows * (-(-window.right // (2 * half_px)) - window.col // (2 * half_px))
    looks = wide = 1
    for depth in range(root.level):
        places = ((2 << (depth + 1)) - 1) ** 2  # tiles of the children's level within the root
        kept = wide * walk.keep_at(depth)
        wide = kept if walk.duplicates == "twice" else min(kept, places)
        if budget.tiles is not None:
            wide = places
        looks += wide
    return looks if budget.tiles is None else min(looks, budget.tiles)
