"""How weights follow their gradients: our AdamW under a one-cycle rate, and Adam as TNet was trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["one_cycle", "published_adam", "stepped"]

_KERAS_EPSILON = 1e-7

Groups = list[dict[str, Any]]
"""Parameter groups, each with its own peak rate `lr`."""


def one_cycle(
    groups: Groups, steps: int, *, warm_up: float, weight_decay: float
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """AdamW; rates rise over the share `warm_up` of the steps, then fall to nearly zero."""
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    peaks = [max(group["lr"], 1e-12) for group in optimizer.param_groups]
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, total_steps=steps, pct_start=warm_up
    )


def published_adam(groups: Groups) -> torch.optim.Optimizer:
    """Adam in the form of Keras, which adds its epsilon before the second moment is corrected for its age.

    torch adds it after: the same update as with an epsilon that shrinks from 3.2e-6 at the first step
    to 1e-7. At the first steps, where gradients are as small, that is a different step.
    """
    optimizer = torch.optim.Adam([{**group, "taken": 0} for group in groups], eps=_KERAS_EPSILON)
    optimizer.register_step_pre_hook(_shrink_epsilon)
    return optimizer


def _shrink_epsilon(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001 (a hook's)
    for group in optimizer.param_groups:
        group["taken"] += 1  # in the group, so that a resumed run counts on
        group["eps"] = _KERAS_EPSILON / math.sqrt(1 - group["betas"][1] ** group["taken"])


def stepped(
    optimizer: torch.optim.Optimizer, steps: int, *, drops: Sequence[float], factor: float
) -> LRScheduler:
    """Rates constant but for a multiplication by `factor` after each of these shares of the steps."""
    places = [max(1, int(share * steps)) for share in drops]
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, places, gamma=factor)
