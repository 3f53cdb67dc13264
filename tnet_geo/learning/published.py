"""The published way: classes and looking together, along the walks that the network itself prefers.

Nothing is sampled. The best children are followed, as when answering; their probabilities are moved by
whether the walk, and each look alone, tells the class. Source: TNet (NeurIPS 2021), reference code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tnet_geo.grid import children
from tnet_geo.inference import Walk
from tnet_geo.learning.looks import LookBatch, LookRequest, look
from tnet_geo.learning.published_losses import (
    LookRows,
    PublishedTerms,
    PublishedWeights,
    contrastive_loss,
    log_chosen,
    published_terms,
    sum_of_squares,
)
from tnet_geo.learning.settings import PublishedSettings
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.learning.stages import Draw, Room, Validation, walk_validation
from tnet_geo.learning.targets import padded
from tnet_geo.model import TraversalNetwork

__all__ = ["BASELINE_FACT", "FIRST_BASELINE", "FollowedWalks", "PublishedStage", "follow_walks"]

FIRST_BASELINE = 0.5
BASELINE_FACT = "reward_baseline"
"""Of `BundleFacts.training`: the baseline as it was when the bundle was made."""


class RewardBaseline(nn.Module):
    """A running mean of rewards; a buffer, so that it is kept and restored with the weights."""

    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value))


class FollowedWalks(NamedTuple):
    """Whole walks of some sites, with gradient."""

    logits: Tensor
    """float32 [sites, classes]."""
    combined: Tensor
    """float32 [sites, F]: what their looks add up to."""
    looks: LookRows
    """Of all sites, site by site, in the order in which a site's tiles were looked at."""
    walks: tuple[Walk, ...]
    """Where each site was looked at."""


class _Follower:
    """Grows the walks of all sites by one depth at a time: the network is called once for each depth."""

    def __init__(self, room: Room, sites: Sequence[LabelledSite], draw: Draw) -> None:
        self.room, self.sites = room, sites
        self.walks = [Walk(site.task, room.walk) for site in sites]
        self._augmentations = [draw.request(site, ()).augmentation for site in sites]
        self._child_logits: list[list[Tensor]] = [[] for _ in sites]
        self._candidates: list[list[np.ndarray]] = [[] for _ in sites]

    def grow(self) -> None:
        """Look at every wanted tile of every walk; each walk then chooses for itself."""
        active = [n for n, walk in enumerate(self.walks) if walk.wanted]
        requests = [
            LookRequest(self.sites[n], self.walks[n].wanted, self._augmentations[n], self.walks[n].places)
            for n in active
        ]
        network, device = self.room.network, self.room.device
        batch = LookBatch.read(requests, network, device)
        width = network.classifier.in_features
        parents = torch.cat([self.walks[n].parents(width).to(device) for n in active])
        output = look(network, batch, parents)
        start = 0
        for n, request in zip(active, requests, strict=True):
            rows = slice(start, start + len(request.tiles))
            self._observe(n, output.features[rows], output.child_logits[rows], batch.validity[rows])
            start = rows.stop

    def _observe(self, n: int, features: Tensor, child_logits: Tensor, validity: np.ndarray) -> None:
        walk = self.walks[n]
        candidates = np.stack([walk.candidates(row, valid) for row, valid in enumerate(validity)])
        self._child_logits[n].append(child_logits)
        self._candidates[n] += list(candidates)
        walk.observe(features, child_logits.detach().cpu(), candidates)

    def log_probabilities(self, n: int) -> Tensor:
        """float32 [looks] of site n: of the window that led to each look; 0 at the root."""
        looked = self.walks[n].looked
        child_logits = torch.cat(self._child_logits[n])
        logs = child_logits.new_zeros(len(looked))
        led = [(row, wish.parent, wish.tile) for row, wish in enumerate(looked) if wish.parent is not None]
        if not led:
            return logs
        rows, parents, tiles = zip(*led, strict=True)
        chosen = [children(looked[p].tile).index(tile) for p, tile in zip(parents, tiles, strict=True)]
        candidates = np.stack([self._candidates[n][p] for p in parents])
        device = child_logits.device
        found = log_chosen(
            child_logits[list(parents)],
            torch.from_numpy(candidates).to(device),
            torch.tensor(chosen, device=device),
        )
        return logs.index_put((torch.tensor(rows, device=device),), found)

    def result(self) -> FollowedWalks:
        """Everything that the walks saw, added up."""
        network, device = self.room.network, self.room.device
        bags = [walk.features for walk in self.walks]
        bag, mask = padded(bags)
        weights = network.aggregation(bag, mask)
        sizes = torch.tensor([len(rows) for rows in bags])
        looks = LookRows(
            site=torch.arange(len(bags)).repeat_interleave(sizes).to(device),
            depth=torch.tensor([wish.depth for walk in self.walks for wish in walk.looked], device=device),
            logits=_alone(network, torch.cat(bags)),
            log_probability=torch.cat([self.log_probabilities(n) for n in range(len(bags))]),
        )
        combined = (weights.unsqueeze(-1) * bag).sum(dim=1)
        return FollowedWalks(network.aggregate(bag, mask).logits, combined, looks, tuple(self.walks))


