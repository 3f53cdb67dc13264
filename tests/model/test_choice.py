"""Which children are looked at."""

from __future__ import annotations

import torch

from tnet_geo.model import plackett_luce_log_prob, sample_children, top_children


def test_the_best_candidates_come_best_first_and_ties_go_to_the_lower_index() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0, -1.0, 0.0, 0.0, 0.0, 0.0]])
    everyone = torch.ones(1, 9, dtype=torch.bool)
    assert top_children(logits, everyone, 3) == [[1, 3, 2]]


def test_a_child_that_is_no_candidate_is_never_chosen_even_if_too_few_remain() -> None:
    logits = torch.zeros(2, 9)
    candidates = torch.zeros(2, 9, dtype=torch.bool)
    candidates[0, 7] = True
    assert top_children(logits, candidates, 2) == [[7], []]
    assert sample_children(logits, candidates, 2, torch.Generator().manual_seed(0)) == [[7], []]


def test_a_single_candidate_has_probability_one() -> None:
    logits = torch.tensor([[3.0, -2.0]], requires_grad=True)
    taken = plackett_luce_log_prob(logits, torch.tensor([[False, True]]), [[1]])
    assert taken.item() == 0
    assert not torch.autograd.grad(taken.sum(), logits)[0].any()
