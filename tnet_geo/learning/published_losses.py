"""The losses that TNet (NeurIPS 2021) was trained with, as pure functions of what its walks gave.

Rows are looks: all looks of all sites of a step in any order, with the site and depth of each. Every
look but a root was chosen, so the probability of the window that led to it stands beside it.
Source: reference code of TNet, fMoW and CUB parts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "LookRows",
    "PublishedTerms",
    "PublishedWeights",
    "contrastive_loss",
    "log_chosen",
    "published_terms",
    "sum_of_squares",
    "top_one",
]

_TINY = 1e-10
"""Added to probabilities before their logarithm, and to features before they are made unit vectors."""
_MEMORY = 0.9
"""What the reward baseline keeps of itself in a step."""
_MARGIN = 0.4
"""Cosine below which features of different classes no longer repel each other."""


class LookRows(NamedTuple):
    """The n looks of the walks of s sites."""

    site: Tensor
    """int64 [n], 0 to s - 1."""
    depth: Tensor
    """int64 [n], 0 at the root."""
    logits: Tensor
    """float [n, classes]: what the look alone would answer."""
    log_probability: Tensor
    """float [n]: of the window that led here, by `log_chosen`; not read at roots."""


class PublishedWeights(NamedTuple):
    """How the terms are weighed."""

    walk_class: float
    """w: share of the walks' cross entropy; the rest is that of looks alone."""
    walk_reward: float
    """v: share of the walks' reward; the rest is that of looks alone."""
    policy: float
    """L: weight of both policy terms."""
    depths: int | None = None
    """C: looks of so many depths count alone; None: of all."""


class PublishedTerms(NamedTuple):
    """The four terms, unweighted, and the baseline for the next step. All scalars."""

    walk_class: Tensor
    """CE: cross entropy of the walks."""
    look_class: Tensor
    """CEf: mean cross entropy of looks alone, the root included."""
    walk_policy: Tensor
    """R: all choices of a walk, credited with the walk's reward."""
    look_policy: Tensor
    """Rf: every choice, credited with the reward of the look that it led to."""
    baseline: Tensor
    """Without gradient."""

    def total(self, weights: PublishedWeights) -> Tensor:
        """w CE + (1 - w) CEf + L (v R + (1 - v) Rf)."""
        w, v = weights.walk_class, weights.walk_reward
        classes = w * self.walk_class + (1 - w) * self.look_class
        return classes + weights.policy * (v * self.walk_policy + (1 - v) * self.look_policy)


def top_one(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where no class beats the label, ties included, else 0: [n, classes], int64 [n] -> float [n].

    >>> top_one(torch.tensor([[2.0, 2.0, 1.0], [2.0, 1.0, 0.0]]), torch.tensor([1, 1])).tolist()
    [1.0, 0.0]
    """
    own = logits.detach().gather(1, labels[:, None])
    return (own >= logits.detach()).all(dim=1).to(logits)


def log_chosen(child_logits: Tensor, candidates: Tensor, chosen: Tensor) -> Tensor:
    """Log-probability of one window of each row: [n, k], bool [n, k], int64 [n] -> float [n].

    Windows that are no candidates have probability 0, where the published network knows none such.
    """
    shares = torch.softmax(child_logits.masked_fill(~candidates, -torch.inf), dim=1)
    return torch.log(shares.gather(1, chosen[:, None]).squeeze(1) + _TINY)


def published_terms(
    walk_logits: Tensor,
    labels: Tensor,
    looks: LookRows,
    baseline: Tensor,
    weights: PublishedWeights,
) -> PublishedTerms:
    """All terms of one step. walk_logits [s, classes], labels int64 [s], baseline scalar.

    The published code divides by the looks that every image has; here walks may differ in length, and
    the means are over the looks that there are. No gradient passes through rewards.
    """
    alone = looks.depth >= 0 if weights.depths is None else looks.depth < weights.depths
    chosen = looks.depth > 0
    look_labels = labels[looks.site]
    rewards, look_rewards = top_one(walk_logits, labels), top_one(looks.logits, look_labels)
    surprise = -looks.log_probability
    credit, look_credit = rewards - baseline, look_rewards - baseline
    both = alone & chosen
    return PublishedTerms(
        walk_class=functional.cross_entropy(walk_logits, labels),
        look_class=functional.cross_entropy(looks.logits[alone], look_labels[alone]),
        walk_policy=(credit[looks.site] * surprise)[chosen].sum() / len(labels),
        look_policy=_mean((look_credit * surprise)[both]),
        baseline=_next_baseline(baseline, rewards, look_rewards[both], weights.walk_reward),
    )


def _next_baseline(baseline: Tensor, rewards: Tensor, look_rewards: Tensor, share: float) -> Tensor:
    """The running mean of the rewards, walks and looks alone weighed as in the loss."""
    found = share * rewards.mean() + (1 - share) * _mean(look_rewards)
    return _MEMORY * baseline + (1 - _MEMORY) * found


def _mean(values: Tensor) -> Tensor:
    """The mean, or 0 of nothing: walks of one look have chosen nothing."""
    return values.sum() / max(1, len(values))


def contrastive_loss(combined: Tensor, labels: Tensor) -> Tensor:
    """Sites of a class should point the same way, others not: [s, F], int64 [s] -> scalar.

    Over all pairs, those of a site with itself included: 1 - cosine within a class, and what the cosine
    exceeds 0.4 by between classes. Only the published models of birds were trained with it.
    """
    unit = functional.normalize(combined + _TINY, dim=1, eps=0.0)
    cosine = unit @ unit.T
    same = labels[:, None] == labels[None, :]
    return torch.where(same, 1 - cosine, (cosine - _MARGIN).clamp(min=0)).mean()


def sum_of_squares(module: nn.Module) -> Tensor:
    """Of every weight outside batch norms, biases included: what the published L2 term is a multiple of."""
    return torch.stack(
        [
            weight.square().sum()
            for part in module.modules()
            if not isinstance(part, nn.modules.batchnorm._BatchNorm)
            for weight in part.parameters(recurse=False)
        ]
    ).sum()
