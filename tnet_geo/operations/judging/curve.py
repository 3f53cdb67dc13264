"""Accuracy against tiles: one walk under every budget, at settings that arithmetic alone chooses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal, NamedTuple

from tnet_geo.imagery import Site
from tnet_geo.inference import Budget, Classifier
from tnet_geo.inference.budgets import NO_BUDGET
from tnet_geo.inference.expectations import Contradiction
from tnet_geo.model import Bundle, WalkSettings
from tnet_geo.operations.judging.contest import Contest, Contestant, contest
from tnet_geo.pyramid import SceneArchive
from tnet_geo.trail import EndedBy
from tnet_geo.units import bytes_text, seconds_text

__all__ = ["CurvePoint", "Family", "curve_lines", "curve_of", "grid_of"]

Family = Literal["keep", "tiles", "stop-at", "tiles and stop-at", "bytes", "deadline"]

WIDTHS = (1, 2, 3, 5, 9)
"""Children kept below the root; one below each of them. Nine are all that there are."""
HALVINGS = range(1, 7)
"""Doubt that is left where a walk stops: one half, one quarter, ..."""
SHARES_OF_TIME = (0.125, 0.25, 0.5, 0.75)
"""Of the seconds that the walk takes when nobody hurries it."""


@dataclass(frozen=True)
class CurvePoint:
    """All sites of a split, walked under one budget."""

    family: Family
    options: str
    """What the command line would be told."""
    row: Contestant
    standard_error: float
    """Of the accuracy, from the number of sites alone."""
    ended_by: Mapping[EndedBy, int]
    """Sites by what ended their walk."""


class Setting(NamedTuple):
    """One point of the grid."""

    family: Family
    options: str
    walk: WalkSettings
    budget: Budget


def grid_of(walk: WalkSettings, whole: Contest) -> list[Setting]:
    """Settings around the bundle's own walk, `whole` being what it took: nothing is chosen by accuracy."""
    trails = [answer.trail.looks for answer in whole.answers]
    longest = max(len(trail) for trail in trails)
    heaviest = max(answer.bytes_decoded for answer in whole.answers)
    deepest = max(trail[0].tile.level for trail in trails)
    tiles = _doublings(WIDTHS[-1] * deepest + 1)
    confidences = [1 - 0.5**n for n in HALVINGS]
    sizes = [-(-heaviest * looks // longest) for looks in _doublings(longest)]
    seconds = whole.row.seconds * (len(whole.answers) + len(whole.failures))
    budgets: dict[Family, list[Budget]] = {
        "tiles": [Budget(tiles=count) for count in tiles],
        "stop-at": [Budget(stop_at=confidence) for confidence in confidences],
        "tiles and stop-at": [Budget(tiles=tiles[-1], stop_at=confidence) for confidence in confidences],
        "bytes": [Budget(bytes=size) for size in sizes],
        "deadline": [Budget(deadline=seconds * share) for share in SHARES_OF_TIME],
    }
    wide = [walk.model_copy(update={"keep": (width, 1)}) for width in WIDTHS]
    return [
        *(Setting("keep", f"--keep {kept.keep[0]},1", kept, NO_BUDGET) for kept in wide),
        *(Setting(name, _words(one), walk, one) for name, some in budgets.items() for one in some),
    ]


def _doublings(most: int) -> list[int]:
    """1, 2, 4, ... up to the first that is not below `most`."""
    return [1 << n for n in range((most - 1).bit_length() + 1)]


def _words(budget: Budget) -> str:
    """As the command line has it."""
    limits = {
        "--tiles": budget.tiles,
        "--stop-at": budget.stop_at,
        "--bytes": budget.bytes,
        "--deadline": None if budget.deadline is None else float(f"{budget.deadline:.3g}"),
    }
    return " ".join(f"{name} {value}" for name, value in limits.items() if value is not None)


def curve_of(
    bundle: Bundle,
    archive: SceneArchive,
    sites: Sequence[Site],
    *,
    accept: Collection[Contradiction] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[CurvePoint, ...]:
    """Walk all sites once for every setting around the bundle's own; `progress` is told (done, total)."""
    grid = grid_of(bundle.facts.walk, contest(Classifier(bundle, accept=accept), archive, sites))
    points = []
    for done, setting in enumerate(grid):
        if progress is not None:
            progress(done, len(grid))
        classifier = Classifier(bundle, walk=setting.walk, budget=setting.budget, accept=accept)
        found = contest(classifier, archive, sites)
        points.append(_point(setting, found))
    if progress is not None:
        progress(len(grid), len(grid))
    return tuple(points)


def _point(setting: Setting, found: Contest) -> CurvePoint:
    share, count = found.row.accuracy, len(found.answers)
    ended = Counter(answer.ended_by for answer in found.answers)
    error = sqrt(share * (1 - share) / count)
    return CurvePoint(setting.family, setting.options, found.row, error, dict(sorted(ended.items())))


def curve_lines(points: Sequence[CurvePoint]) -> list[str]:
    """One line per setting, for people."""
    width = max(len(point.options) for point in points)
    lines = [f"{'':{width}}  accuracy   +/-    tiles      bytes    a site  ended by"]
    for point in points:
        row = point.row
        ended = ", ".join(f"{name} {count}" for name, count in point.ended_by.items())
        cost = f"{row.tiles:7.2f}  {bytes_text(row.bytes):>9}  {seconds_text(row.seconds):>8}"
        lines.append(
            f"{point.options:{width}}  {row.accuracy:8.3f}  {point.standard_error:.3f}  {cost}  {ended}"
        )
    return lines
