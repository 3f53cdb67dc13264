"""Stage B, and every other stage that trains on routes known before the network is asked.

The location head learns the order of candidate children that `targets` made from class labels, on
walks that follow that order with random detours; the features stay unfrozen, which is worth 20 points
(measured). With other routes the same stage trains two rivals: the root alone, and random walks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.grid import Tile, children, footprint
from tnet_geo.learning.looks import LookBatch, look
from tnet_geo.learning.losses import list_loss
from tnet_geo.learning.settings import LocationSettings, Schedule
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.learning.stages import Draw, Room, Validation, walk_validation
from tnet_geo.learning.targets import ScoreTree, padded
from tnet_geo.model import WalkSettings

__all__ = ["Route", "RouteStage", "location_loss", "random_route", "root_route", "taught_route"]

Route = Callable[[LabelledSite, Draw], list[Tile]]
"""All tiles of one walk, distinct, root first."""


def root_route(site: LabelledSite, draw: Draw) -> list[Tile]:  # noqa: ARG001 (a route's)
    """The root and nothing else."""
    return [site.root]


def random_route(walk: WalkSettings) -> Route:
    """Children chosen by chance."""
    return lambda site, draw: _route(site, walk, lambda _: draw.chance.random(9))


def taught_route(trees: Mapping[int, ScoreTree], walk: WalkSettings, detours: float) -> Route:
    """The best children by score, and at a share `detours` of the parents any."""

    def route(site: LabelledSite, draw: Draw) -> list[Tile]:
        def scores(tile: Tile) -> NDArray[np.floating]:
            below = trees[site.number].below(tile)
            chance = draw.chance.random(9)
            if below is None or draw.chance.random() < detours:
                return chance if below is None else np.where(np.isfinite(below), chance, -np.inf)
            return below + 1e-6 * chance  # children that share their best descendant tie

        return _route(site, walk, scores)

    return route


def _route(
    site: LabelledSite, walk: WalkSettings, scores_of: Callable[[Tile], NDArray[np.floating]]
) -> list[Tile]:
    """Follow the highest scores down to native tiles."""
    half_px, window = site.task.reader.spec.half_px, site.task.window
    found, parents = [site.root], [site.root]
    while parents[0].level > 0 and walk.keep:
        keep = walk.keep_at(site.root.level - parents[0].level)
        chosen: dict[Tile, None] = {}
        for parent in parents:
            touching = [footprint(child, half_px).touches(window) for child in children(parent)]
            scores = np.where(touching, scores_of(parent), -np.inf)
            best = [k for k in np.argsort(-scores, kind="stable")[:keep] if np.isfinite(scores[k])]
            chosen.update(dict.fromkeys(children(parent)[k] for k in best))
        parents = list(chosen)
        found += parents
        if not parents:
            break
    return found


def location_loss(
    child_logits: Tensor, tiles: Sequence[tuple[int, Tile]], trees: Mapping[int, ScoreTree], sharpness: float
) -> Tensor:
    """The list loss at every tile (of site number, tile) with scored children, summed over depths.

    child_logits [n, 9], one row per entry of `tiles`.
    """
    by_level: dict[int, tuple[list[int], list[NDArray[np.float32]]]] = {}
    for row, (number, tile) in enumerate(tiles):
        below = trees[number].below(tile) if tile.level else None
        if below is not None:
            rows, scores = by_level.setdefault(tile.level, ([], []))
            rows.append(row)
            scores.append(below)
    total = child_logits.sum() * 0
    for rows, scores in by_level.values():
        target = torch.from_numpy(np.stack(scores)).to(child_logits.device)
        total = total + list_loss(child_logits[rows], target, sharpness)
    return total


class RouteStage:
    """Class loss of walks along given routes, plus the location loss where there are scores."""

    def __init__(
        self,
        room: Room,
        schedule: Schedule,
        route: Route,
        *,
        name: str = "location",
        trees: Mapping[int, ScoreTree] | None = None,
        order: LocationSettings | None = None,
    ) -> None:
        self.room, self.schedule, self.name = room, schedule, name
        self._route, self._trees, self._order = route, trees, order
        self.modules = nn.ModuleDict({"network": room.network})

    def loss(self, sites: Sequence[LabelledSite], draw: Draw, progress: float) -> Tensor:  # noqa: ARG002 (a stage's)
        """Cross entropy of the walks, plus the location loss."""
        network = self.room.network.train()
        requests = [draw.request(site, self._route(site, draw)) for site in sites]
        output = look(network, LookBatch.read(requests, network, self.room.device))
        bag, mask = padded(output.features.split([len(request.tiles) for request in requests]))
        loss = functional.cross_entropy(network.aggregate(bag, mask).logits, self.room.labels(sites))
        if self._trees is None or self._order is None:
            return loss
        tiles = [(request.site.number, tile) for request in requests for tile in request.tiles]
        order = location_loss(output.child_logits, tiles, self._trees, self._order.sharpness)
        return loss + self._order.order_weight * order

    def validate(self) -> Validation:
        """Real walks under the room's settings."""
        return walk_validation(self.room)
