"""Whom a look is normalised with: looks of all depths, those of its own, or those of its own for ever."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tnet_geo.model import NetworkSettings
from tnet_geo.model.backbones import Backbone, backbone_of
from tnet_geo.model.depth_norm import DepthNorm

BACKBONES = pytest.mark.parametrize("name", ["plain", "timm/mobilenetv3_small_100"])
DEPTH = torch.tensor([1, 0, 2, 1, 0, 1, 2, 0])


def made(name: str, batch_norm: str, **others: Any) -> Backbone:
    """Two of one name have the same weights."""
    torch.manual_seed(5)
    settings = {"backbone": name, "base_px": 64, "classes": 3, "depths": 3, **others}
    return backbone_of(NetworkSettings(**settings, batch_norm=batch_norm)).train()


def tiles(count: int = 8) -> Tensor:
    """Tiles of one depth are unlike those of another."""
    pixels = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    return pixels + DEPTH[:count, None, None, None]


def statistics(backbone: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in backbone.state_dict().items() if "running" in key}


@BACKBONES
def test_by_depth_is_one_call_for_each_depth_shallow_ones_first(name: str) -> None:
    """That is how published TNet trains; its statistics move once a depth, in order of depth."""
    together, apart = made(name, "by_depth"), made(name, "shared")
    pixels = tiles()
    tap, end = together(pixels, DEPTH)
    for depth in (0, 1, 2):
        one_tap, one_end = apart(pixels[depth == DEPTH])
        assert torch.equal(tap[depth == DEPTH], one_tap)
        assert torch.equal(end[depth == DEPTH], one_end)
    torch.testing.assert_close(statistics(together), statistics(apart), rtol=0, atol=0)


@BACKBONES
def test_shared_is_one_batch_of_all_depths(name: str) -> None:
    first, second = made(name, "shared"), made(name, "by_depth")
    pixels = tiles()
    shared = first(pixels, DEPTH)[1]
    assert torch.equal(shared, second(pixels)[1])  # rows without depths are of one depth
    torch.testing.assert_close(statistics(first), statistics(second), rtol=0, atol=0)
    assert not torch.equal(shared, made(name, "by_depth")(pixels, DEPTH)[1])


@BACKBONES
def test_outside_training_by_depth_and_shared_are_the_same_network(name: str) -> None:
    shared, by_depth = made(name, "shared").eval(), made(name, "by_depth").eval()
    with torch.inference_mode():
        before, after = shared(tiles(), DEPTH), by_depth(tiles(), DEPTH)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert list(shared.state_dict()) == list(by_depth.state_dict())


@BACKBONES
def test_gradients_by_depth_are_those_of_the_separate_calls(name: str) -> None:
    together, apart = made(name, "by_depth"), made(name, "shared")
    pixels = tiles()
    together(pixels, DEPTH)[1].square().sum().backward()
    sum(apart(pixels[depth == DEPTH])[1].square().sum() for depth in (0, 1, 2)).backward()
    for (key, one), other in zip(together.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=key)


@BACKBONES
def test_per_depth_every_depth_has_statistics_of_its_own(name: str) -> None:
    own = made(name, "per_depth")
    pixels = tiles()
    before = statistics(own)
    own(pixels[DEPTH == 1], DEPTH[DEPTH == 1])
    for key, value in statistics(own).items():
        assert torch.equal(value, before[key]) == (".of_depth.1." not in key)


@BACKBONES
def test_per_depth_each_row_is_scaled_by_the_norms_of_its_depth(name: str) -> None:
    own, shared = made(name, "per_depth"), made(name, "shared")
    for _ in range(3):
        own(tiles(), DEPTH)
    with torch.no_grad():
        for key, weight in own.named_parameters():
            if ".of_depth." in key:
                weight.add_(torch.rand_like(weight), alpha=0.3)
    own.eval()
    shared.eval()
    state = own.state_dict()
    with torch.inference_mode():
        tap, end = own(tiles(), DEPTH)
        for depth in (0, 1, 2):
            names = {key.replace(f".of_depth.{depth}.", "."): value for key, value in state.items()}
            shared.load_state_dict({key: names[key] for key in shared.state_dict()})
            one_tap, one_end = shared(tiles()[depth == DEPTH])
            torch.testing.assert_close(tap[depth == DEPTH], one_tap, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(end[depth == DEPTH], one_end, rtol=1e-4, atol=1e-5)


def test_per_depth_deeper_looks_than_any_in_training_share_the_last_norms() -> None:
    own = made("plain", "per_depth").eval()
    with torch.inference_mode():
        last, deeper = (own(tiles(2), torch.tensor([2, depth])) for depth in (2, 7))
    assert torch.equal(last[1], deeper[1])


def test_per_depth_the_depth_has_to_be_told() -> None:
    with pytest.raises(ValueError, match="need the depth of every row"):
        made("plain", "per_depth")(tiles())


def test_a_copy_of_norms_per_depth_looks_at_its_own_rows() -> None:
    own = made("plain", "per_depth").eval()
    other = copy.deepcopy(own)
    with torch.inference_mode():
        assert torch.equal(own(tiles(), DEPTH)[1], other(tiles(), DEPTH)[1])
    norms = [module for module in other.modules() if isinstance(module, DepthNorm)]
    assert len(norms) == 4
    assert {id(norm._rows) for norm in norms} == {id(other._rows)}
    assert other._rows is not own._rows


@pytest.mark.parametrize("batch_norm", ["shared", "by_depth", "per_depth"])
def test_the_momentum_of_moving_statistics_is_that_of_the_settings(batch_norm: str) -> None:
    norms = [
        module
        for module in made("timm/tf_efficientnet_b0", batch_norm, norm_momentum=0.01).modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}  # published
    assert len(norms) == 49 * (3 if batch_norm == "per_depth" else 1)
    own = [
        module for module in made("timm/tf_efficientnet_b0", batch_norm).modules() if hasattr(module, "eps")
    ]
    assert {norm.momentum for norm in own if isinstance(norm, nn.BatchNorm2d)} == {0.1}  # timm's
