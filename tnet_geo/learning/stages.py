"""What every stage shares: what it may use, what a step is, how a pass over the sites goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tnet_geo.grid import Tile
from tnet_geo.inference import Engine
from tnet_geo.learning.augmentation import Augmentation
from tnet_geo.learning.looks import LookRequest
from tnet_geo.learning.optimisers import one_cycle, published_adam, stepped
from tnet_geo.learning.settings import Passes, PublishedSettings, Schedule
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.model import TraversalNetwork, WalkSettings
from tnet_geo.trail import Failure

__all__ = ["Draw", "Room", "Stage", "Validation", "optimise", "site_steps", "walk_logits", "walk_validation"]

_MOST_GRADIENT = 2.0


@dataclass(frozen=True)
class Room:
    """What stages learn in: the network, the sites, and where tensors live."""

    network: TraversalNetwork
    sites: Sequence[LabelledSite]
    validation: Sequence[LabelledSite]
    augmentation: Augmentation
    walk: WalkSettings
    seed: int
    device: torch.device

    def labels(self, sites: Sequence[LabelledSite]) -> Tensor:
        """int64 [sites]."""
        return torch.tensor([site.label for site in sites], device=self.device)


@dataclass(frozen=True)
class Validation:
    """How good the network was on the validation sites after an epoch, and what it read for that."""

    accuracy: float
    loss: float
    """Mean negative log-likelihood of the labels."""
    tiles: float
    """Distinct tiles per site."""

    def better_than(self, other: Validation | None) -> bool:
        """More accurate, or as accurate and surer."""
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


class Draw:
    """Everything random in one step: the same stage, epoch and step always draw the same."""

    def __init__(self, room: Room, *place: int) -> None:
        self._room, self._place = room, place
        self.chance = np.random.default_rng([room.seed, *place])
        self.generator = torch.Generator().manual_seed(int(self.chance.integers(2**62)))

    def request(self, site: LabelledSite, tiles: Sequence[Tile]) -> LookRequest:
        """Tiles of a site through what was drawn for that site in this step."""
        seeds = np.random.SeedSequence([self._room.seed, *self._place, site.number])
        drawn = self._room.augmentation.draw(int(seeds.generate_state(1)[0]))
        return LookRequest(site, tiles, drawn)


class Stage(Protocol):
    """One way to learn: a loss for a few sites, and a measure on the validation sites."""

    name: str
    room: Room
    modules: nn.ModuleDict
    """Everything that is optimised; `network` is the room's."""

    @property
    def schedule(self) -> Schedule | PublishedSettings:
        """Epochs, rate and so on."""
        ...

    def loss(self, sites: Sequence[LabelledSite], draw: Draw, progress: float) -> Tensor:
        """Scalar with gradient; `progress` runs from 0 to 1 over the stage."""
        ...

    def validate(self) -> Validation:
        """The network in evaluation mode, on the validation sites."""
        ...


def site_steps(room: Room, schedule: Passes, *place: int) -> Iterator[list[LabelledSite]]:
    """One pass over the sites in an order that `place` (stage, epoch) alone decides."""
    order = np.random.default_rng([room.seed, *place, 1]).permutation(len(room.sites))
    for start in range(0, len(order), schedule.sites_per_step):
        yield [room.sites[n] for n in order[start : start + schedule.sites_per_step]]


def optimise(stage: Stage, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimiser and the course of the rate of a stage of `steps` steps."""
    schedule = stage.schedule
    slow = [p for name, p in stage.modules.named_parameters() if ".backbone." in f".{name}"]
    fast = [p for name, p in stage.modules.named_parameters() if ".backbone." not in f".{name}"]
    rates = [schedule.rate * schedule.backbone_rate, schedule.rate]
    groups = [{"params": group, "lr": rate} for group, rate in zip((slow, fast), rates, strict=True) if group]
    if isinstance(schedule, PublishedSettings):
        optimizer = published_adam(groups)
        return optimizer, stepped(optimizer, steps, drops=schedule.drops, factor=schedule.drop)
    return one_cycle(groups, steps, warm_up=schedule.warm_up, weight_decay=schedule.weight_decay)


def take_step(stage: Stage, loss: Tensor, optimizer: torch.optim.Optimizer) -> float:
    """Backward, clip (the published way does not), update; gives the loss."""
    optimizer.zero_grad()
    loss.backward()
    if not isinstance(stage.schedule, PublishedSettings):
        nn.utils.clip_grad_norm_(stage.modules.parameters(), _MOST_GRADIENT)
    optimizer.step()
    return loss.item()


def walk_validation(room: Room, walk: WalkSettings | None = None) -> Validation:
    """Accuracy and cost of real walks, by the very engine that serves."""
    logits, labels, tiles = walk_logits(room.network, walk or room.walk, room.validation, room.device)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
    hits, count = int((logits.argmax(dim=1) == labels).sum()), len(labels)
    return Validation(hits / count, sum(losses) / count, tiles / count)


def walk_logits(
    network: TraversalNetwork, walk: WalkSettings, sites: Sequence[LabelledSite], device: torch.device
) -> tuple[Tensor, Tensor, int]:
    """Logits [n, classes] and labels int64 [n] of walks over labelled sites, and the tiles that they took."""
    logits, tiles = [], 0
    engine = Engine(network.eval(), walk, device=device)
    for result in engine.walk(site.task for site in sites):
        if isinstance(result, Failure):  # loaded before, so this is damage that came later
            raise RuntimeError(result.reason)
        logits.append(result.output.logits)
        tiles += len(result.walk.looked)
    return torch.cat(logits), torch.tensor([site.label for site in sites]), tiles
