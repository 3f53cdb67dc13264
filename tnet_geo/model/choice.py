"""Which children to look at: pure functions of logits.

Candidates are marked by a mask, because a child that lies outside the window or holds no valid pixel
must never be chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["plackett_luce_log_prob", "sample_children", "top_children"]


def top_children(logits: Tensor, candidates: Tensor, keep: int) -> list[list[int]]:
    """The `keep` best candidates of each parent, best first, ties to the lower index.

    logits float [n, 9], candidates bool [n, 9] -> n lists of at most `keep` indices; shorter where
    there are fewer candidates.
    """
    masked = logits.masked_fill(~candidates, -torch.inf)
    order = torch.sort(masked, dim=1, descending=True, stable=True).indices.tolist()
    counts = candidates.sum(dim=1).clamp(max=keep).tolist()
    return [row[:count] for row, count in zip(order, counts, strict=True)]


def sample_children(
    logits: Tensor, candidates: Tensor, keep: int, generator: torch.Generator
) -> list[list[int]]:
    """`keep` candidates of each parent drawn one after another without replacement, in that order.

    Gumbel top-k: the ordered list has exactly the Plackett-Luce law of `plackett_luce_log_prob`.
    Shapes as in `top_children`. Source: Kool, van Hoof, Welling, "Stochastic Beams and Where to Find
    Them" (ICML 2019).
    """
    noise = torch.empty(logits.shape, dtype=logits.dtype, device=generator.device)
    gumbel = -torch.log(noise.exponential_(generator=generator)).to(logits.device)
    return top_children(logits.detach() + gumbel, candidates, keep)


def plackett_luce_log_prob(logits: Tensor, candidates: Tensor, picks: list[list[int]]) -> Tensor:
    """Log-probability of picking these children in this order, one list per parent: float [n].

    logits float [n, 9], candidates bool [n, 9]. A pick leaves the set; each is a softmax over those who
    remain, so the last one of an exhausted set has probability one.
    """
    left = candidates.clone()
    total = logits.new_zeros(len(logits))
    for turn in range(max((len(row) for row in picks), default=0)):
        rows = torch.tensor([n for n, row in enumerate(picks) if len(row) > turn])
        picked = torch.tensor([row[turn] for row in picks if len(row) > turn])
        masked = logits[rows].masked_fill(~left[rows], -torch.inf)
        total = total.index_add(0, rows, torch.log_softmax(masked, dim=1)[torch.arange(len(rows)), picked])
        left[rows, picked] = False
    return total
