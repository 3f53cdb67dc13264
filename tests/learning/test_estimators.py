"""The policy gradient against exact enumeration on a small tree.

The tree: three candidates below the root of which two are kept in order, then one of the two children
of each. 24 walks, small enough to enumerate every walk and every pair of walks.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tnet_geo.learning import leave_one_out, policy_loss
from tnet_geo.model import plackett_luce_log_prob, sample_children

ROOT = (0.3, -0.5, 0.8)
CHILDREN = ((0.2, -0.2), (0.7, 0.0), (-0.4, 0.4))
VALUES, DEEP_VALUES = (1.0, -0.5, 0.2), ((0.5, -1.0), (2.0, -0.3), (-0.2, 0.9))
GRADIENT = [0.023656, -0.031120, 0.007465, 0.103957, -0.103957, 0.090111, -0.090111, -0.084704, 0.084704]

Walk = tuple[int, int, int, int]


def parameters() -> Tensor:
    """The nine logits of the tree, in the order of GRADIENT."""
    flat = [*ROOT, *itertools.chain.from_iterable(CHILDREN)]
    return torch.tensor(flat, dtype=torch.float64, requires_grad=True)


def walks() -> list[Walk]:
    """First pick, second pick, child of the first, child of the second."""
    return [(a, b, i, j) for a, b in itertools.permutations(range(3), 2) for i in range(2) for j in range(2)]


def log_probability(logits: Tensor, walk: Walk) -> Tensor:
    """By the function that training uses, one parent at a time."""
    first, second, *deep = walk
    everyone = torch.ones(1, 3, dtype=torch.bool)
    total = plackett_luce_log_prob(logits[None, :3], everyone, [[first, second]])[0]
    for parent, pick in zip((first, second), deep, strict=True):
        below = logits[None, 3 + 2 * parent : 5 + 2 * parent]
        total = total + plackett_luce_log_prob(below, everyone[:, :2], [[pick]])[0]
    return total


def reward(walk: Walk) -> float:
    """Logarithm of the sigmoid of the values looked at."""
    first, second, i, j = walk
    seen = VALUES[first] + VALUES[second] + DEEP_VALUES[first][i] + DEEP_VALUES[second][j]
    return float(torch.nn.functional.logsigmoid(torch.tensor(seen - 1.0, dtype=torch.float64)))


def exact_gradient() -> Tensor:
    logits = parameters()
    value = sum(torch.exp(log_probability(logits, walk)) * reward(walk) for walk in walks())
    return torch.autograd.grad(value, logits)[0]


def test_probabilities_of_all_walks_sum_to_one_and_single_walks_have_their_known_probability() -> None:
    logits = parameters()
    assert sum(torch.exp(log_probability(logits, walk)) for walk in walks()).item() == pytest.approx(
        1, abs=1e-12
    )
    assert torch.exp(log_probability(logits, (2, 0, 1, 0))).item() == pytest.approx(0.151679, abs=1e-6)
    assert torch.exp(log_probability(logits, (1, 0, 1, 1))).item() == pytest.approx(0.007291, abs=1e-6)


def test_enumeration_gives_the_published_gradient() -> None:
    torch.testing.assert_close(
        exact_gradient(), torch.tensor(GRADIENT, dtype=torch.float64), atol=1e-6, rtol=0
    )


def expected_estimate(baseline: str) -> Tensor:
    """The mean of the estimator over every pair of walks, weighted by the pair's probability."""
    logits = parameters()
    scores = {walk: log_probability(logits, walk) for walk in walks()}
    expected = torch.zeros(9, dtype=torch.float64)
    gradients = {w: torch.autograd.grad(s, logits, retain_graph=True)[0] for w, s in scores.items()}
    for pair in itertools.product(walks(), repeat=2):
        rewards = torch.tensor([[reward(walk) for walk in pair]], dtype=torch.float64)
        signal = leave_one_out(rewards) if baseline == "leave one out" else rewards - rewards.mean()
        weight = torch.exp(scores[pair[0]] + scores[pair[1]]).detach()
        expected += weight * sum(signal[0, k] * gradients[walk] for k, walk in enumerate(pair)) / 2
    return expected


def test_leave_one_out_is_unbiased_to_twelve_digits() -> None:
    torch.testing.assert_close(expected_estimate("leave one out"), exact_gradient(), atol=1e-12, rtol=0)


def test_a_baseline_that_includes_the_walk_itself_is_caught_as_biased_by_one_half() -> None:
    torch.testing.assert_close(expected_estimate("mean of all"), exact_gradient() / 2, atol=1e-12, rtol=0)


def test_the_loss_has_the_estimator_as_its_negative_gradient_and_none_through_rewards() -> None:
    logits = parameters()
    pair = ((2, 0, 1, 0), (0, 1, 0, 0))
    taken = torch.stack([log_probability(logits, walk) for walk in pair])[None]
    rewards = torch.tensor([[reward(walk) for walk in pair]], dtype=torch.float64, requires_grad=True)
    signal = leave_one_out(rewards.detach())[0]
    by_hand = torch.autograd.grad((signal * taken[0]).sum() / 2, logits, retain_graph=True)[0]
    gradient, through_rewards = torch.autograd.grad(
        policy_loss(taken, rewards), (logits, rewards), allow_unused=True
    )
    assert through_rewards is None
    torch.testing.assert_close(gradient, -by_hand)


def test_equal_rewards_teach_nothing() -> None:
    assert not leave_one_out(torch.full((3, 4), 0.7)).any()


def test_gumbel_top_k_draws_ordered_pairs_with_the_plackett_luce_law() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 0.5], dtype=torch.float64)
    everyone = torch.ones(4, dtype=torch.bool)
    draws = 200_000
    generator = torch.Generator().manual_seed(5)
    picks = sample_children(logits.expand(draws, 4), everyone.expand(draws, 4), 2, generator)
    pairs = list(itertools.permutations(range(4), 2))
    observed = torch.tensor([float(sum(tuple(pick) == pair for pick in picks)) for pair in pairs])
    each = plackett_luce_log_prob(
        logits.expand(12, 4), everyone.expand(12, 4), [list(pair) for pair in pairs]
    )
    expected = draws * torch.exp(each)
    assert expected[0].item() / draws == pytest.approx(0.157127, abs=1e-6)
    chi_square = ((observed - expected) ** 2 / expected).sum().item()
    assert chi_square < 31.26  # 99.9 % of 11 degrees of freedom
