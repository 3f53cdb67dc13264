"""What stage B teaches: an order of the children of every parent, made from class labels alone.

A pool fitted on frozen features says how much every finest tile speaks for the label; a coarser
tile is worth as much as the best tile below it. Source: Saccader's pretraining (NeurIPS 2019) for a
tree of tiles.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tnet_geo.grid import Tile, footprint
from tnet_geo.learning.looks import LookBatch, LookRequest
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.model import TraversalNetwork

__all__ = ["ScoreTree", "finest_tiles", "fit_pool", "score_tree", "tile_features"]

_STARTS = 3


@dataclass(frozen=True)
class ScoreTree:
    """Scores of all tiles of one site down to some depth; -inf marks tiles that are no candidates."""

    root: Tile
    maps: tuple[NDArray[np.float32], ...]
    """One square map per depth: side 2^(depth + 1) - 1, rows and columns counted from the root's."""

    def below(self, tile: Tile) -> NDArray[np.float32] | None:
        """Scores float32 [9] of a tile's children; None below the deepest scored depth."""
        depth = self.root.level - tile.level + 1
        if depth >= len(self.maps):
            return None
        row = 2 * (tile.row - (self.root.row << (depth - 1)))
        col = 2 * (tile.col - (self.root.col << (depth - 1)))
        return self.maps[depth][row : row + 3, col : col + 3].reshape(9)


def score_tree(root: Tile, finest: NDArray[np.float32]) -> ScoreTree:
    """The tree above a square map of the scores of all tiles at some depth: parent = best child."""
    maps = [finest]
    while maps[0].shape[0] > 1:
        below = maps[0]
        n = below.shape[0] // 2
        parts = [below[i : i + 2 * n - 1 : 2, j : j + 2 * n - 1 : 2] for i in range(3) for j in range(3)]
        maps.insert(0, np.max(parts, axis=0))
    return ScoreTree(root, tuple(maps))


def finest_tiles(site: LabelledSite, most: int) -> tuple[Tile, ...]:
    """All tiles of the finest depth below the root that has at most `most` of them, row by row."""
    depth = site.root.level
    while depth and (2 ** (depth + 1) - 1) ** 2 > most:
        depth -= 1
    row, col = site.root.row << depth, site.root.col << depth
    side = range(2 ** (depth + 1) - 1)
    return tuple(Tile(site.root.level - depth, row + i, col + j) for i in side for j in side)


@torch.no_grad()
def tile_features(
    network: TraversalNetwork, site: LabelledSite, tiles: Sequence[Tile], device: torch.device
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Features [n, F] of tiles by the network as it is, and which of them are candidates [n]."""
    batch = LookBatch.read([LookRequest(site, tiles)], network, device)
    parts = torch.arange(len(tiles)).split(64)
    features = [network.features(batch.inputs[p], batch.places.rows(p)) for p in parts]
    half_px, window = site.task.reader.spec.half_px, site.task.window
    inside = np.array([footprint(tile, half_px).touches(window) for tile in tiles])
    return torch.cat(features), inside & batch.validity.any(axis=(1, 2))


def fit_pool(
    network: TraversalNetwork, features: Sequence[Tensor], labels: Tensor, *, steps: int, seed: int
) -> TraversalNetwork:
    """A copy of the network whose aggregation and classifier are fitted on frozen features.

    features: one [n, F] per site. Bags of 64 tiles, 32 sites a step, for `steps` steps. From one start in
    six gated attention was seen to end at chance (measured on the demo), so the best of three counts, by
    the loss at its end: the network's own start and two fresh ones.
    """
    fits = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(_STARTS):
            teacher = copy.deepcopy(network)
            if start:
                _begin_afresh(teacher)
            fits.append((_fit(teacher, features, labels, steps, np.random.default_rng([seed, 7])), teacher))
    return min(fits, key=lambda fit: fit[0])[1].eval()


def _begin_afresh(teacher: TraversalNetwork) -> None:
    for part in (*teacher.aggregation.modules(), teacher.classifier):
        if isinstance(part, nn.Linear):
            part.reset_parameters()


def _fit(
    teacher: TraversalNetwork,
    features: Sequence[Tensor],
    labels: Tensor,
    steps: int,
    chance: np.random.Generator,
) -> float:
    """Fit aggregation and classifier in place; the mean loss of the last tenth of the steps, or infinity."""
    teacher.train()
    fitted = [*teacher.aggregation.parameters(), *teacher.classifier.parameters()]
    optimizer = torch.optim.AdamW(fitted, lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.2)
    losses = []
    for _ in range(steps):
        chosen = chance.choice(len(features), min(32, len(features)), replace=False)
        bags = [features[n][torch.from_numpy(chance.permutation(len(features[n]))[:64])] for n in chosen]
        bag, mask = padded(bags)
        loss = torch.nn.functional.cross_entropy(teacher.aggregate(bag, mask).logits, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last) if np.isfinite(last).all() else np.inf


def padded(bags: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Bags [n_k, F] of different sizes as one tensor [s, n, F] and the mask bool [s, n] of what exists."""
    bag = torch.nn.utils.rnn.pad_sequence(list(bags), batch_first=True)
    sizes = torch.tensor([len(one) for one in bags], device=bag.device)
    return bag, torch.arange(bag.shape[1], device=bag.device)[None] < sizes[:, None]


@torch.no_grad()
def label_evidence(teacher: TraversalNetwork, features: Tensor, label: int) -> NDArray[np.float32]:
    """How much each tile of one site speaks for its label, against the mean of all classes: [n]."""
    mask = torch.ones(1, len(features), dtype=torch.bool, device=features.device)
    shares = teacher.aggregate(features[None], mask).shares[0]
    evidence: NDArray[np.float32] = (shares[:, label] - shares.mean(dim=1)).cpu().numpy()
    return evidence
