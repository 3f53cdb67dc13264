"""Stage C: classes and looking together, by policy gradient through sampled walks.

Several walks per site are drawn from the location head; each is rewarded with the probability that it
gives to the label and judged against the mean of the others. A tile that several walks of a site want
is looked at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.grid import Tile, children
from tnet_geo.inference import candidates_of
from tnet_geo.learning.augmentation import SiteAugmentation
from tnet_geo.learning.estimators import policy_loss
from tnet_geo.learning.location import location_loss
from tnet_geo.learning.looks import LookBatch, LookRequest, look, parent_row
from tnet_geo.learning.settings import JointSettings
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.learning.stages import Draw, Room, Validation, walk_validation
from tnet_geo.learning.targets import ScoreTree, padded
from tnet_geo.model import plackett_luce_log_prob, sample_children

__all__ = ["JointStage", "SampledWalks", "sample_walks"]


@dataclass
class SampledWalks:
    """Walks of some sites, all sampled from one network; walk w belongs to site w // walks."""

    log_probabilities: Tensor
    """float32 [walks of all sites], with gradient: of the decisions that were taken."""
    logits: Tensor
    """float32 [walks of all sites, classes]."""
    child_logits: Tensor
    """float32 [n, 9]: of every distinct tile of every site."""
    tiles: list[tuple[int, Tile]] = field(default_factory=list)
    """Site number and tile of every row of `child_logits`."""


class _Sampler:
    """Grows all walks by one depth at a time; rows are distinct tiles of distinct sites."""

    def __init__(self, room: Room, sites: Sequence[LabelledSite], draw: Draw, walks: int) -> None:
        self.room, self.draw = room, draw
        self.sites = [site for site in sites for _ in range(walks)]
        self.requests = {site.number: draw.request(site, ()) for site in sites}
        self.frontier: list[list[Tile]] = [[site.root] for site in self.sites]
        self.walk_rows: list[list[int]] = [[] for _ in self.sites]
        self.features: list[Tensor] = []
        self.child_logits: list[Tensor] = []
        self.tiles: list[tuple[int, Tile]] = []
        self.log_probabilities = torch.zeros(len(self.sites), device=room.device)

    def grow(self) -> None:
        """Look at every tile of the frontier, once per site, then sample the children of each walk."""
        wanted: dict[int, dict[Tile, None]] = {}
        for site, tiles in zip(self.sites, self.frontier, strict=True):
            wanted.setdefault(site.number, {}).update(dict.fromkeys(tiles))
        requests = [
            LookRequest(self.requests[number].site, tuple(tiles), self._augmentation(number))
            for number, tiles in wanted.items()
            if tiles
        ]
        batch = LookBatch.read(requests, self.room.network, self.room.device)
        output = look(self.room.network, batch, self._parents(requests))
        first = len(self.tiles)
        self.tiles += [(request.site.number, tile) for request in requests for tile in request.tiles]
        self.features.append(output.features)
        self.child_logits.append(output.child_logits)
        row_of = {key: first + n for n, key in enumerate(self.tiles[first:])}
        for rows, site, tiles in zip(self.walk_rows, self.sites, self.frontier, strict=True):
            rows += [row_of[site.number, tile] for tile in tiles]
        self._choose({key: row - first for key, row in row_of.items()}, output.child_logits, batch)

    def _parents(self, requests: Sequence[LookRequest]) -> Tensor | None:
        """Features [n, F] of the looks above the requested tiles, if the location head asks for them."""
        if not self.room.network.settings.location.parent or not self.features:
            return None
        index: dict[int, dict[Tile, int]] = {}
        for row, (number, tile) in enumerate(self.tiles):
            index.setdefault(number, {})[tile] = row
        rows = [parent_row(tile, index[r.site.number]) for r in requests for tile in r.tiles]
        return torch.cat(self.features)[rows]

    def _augmentation(self, number: int) -> SiteAugmentation | None:
        return self.requests[number].augmentation

    def _choose(self, row_of: dict[tuple[int, Tile], int], child_logits: Tensor, batch: LookBatch) -> None:
        """Sample children of every frontier tile of every walk; one decision per (walk, tile)."""
        walk_of, tile_of, rows, masks = [], [], [], []
        for w, (site, tiles) in enumerate(zip(self.sites, self.frontier, strict=True)):
            for tile in tiles:
                if tile.level == 0:
                    continue
                row = row_of[site.number, tile]
                reader = site.task.reader
                mask = candidates_of(tile, site.task.window, batch.validity[row], reader.spec.half_px)
                walk_of.append(w)
                tile_of.append(tile)
                rows.append(row)
                masks.append(mask)
        self.frontier = [[] for _ in self.sites]
        if not rows:
            return
        depth = self.sites[walk_of[0]].root.level - tile_of[0].level
        candidates = torch.from_numpy(np.stack(masks)).to(self.room.device)
        logits = child_logits[rows]
        picks = sample_children(logits, candidates, self.room.walk.keep_at(depth), self.draw.generator)
        taken = plackett_luce_log_prob(logits, candidates, picks)
        owners = torch.tensor(walk_of, device=self.room.device)
        self.log_probabilities = self.log_probabilities.index_add(0, owners, taken)
        for w, tile, chosen in zip(walk_of, tile_of, picks, strict=True):
            below = children(tile)
            self.frontier[w] += [below[k] for k in chosen if below[k] not in self.frontier[w]]

    def result(self) -> SampledWalks:
        """Everything that the walks saw, added up per walk."""
        features = torch.cat(self.features)
        bag, mask = padded([features[rows] for rows in self.walk_rows])
        logits = self.room.network.aggregate(bag, mask).logits
        return SampledWalks(self.log_probabilities, logits, torch.cat(self.child_logits), self.tiles)


def sample_walks(room: Room, sites: Sequence[LabelledSite], draw: Draw, walks: int) -> SampledWalks:
    """`walks` walks of every site, drawn from the network's location head (in its present mode)."""
    sampler = _Sampler(room, sites, draw, walks)
    while any(sampler.frontier):
        sampler.grow()
    return sampler.result()


class JointStage:
    """Class loss of sampled walks, policy gradient, and stage B's loss fading out."""

    name = "joint"

    def __init__(
        self, room: Room, settings: JointSettings, trees: Mapping[int, ScoreTree] | None, sharpness: float
    ) -> None:
        self.room, self.schedule = room, settings
        self._trees, self._sharpness = trees, sharpness
        self.modules = nn.ModuleDict({"network": room.network})

    def loss(self, sites: Sequence[LabelledSite], draw: Draw, progress: float) -> Tensor:
        """Reward = probability of the label; baseline = the site's other walks."""
        self.room.network.train()
        walks = self.schedule.walks
        sampled = sample_walks(self.room, sites, draw, walks)
        labels = self.room.labels(sites).repeat_interleave(walks)
        losses = functional.cross_entropy(sampled.logits, labels, reduction="none")
        shape = (len(sites), walks)
        policy = policy_loss(sampled.log_probabilities.reshape(shape), torch.exp(-losses).reshape(shape))
        weight = self.schedule.location_weight * (1 - progress)
        if self._trees is None or not weight:
            return losses.mean() + policy
        order = location_loss(sampled.child_logits, sampled.tiles, self._trees, self._sharpness)
        return losses.mean() + policy + weight * order

    def validate(self) -> Validation:
        """Real walks under the room's settings."""
        return walk_validation(self.room)
