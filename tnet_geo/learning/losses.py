"""Losses that are not in torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["list_loss"]


def list_loss(child_logits: Tensor, scores: Tensor, sharpness: float) -> Tensor:
    """How far the order of child logits is from that of the scores: cross entropy of soft targets.

    child_logits float [n, 9]; scores float [n, 9], -inf where a child is no candidate. Targets are
    softmax((s - mean) / (sharpness x std)) over the candidates of each parent. Parents with fewer than
    two candidates, or with equal scores, teach nothing and are left out; the rest is averaged.
    Source: the ordered pretraining of Saccader (NeurIPS 2019), as a list loss over nine children.
    """
    candidate = torch.isfinite(scores)
    count = candidate.sum(dim=1, keepdim=True).clamp(min=1)
    filled = torch.where(candidate, scores, torch.zeros_like(scores))
    mean = filled.sum(dim=1, keepdim=True) / count
    spread = torch.where(candidate, scores - mean, torch.zeros_like(scores))
    std = (spread.square().sum(dim=1, keepdim=True) / count).sqrt()
    teaches = ((count > 1) & (std > 1e-12)).squeeze(1)
    if not teaches.any():
        return child_logits.sum() * 0
    sharpened = spread / (sharpness * std.clamp(min=1e-12))
    targets = torch.softmax(sharpened.masked_fill(~candidate, -torch.inf)[teaches], dim=1)
    logs = torch.log_softmax(child_logits.masked_fill(~candidate, -torch.inf)[teaches], dim=1)
    # 0 x -inf of children that are no candidates would be NaN.
    return -(targets * logs.masked_fill(~candidate[teaches], 0.0)).sum(dim=1).mean()
