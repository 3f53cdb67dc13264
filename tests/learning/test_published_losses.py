"""The published losses by hand; tests/parity holds them to numbers of the published code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tnet_geo.learning.published_losses import (
    LookRows,
    PublishedWeights,
    contrastive_loss,
    log_chosen,
    published_terms,
    sum_of_squares,
    top_one,
)

WEIGHTS = PublishedWeights(walk_class=0.2, walk_reward=0.3, policy=0.1)
BASELINE = torch.tensor(0.5)


def two_walks(gradient: bool = False) -> tuple[Tensor, Tensor, LookRows]:
    """Walks of three looks and of one, on two classes; the first one's second choice was the good one."""
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]], requires_grad=gradient)
    chances = torch.tensor([1.0, 0.25, 0.5, 1.0]).log()
    looks = LookRows(
        site=torch.tensor([0, 0, 0, 1]),
        depth=torch.tensor([0, 1, 2, 0]),
        logits=logits,
        log_probability=chances.requires_grad_(gradient),
    )
    return torch.tensor([[0.0, 1.0], [1.0, 2.0]], requires_grad=gradient), torch.tensor([1, 0]), looks


def test_walks_are_credited_with_their_own_reward_and_single_choices_with_their_looks() -> None:
    walk_logits, labels, looks = two_walks()
    terms = published_terms(walk_logits, labels, looks, BASELINE, WEIGHTS)
    # The first walk is right (0.5 above the baseline), the second one chose nothing.
    assert terms.walk_policy.item() == pytest.approx(0.5 * (math.log(4) + math.log(2)) / 2)
    assert terms.look_policy.item() == pytest.approx((-0.5 * math.log(4) + 0.5 * math.log(2)) / 2)
    assert terms.baseline.item() == pytest.approx(0.45 + 0.1 * (0.3 * 0.5 + 0.7 * 0.5))
    soft = [math.log(1 + math.exp(gap)) for gap in (-1, 2, -3, -1)]
    assert terms.look_class.item() == pytest.approx(sum(soft) / 4)
    assert terms.walk_class.item() == pytest.approx((soft[0] + math.log(1 + math.e)) / 2)
    parts = 0.2 * terms.walk_class + 0.8 * terms.look_class
    parts += 0.1 * (0.3 * terms.walk_policy + 0.7 * terms.look_policy)
    assert terms.total(WEIGHTS).item() == pytest.approx(parts.item())


def test_looks_below_the_cap_count_in_the_walk_alone() -> None:
    walk_logits, labels, looks = two_walks()
    every = published_terms(walk_logits, labels, looks, BASELINE, WEIGHTS)
    capped = published_terms(walk_logits, labels, looks, BASELINE, WEIGHTS._replace(depths=2))
    assert capped.walk_policy == every.walk_policy
    assert capped.look_policy.item() == pytest.approx(-0.5 * math.log(4))
    soft = [math.log(1 + math.exp(gap)) for gap in (-1, 2, -1)]
    assert capped.look_class.item() == pytest.approx(sum(soft) / 3)


def test_walks_of_one_look_have_no_policy_and_do_not_divide_by_nothing() -> None:
    walk_logits, labels, looks = two_walks(gradient=True)
    roots = LookRows(*(rows[[0, 3]] for rows in looks))._replace(site=torch.tensor([0, 1]))
    terms = published_terms(walk_logits, labels, roots, BASELINE, WEIGHTS)
    assert (terms.walk_policy.item(), terms.look_policy.item()) == (0, 0)
    terms.total(WEIGHTS).backward()
    assert torch.isfinite(looks.logits.grad).all()  # type: ignore[arg-type]


def test_rewards_and_the_baseline_have_no_gradient() -> None:
    walk_logits, labels, looks = two_walks(gradient=True)
    terms = published_terms(walk_logits, labels, looks, BASELINE, WEIGHTS)
    assert not terms.baseline.requires_grad
    (terms.walk_policy + terms.look_policy).backward()
    assert walk_logits.grad is None
    assert looks.logits.grad is None
    # Of the first walk: minus (reward - baseline), over two walks, plus the same of single looks.
    assert looks.log_probability.grad.tolist() == [0, -0.25 + 0.25, -0.25 - 0.25, 0]  # type: ignore[union-attr]


def test_a_label_that_ties_with_the_best_class_is_right() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert top_one(logits, torch.tensor([1, 2])).tolist() == [1, 0]


def test_windows_that_are_no_candidates_take_no_share() -> None:
    logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]], requires_grad=True)
    candidates = torch.tensor([[True, True, False], [True, True, True]])
    logs = log_chosen(logits, candidates, torch.tensor([1, 1]))
    assert logs.exp().tolist() == pytest.approx([1 / 2, 1 / 3])
    logs.sum().backward()
    assert logits.grad[0, 2] == 0  # type: ignore[index]


def test_the_contrastive_term_pulls_a_class_together_and_pushes_others_apart_up_to_a_margin() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [1.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 2])
    near = math.sqrt(0.5) - 0.4
    by_hand = 2 * (1 - 0) + 2 * (1 - 0.4) + 2 * 0 + 2 * near + 2 * near + 2 * near
    assert contrastive_loss(features, labels).item() == pytest.approx(by_hand / 16, abs=1e-6)
    assert contrastive_loss(torch.zeros(2, 3), torch.tensor([0, 0])).item() == pytest.approx(0, abs=1e-6)


def test_batch_norms_are_left_out_of_the_sum_of_squares() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[3.0, 4.0]]))  # type: ignore[operator]
        network[0].bias.fill_(2.0)  # type: ignore[operator]
    assert sum_of_squares(network).item() == 29