def _alone(network: TraversalNetwork, features: Tensor) -> Tensor:
    """What single looks [n, F] would answer, [n, classes]; each draws its own dropout."""
    shown = functional.dropout(features, network.settings.dropout, network.training)
    logits: Tensor = network.classifier(shown)
    return logits


def follow_walks(room: Room, sites: Sequence[LabelledSite], draw: Draw) -> FollowedWalks:
    """The walk of every site under the room's settings, by the network in its present mode."""
    follower = _Follower(room, sites, draw)
    while any(walk.wanted for walk in follower.walks):
        follower.grow()
    return follower.result()


class PublishedStage:
    """Class losses of walks and of single looks, and a policy gradient for each."""

    name = "published"

    def __init__(self, room: Room, settings: PublishedSettings, baseline: float = FIRST_BASELINE) -> None:
        self.room, self.schedule = room, settings
        self._weights = PublishedWeights(
            settings.walk_class, settings.walk_reward, settings.policy, settings.look_depths
        )
        self._rewards = RewardBaseline(baseline).to(room.device)
        self.modules = nn.ModuleDict({"network": room.network, "rewards": self._rewards})

    @property
    def baseline(self) -> float:
        """The running mean of rewards, which is no part of the network but of what was learned."""
        return self._rewards.value.item()

    def loss(self, sites: Sequence[LabelledSite], draw: Draw, progress: float) -> Tensor:  # noqa: ARG002 (a stage's)
        """The published loss; moves the baseline, after its old value has been used."""
        self.room.network.train()
        return self.total(*self.terms(sites, draw))

    def terms(self, sites: Sequence[LabelledSite], draw: Draw) -> tuple[PublishedTerms, Tensor, Tensor]:
        """The four terms, then the contrastive loss and the sum of squares, all of them unweighted."""
        walks, labels = follow_walks(self.room, sites, draw), self.room.labels(sites)
        terms = published_terms(walks.logits, labels, walks.looks, self._rewards.value.clone(), self._weights)
        self._rewards.value.copy_(terms.baseline)
        return terms, contrastive_loss(walks.combined, labels), sum_of_squares(self.room.network)

    def total(self, terms: PublishedTerms, contrast: Tensor, squares: Tensor) -> Tensor:
        """The loss of what `terms` gives."""
        loss = terms.total(self._weights)
        if self.schedule.contrastive:
            loss = loss + self.schedule.contrastive * contrast
        return loss + self.schedule.l2 * squares if self.schedule.l2 else loss

    def validate(self) -> Validation:
        """Real walks under the room's settings."""
        return walk_validation(self.room)
