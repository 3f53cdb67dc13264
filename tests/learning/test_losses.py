"""The list loss by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tnet_geo.learning import list_loss

NONE = -math.inf


def test_it_is_lowest_where_the_logits_are_the_targets_own() -> None:
    scores = torch.tensor([[0.0, 1.0, 3.0, 0.5, NONE, NONE, NONE, NONE, NONE]])
    known = scores[0, :4]
    targets = (known - known.mean()) / (0.4 * known.std(unbiased=False))
    logits = torch.zeros(1, 9)
    logits[0, :4] = targets
    shares = torch.softmax(targets, dim=0)
    entropy = -(shares * shares.log()).sum().item()
    assert list_loss(logits, scores, 0.4).item() == pytest.approx(entropy, abs=1e-6)
    assert list_loss(-logits, scores, 0.4).item() > entropy + 1


def test_children_that_are_no_candidates_get_no_gradient() -> None:
    scores = torch.tensor([[0.0, 1.0, 3.0] + [NONE] * 6])
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(1), requires_grad=True)
    gradient = torch.autograd.grad(list_loss(logits, scores, 0.4), logits)[0]
    assert gradient[0, :3].abs().min() > 0
    assert not gradient[0, 3:].any()


@pytest.mark.parametrize("scores", [[[NONE] * 9], [[1.0] + [NONE] * 8], [[2.0] * 9]])
def test_parents_without_an_order_teach_nothing(scores: list[list[float]]) -> None:
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(2), requires_grad=True)
    loss = list_loss(logits, torch.tensor(scores), 0.4)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()
