"""Policy gradients for walks sampled from the location head."""

from __future__ import annotations

from torch import Tensor

__all__ = ["leave_one_out", "policy_loss"]


def leave_one_out(rewards: Tensor) -> Tensor:
    """Each walk's reward less the mean of the other walks of its site: [sites, walks] -> the same.

    Unbiased, because the others do not depend on the walk's own decisions; zero where all rewards are
    equal. Source: Chiu et al. 2017 (the forerunner of "Learning Hard Alignments with Variational
    Inference"); Kool, van Hoof, Welling 2019.

    >>> import torch
    >>> leave_one_out(torch.tensor([[1.0, 0.0, 0.5]]))
    tensor([[ 0.7500, -0.7500,  0.0000]])
    """
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def policy_loss(log_probabilities: Tensor, rewards: Tensor) -> Tensor:
    """A scalar whose gradient is minus that of the expected reward, by REINFORCE with leave-one-out.

    log_probabilities [sites, walks]: of the decisions taken, with gradient. rewards [sites, walks]:
    larger is better; no gradient passes through them.
    """
    signal = leave_one_out(rewards.detach())
    return -(signal * log_probabilities).mean()
