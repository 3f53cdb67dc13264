"""What networks cost is what was measured on the published code, to the last digit that is known."""

from __future__ import annotations

import pytest

from tnet_geo.model.counting import look_macs, parameters, shapes_of, walk_macs
from tnet_geo.model.named import named_model
from tnet_geo.model.settings import LocationSettings, NetworkSettings, PositionSettings
from tnet_geo.operations import model_info

WHOLE = {"position": PositionSettings(form="none"), "location": LocationSettings(form="none")}

# Side of the canvas, keep, multiply-accumulates in 10^9, parameters.
FMOW = [
    (448, (1,), 0.7701),
    (448, (2,), 1.1550),
    (896, (1, 1), 1.1552),
    (896, (2, 1), 1.9252),
    (896, (2, 2), 2.6951),
    (896, (3, 3), 5.0049),
]
IMAGENET = [(1, 3.628), (2, 5.432), (3, 7.236), (5, 10.843)]
BIRDS = [
    ("b0", 1.541, 5_516_434, 1.537, 4_263_748),
    ("b1", 2.276, 8_007_410, 2.270, 6_769_384),
    ("b2", 2.634, 9_481_448, 2.627, 7_982_794),
    ("b3", 3.849, 12_785_326, 3.839, 11_003_632),
    ("b4", 6.013, 20_331_266, 5.999, 17_907_216),
]


def cost(network: NetworkSettings, name: str, keep: tuple[int, ...], digits: int) -> tuple[float, int]:
    """10^9 multiply-accumulates and parameters of a network with the walk of a named model."""
    shapes = shapes_of(network)
    macs = walk_macs(shapes, named_model(name).walk.model_copy(update={"keep": keep}))
    return round(macs.total / 1e9, digits), parameters(shapes)


@pytest.mark.parametrize(("canvas_px", "keep", "macs"), FMOW)
def test_traversals_of_fmow(canvas_px: int, keep: tuple[int, ...], macs: float) -> None:
    network = named_model("tnet_fmow").network.model_copy(update={"depths": len(keep) + 1})
    assert canvas_px == network.base_px << len(keep)
    assert cost(network, "tnet_fmow", keep, 4) == (macs, 4_517_575)


@pytest.mark.parametrize(("canvas_px", "macs"), [(224, 0.3846), (448, 1.5363), (896, 6.1432)])
def test_the_dense_baseline_of_fmow(canvas_px: int, macs: float) -> None:
    network = named_model("efficientnet_fmow").network.model_copy(update={"base_px": canvas_px})
    assert cost(network, "efficientnet_fmow", (), 4) == (macs, 4_086_970)


def test_parts_of_the_network_of_fmow() -> None:
    shapes = shapes_of(named_model("tnet_fmow").network)
    parts = [
        parameters(part) for part in (shapes.backbone, shapes.position, shapes.location, shapes.classifier)
    ]
    assert parts == [4_007_548, 410_880, 19_725, 79_422]
    macs = look_macs(shapes)
    assert round((macs.look + macs.classifier) / 1e9, 4) == 0.3850
    # TensorFlow scales the coordinates of all nine cells, we those of three rows and three columns.
    assert macs.location == 123_778 - 12


@pytest.mark.parametrize(("attended", "macs"), IMAGENET)
def test_traversals_of_imagenet(attended: int, macs: float) -> None:
    network = named_model("tnet_imagenet").network
    assert cost(network, "tnet_imagenet", (attended,), 3) == (macs, 21_859_949)


def test_parts_of_the_network_of_imagenet_and_its_dense_baseline() -> None:
    network = named_model("tnet_imagenet").network
    shapes = shapes_of(network)
    parts = [
        parameters(part) for part in (shapes.backbone, shapes.position, shapes.location, shapes.classifier)
    ]
    assert parts == [20_033_664, 524_800, 788_485, 513_000]
    assert cost(network, "tnet_imagenet", (), 2)[0] == 1.80
    dense = network.model_copy(update={"base_px": 224, "depths": 1} | WHOLE)
    assert cost(dense, "tnet_imagenet", (), 3) == (18.423, 20_546_664)


@pytest.mark.parametrize(("variant", "macs", "count", "dense_macs", "dense_count"), BIRDS)
def test_traversals_and_dense_baselines_of_birds(
    variant: str, *, macs: float, count: int, dense_macs: float, dense_count: int
) -> None:
    network = named_model("tnet_cub").network
    changed: dict[str, object] = {"backbone": f"timm/tf_efficientnet_{variant}"}
    if variant != "b0":  # these are tapped one stage earlier
        tap = {"tap": "blocks.2.1", "cells": (5, 9, 13, 17, 21)}
        changed["location"] = network.location.model_copy(update=tap)
    network = network.model_copy(update=changed)
    assert cost(network, "tnet_cub", (3,), 3) == (macs, count)
    dense = network.model_copy(update={"base_px": 448, "depths": 1, "aggregation": "mean"} | WHOLE)
    assert cost(dense, "tnet_cub", (), 3) == (dense_macs, dense_count)


def test_model_info_says_the_published_figures() -> None:
    for name, count, macs, digits in [
        ("tnet_fmow", 4_517_575, 1.9252, 4),
        ("tnet_fmow_448", 4_517_575, 1.1550, 4),
        ("efficientnet_fmow", 4_086_970, 6.1432, 4),
        ("tnet_imagenet", 21_859_949, 7.236, 3),
    ]:
        info = model_info(name)
        assert info.parameters == count
        assert round(info.walks[-1].macs / 1e9, digits) == macs
