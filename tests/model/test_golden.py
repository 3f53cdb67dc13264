"""Golden answers: a network that says what it said is recognised, and every part of it is asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from tests.networks import small_network
from tnet_geo.imagery.bands import DTYPES
from tnet_geo.model import NetworkSettings, PixelSettings, TraversalNetwork
from tnet_geo.model.golden import LOOKS, SITES, TOLERANCES, deviations, golden_of, read_golden
from tnet_geo.model.settings import LocationSettings, PositionSettings

PUBLISHED: dict[str, Any] = {
    "position": PositionSettings(form="code", coordinates="path"),
    "location": LocationSettings(form="cells", cells=(1, 4, 7), scores="unit", temperature="fixed"),
    "feature_norm": "none",
    "aggregation": "mean",
}


def network_of(**others: Any) -> TraversalNetwork:
    """An untrained network with weights in every corner."""
    settings: dict[str, Any] = {"base_px": 64, "classes": 3, "depths": 3, **others}
    torch.manual_seed(3)
    network = TraversalNetwork(NetworkSettings(**settings)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


def test_the_same_network_says_the_same() -> None:
    golden = golden_of(small_network(4))
    assert [(one.output, one.difference) for one in deviations(golden, small_network(4))] == [
        ("features", 0.0),
        ("child_logits", 0.0),
        ("logits", 0.0),
    ]


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("backbone.to_tap.0.0.weight", {"features", "child_logits", "logits"}),
        ("backbone.to_end.0.weight", {"features", "logits"}),
        ("norm.bias", {"features", "logits"}),
        ("position.depth.weight", {"features", "logits"}),
        ("position.centre.weight", {"features", "logits"}),
        ("location.reduce.weight", {"child_logits"}),
        ("location.depth.weight", {"child_logits"}),
        ("aggregation.weight.weight", {"logits"}),
        ("classifier.weight", {"logits"}),
    ],
)
def test_a_change_of_any_part_is_found_where_it_acts(part: str, wrong: set[str]) -> None:
    golden, network = golden_of(small_network(4)), small_network(4)
    with torch.no_grad():
        network.get_parameter(part).mul_(1.05).add_(0.01)
    assert {one.output for one in deviations(golden, network) if not one.within} == wrong


def test_looks_below_the_root_have_a_depth_and_a_place_that_count() -> None:
    golden, network = golden_of(small_network(4)), small_network(4)
    with torch.no_grad():
        network.position.depth.weight[2].add_(0.01)
    assert [one.within for one in deviations(golden, network)] == [False, True, False]


@pytest.mark.parametrize(
    ("others", "part"),
    [
        ({"location": LocationSettings(parent=True)}, "location.told.parent.weight"),
        ({"location": LocationSettings(position=True)}, "location.told.position.weight"),
        (PUBLISHED, "location.rows.weight"),
        (PUBLISHED, "position.code.weight"),
        ({"aggregation": "feature_weighting"}, "aggregation.reduce.weight"),
        ({"aggregation": "ltpa"}, "aggregation.whole.weight"),
    ],
)
def test_what_a_switch_adds_is_asked_too(others: dict[str, Any], part: str) -> None:
    network = network_of(**others)
    golden = golden_of(network)
    assert all(one.within for one in deviations(golden, network))
    with torch.no_grad():
        network.get_parameter(part).mul_(1.5)
    assert not all(one.within for one in deviations(golden, network))


def test_a_difference_within_the_bound_is_none_and_above_it_one() -> None:
    network = small_network(4)
    golden = golden_of(network)
    largest = float(np.abs(golden.logits).max())
    for share, within in ((0.9, True), (1.1, False)):
        other = dataclasses.replace(golden, logits=golden.logits + share * TOLERANCES["float32"] * largest)
        assert deviations(other, network)[2].within is within
    coarse = dataclasses.replace(golden, logits=golden.logits * (1 + 0.9 * TOLERANCES["bfloat16"]))
    assert deviations(coarse, network, "bfloat16")[2].within


def test_an_answer_that_is_no_number_is_never_within() -> None:
    golden, network = golden_of(small_network(4)), small_network(4)
    with torch.no_grad():
        network.classifier.bias[0] = torch.nan
    assert not deviations(golden, network)[2].within


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_are_of_the_bundles_dtype_and_within_its_limits(dtype: str) -> None:
    mean, std = ((0.0, 0.0), (40.0, 40.0)) if dtype.startswith("int8") else ((90.0, 5.0), (60.0, 20.0))
    pixels = PixelSettings(bands=2, dtype=dtype, mean=mean, std=std)
    golden = golden_of(network_of(pixels=pixels))
    assert golden.pixels.dtype == np.dtype(dtype)
    assert golden.pixels.shape == (SITES * LOOKS, 2, 64, 64)
    assert len(np.unique(golden.pixels)) > 50
    assert np.isfinite(golden.logits).all()


@pytest.mark.parametrize(
    "others",
    [
        {},
        PUBLISHED,
        {"depths": 1, "location": LocationSettings(form="none")},
        {"location": LocationSettings(form="cells", cells=(0, 2, 4, 5, 7), fraction=0.35)},
    ],
)
def test_a_file_comes_back_as_it_was(others: dict[str, Any]) -> None:
    network = network_of(**others)
    golden = golden_of(network)
    content = golden.content()
    again = read_golden(content, network.settings, network.classifier.in_features)
    assert again.content() == content
    for name, array in vars(golden).items():
        np.testing.assert_array_equal(getattr(again, name), array)


def test_a_file_of_another_network_is_refused() -> None:
    network = network_of()
    content = golden_of(network).content()
    other = network.settings.model_copy(update={"classes": 4})
    with pytest.raises(ValueError, match=r"logits is float32 \(2, 3\), not float32 \(2, 4\)"):
        read_golden(content, other, network.classifier.in_features)


def test_a_file_for_tiles_of_the_published_side_is_small() -> None:
    assert len(golden_of(network_of(base_px=224)).content()) < 150_000
