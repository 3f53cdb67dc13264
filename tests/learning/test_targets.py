"""The order of children that stage B teaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.networks import small_network
from tests.rasters import random_pixels
from tnet_geo.grid import Tile, Window, children
from tnet_geo.inference import SiteTask
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.learning.targets import finest_tiles, fit_pool, label_evidence, score_tree, tile_features
from tnet_geo.pyramid import MemoryReader


def test_a_parent_is_worth_its_best_descendant() -> None:
    side = 2**4 - 1
    finest = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    root = Tile(3, 2, 5)
    tree = score_tree(root, finest)

    def best(tile: Tile) -> float:
        if tile.level == 0:
            return float(finest[tile.row - (root.row << 3), tile.col - (root.col << 3)])
        return max(best(child) for child in children(tile))

    for tile in (root, *children(root), *children(children(root)[4])):
        below = tree.below(tile)
        assert below is not None
        np.testing.assert_allclose(below, [best(child) for child in children(tile)])
    assert tree.below(Tile(0, root.row << 3, root.col << 3)) is None


def site(label: int = 1, window: Window | None = None) -> LabelledSite:
    reader = MemoryReader.of(random_pixels(4, (128, 128)), 16)
    whole = window or Window(0, 0, 128, 128)
    return LabelledSite(0, SiteTask("one", reader, whole), label, Tile(2, 0, 0))


def test_scoring_is_bounded_and_takes_the_finest_depth_that_fits() -> None:
    assert len(finest_tiles(site(), 1000)) == 49
    assert {tile.level for tile in finest_tiles(site(), 48)} == {1}
    assert finest_tiles(site(), 1) == (Tile(2, 0, 0),)


def test_tiles_that_miss_the_window_are_no_candidates() -> None:
    one = site(window=Window(0, 0, 40, 40))
    _, candidates = tile_features(small_network(1), one, finest_tiles(one, 1000), torch.device("cpu"))
    assert candidates.reshape(7, 7)[:3, :3].all()
    assert candidates.sum() == 9


@pytest.mark.parametrize("own_start", ["as drawn", "saturated", "no number"])
def test_the_pool_finds_the_tile_that_speaks_for_the_label_from_any_start(own_start: str) -> None:
    chance = torch.Generator().manual_seed(0)
    network = small_network(0, aggregation="gated_attention")
    with torch.no_grad():
        if own_start == "saturated":  # all attention is on one tile, whatever is there
            network.aggregation.weight.weight.mul_(1e5)
        elif own_start == "no number":
            network.classifier.weight.fill_(torch.nan)
    labels = torch.arange(3).repeat(40)
    features = []
    for label in labels.tolist():
        bag = torch.randn(20, 96, generator=chance) * 0.3
        bag[7, [label, 90]] += 6  # tile 7 alone shows an object, and tells the class
        features.append(bag)
    teacher = fit_pool(network, features, labels, steps=150, seed=0)
    found = [
        int(label_evidence(teacher, bag, label).argmax())
        for bag, label in zip(features, labels.tolist(), strict=True)
    ]
    assert np.mean([tile == 7 for tile in found]) > 0.95


@pytest.mark.parametrize("label", [0, 2])
def test_evidence_of_the_label_is_its_share_against_the_mean_of_all_classes(label: int) -> None:
    network = small_network(3)
    features = torch.randn(5, 96, generator=torch.Generator().manual_seed(1))
    output = network.aggregate(features[None], torch.ones(1, 5, dtype=torch.bool))
    against_mean = (output.logits - network.classifier.bias)[0]
    expected = against_mean[label] - against_mean.mean()
    assert label_evidence(network, features, label).sum() == pytest.approx(expected.item(), abs=1e-5)
