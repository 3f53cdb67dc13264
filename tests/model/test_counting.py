"""Counted costs against arithmetic by hand, and against others' count of the same models."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch

from tests.networks import small_network
from tnet_geo.model import NetworkSettings, TraversalNetwork, WalkSettings
from tnet_geo.model.counting import LookMacs, look_macs, parameters, shapes_of, walk_macs
from tnet_geo.model.settings import LocationSettings, PositionSettings

PLAIN_AT_32 = (16 * 16 * 24 * 3 * 9) + (8 * 8 * 48 * 24 * 9) + (4 * 4 * 64 * 48 * 9) + (2 * 2 * 96 * 64 * 9)


def test_a_look_of_a_plain_network_is_what_it_is_by_hand() -> None:
    found = look_macs(small_network(0))
    pooling = 9 * 4 * 4  # each child's score is a weighted sum of the map's cells
    assert found == LookMacs(
        backbone=PLAIN_AT_32,
        position=2 * 96,
        location=4 * 4 * 48 * 64 * 9 + 4 * 4 * 48 + pooling,
        classifier=96 * 3,
    )
    assert found.look == PLAIN_AT_32 + 2 * 96


def test_a_walk_is_its_looks_its_choices_and_one_answer() -> None:
    network = small_network(0, depths=3)
    part = look_macs(network)
    found = walk_macs(network, WalkSettings(keep=(2, 1)))
    assert (found.looks, found.decisions) == (5, 3)
    gate = 5 * (2 * 96 * 64 + 64)
    assert found.total == 5 * part.look + 3 * part.location + gate + part.classifier


@pytest.mark.parametrize(
    ("keep", "depths", "looks", "decisions"),
    [
        ((), 3, 1, 0),
        ((2,), 1, 1, 0),
        ((2,), 2, 3, 1),
        ((2,), 4, 15, 7),
        ((2, 1), 5, 9, 7),
        ((6, 3), 3, 25, 7),
        ((20,), 2, 10, 1),
    ],
)
def test_looks_multiply_by_what_is_kept_and_nine_is_all(
    keep: tuple[int, ...], depths: int, looks: int, decisions: int
) -> None:
    found = walk_macs(small_network(0), WalkSettings(keep=keep), depths)
    assert (found.looks, found.decisions) == (looks, decisions)


def test_a_transformer_is_counted_with_its_attention() -> None:
    settings = NetworkSettings(
        backbone="timm/vit_small_patch16_224",
        base_px=224,
        classes=2,
        depths=1,
        position=PositionSettings(form="none"),
        location=LocationSettings(form="none"),
    )
    tokens, width = 197, 384
    attention = tokens * width * 4 * width + 2 * tokens * tokens * width
    block = attention + tokens * width * 8 * width
    assert look_macs(shapes_of(settings)).backbone == 196 * 768 * width + 12 * block


def test_parameters_are_those_of_the_real_network_and_statistics_are_none() -> None:
    network = small_network(0)
    shapes = shapes_of(network.settings)
    assert parameters(shapes) == parameters(network)
    assert parameters(torch.nn.BatchNorm2d(7)) == 14
    assert {name: tuple(tensor.shape) for name, tensor in shapes.state_dict().items()} == {
        name: tuple(tensor.shape) for name, tensor in network.state_dict().items()
    }
    assert all(tensor.is_meta for tensor in [*shapes.parameters(), *shapes.buffers()])


def test_a_network_larger_than_any_memory_is_counted_without_any() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    settings = NetworkSettings(base_px=8192, classes=10**9, depths=10**9)
    assert parameters(shapes_of(settings)) > 10**11
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_shapes_take_no_random_numbers_and_do_not_load_the_compiler() -> None:
    code = """
import sys, torch
from tnet_geo.model import NetworkSettings
from tnet_geo.model.counting import shapes_of
before = torch.get_rng_state()
shapes_of(NetworkSettings(base_px=32, classes=2, depths=2))
assert torch.equal(torch.get_rng_state(), before)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_shapes_answer_for_networks_on_any_device() -> None:
    settings = NetworkSettings(base_px=32, classes=2, depths=2)
    assert look_macs(TraversalNetwork(settings)) == look_macs(shapes_of(settings))
