"""How looks add up: laws of every aggregation, and the example worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tnet_geo.model.aggregation import LearnToPayAttention, aggregation_of
from tnet_geo.model.network import TraversalNetwork
from tnet_geo.model.settings import Aggregation, NetworkSettings

NAMES: tuple[Aggregation, ...] = ("mean", "feature_weighting", "gated_attention", "ltpa")


def bag(sites: int = 3, looks: int = 5, features: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    mask = torch.ones(sites, looks, dtype=torch.bool)
    mask[1, 3:] = False
    mask[2, 1:] = False
    return torch.randn(sites, looks, features, generator=generator), mask


@pytest.mark.parametrize("name", NAMES)
def test_weights_sum_to_one_and_looks_that_do_not_exist_have_none(name: Aggregation) -> None:
    torch.manual_seed(0)
    features, mask = bag()
    weights = aggregation_of(name, 16)(features, mask)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert not weights[~mask].any()
    assert weights[2, 0] == 1  # one look is all there is


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_where_no_look_exists_does_not_matter(name: Aggregation) -> None:
    torch.manual_seed(0)
    features, mask = bag()
    aggregation = aggregation_of(name, 16)
    other = features.masked_fill(~mask[..., None], 100.0)
    torch.testing.assert_close(aggregation(features, mask), aggregation(other, mask))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_looks_does_not_matter_and_shares_add_up_to_the_logits(name: Aggregation) -> None:
    torch.manual_seed(0)
    settings = NetworkSettings(aggregation=name, classes=4, depths=2)
    network = TraversalNetwork(settings).eval()
    features = torch.randn(2, 6, network.backbone.features)
    mask = torch.ones(2, 6, dtype=torch.bool)
    output = network.aggregate(features, mask)
    torch.testing.assert_close(output.logits, network.classifier.bias + output.shares.sum(dim=1))
    turned = network.aggregate(features.flip(1), mask)
    torch.testing.assert_close(turned.logits, output.logits)
    torch.testing.assert_close(turned.shares.flip(1), output.shares)


def test_compatibility_is_the_scaled_dot_product_with_the_mean_of_the_looks() -> None:
    attention = LearnToPayAttention(2, hidden=2)
    with torch.no_grad():
        attention.local.weight.copy_(torch.eye(2))
        attention.whole.weight.copy_(torch.eye(2) * math.sqrt(2))  # undoes the scale
    looks = torch.tensor([[[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]]])
    weights = attention(looks, torch.ones(1, 3, dtype=torch.bool))
    mean = looks[0].mean(dim=0)
    torch.testing.assert_close(weights[0], torch.softmax(looks[0] @ mean, dim=0))


def test_looks_are_dropped_in_training_alone_and_never_the_root() -> None:
    settings = NetworkSettings(aggregation="mean", classes=2, depths=2, tile_dropout=0.9)
    network = TraversalNetwork(settings)
    torch.manual_seed(1)
    features = torch.randn(64, 4, network.backbone.features)
    mask = torch.ones(64, 4, dtype=torch.bool)
    shares = network.train().aggregate(features, mask).shares.abs().sum(dim=2) > 0
    assert shares[:, 0].all()
    assert 0 < shares[:, 1:].float().mean() < 0.3
    assert (network.eval().aggregate(features, mask).shares.abs().sum(dim=2) > 0).all()


def test_features_are_dropped_from_all_looks_of_a_site_at_once() -> None:
    settings = NetworkSettings(aggregation="mean", classes=2, depths=2, dropout=0.5)
    network = TraversalNetwork(settings).train()
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.weight[0] = 1
    torch.manual_seed(1)
    same = torch.ones(32, 3, network.backbone.features)
    shares = network.aggregate(same, torch.ones(32, 3, dtype=torch.bool)).shares[:, :, 0]
    torch.testing.assert_close(shares, shares[:, :1].expand(-1, 3))
    assert len(set(shares[:, 0].tolist())) > 10
