"""Single operations that we have give what TensorFlow's give."""

from __future__ import annotations

from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.parity.conftest import Numbers
from tnet_geo.grid import Tile
from tnet_geo.inference.walks import path_centre
from tnet_geo.learning.published_losses import log_chosen, top_one
from tnet_geo.model import TraversalNetwork, top_children
from tnet_geo.model.location import Sharpness
from tnet_geo.model.named import named_model
from tnet_geo.model.places import Places
from tnet_geo.model.position import place_code
from tnet_geo.model.published import load_published, read_variables
from tnet_geo.model.windows import Windows
from tnet_geo.pyramid import MemoryReader

EVERYONE = torch.ones(4, 9, dtype=torch.bool)


@pytest.fixture(scope="module")
def layers(numbers: Numbers) -> dict[str, np.ndarray]:
    return numbers("layers")


@pytest.fixture(scope="module")
def network(parity: Path) -> TraversalNetwork:
    made = TraversalNetwork(named_model("tnet_fmow").network).eval()
    load_published(made, read_variables(parity / "weights_tnet_fmow.npz"), origin="weights")
    return made


def channels_first(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def near(found: Tensor, expected: np.ndarray, tolerance: float) -> None:
    shown = found.detach().permute(0, 2, 3, 1) if found.ndim == 4 else found.detach()
    np.testing.assert_allclose(shown.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("side", [16, 8, 4])
def test_levels_in_memory_read_the_rows_that_the_published_resizing_reads(
    layers: dict[str, np.ndarray], side: int
) -> None:
    ramp = np.ascontiguousarray(layers["resize/ramp16_input"][0].transpose(2, 0, 1))
    level = {16: 0, 8: 1, 4: 2}[side]
    batch = MemoryReader.central(ramp, 2).read(
        [Tile(level, row, col) for row, col in product(range(0, side // 2, 2), repeat=2)]
    )
    count = side // 4
    whole = batch.pixels.reshape(count, count, 4, 4).transpose(0, 2, 1, 3).reshape(side, side)
    np.testing.assert_array_equal(whole, layers[f"resize/ramp16_to_{side}"][0, :, :, 0])


@pytest.mark.parametrize("size", ["7x9", "13x18", "26x36", "5x7", "3x18", "20x11"])
def test_crops_are_resized_as_published(layers: dict[str, np.ndarray], size: str) -> None:
    rows, cols = (int(number) for number in size.split("x"))
    found = functional.interpolate(  # the call of inference.crops
        channels_first(layers["resize/input"]), (rows, cols), mode="bilinear", align_corners=False
    )
    near(found, layers[f"resize/bilinear_{size}"], 1e-6)


def test_bytes_become_the_published_input(network: TraversalNetwork, layers: dict[str, np.ndarray]) -> None:
    pixels = channels_first(layers["scale/uint8"]).expand(1, 3, 16, 16)
    found = network.scale(pixels, torch.ones(1, 16, 16))
    near(found[:, :1], layers["scale/network_input"], 1.2e-7)  # one unit in the last place of a float32 at 1


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", ["8x8", "7x7", "8x5", "14x14"])
@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_convolutions_of_the_backbone_pad_as_tensorflow_does(
    network: TraversalNetwork,
    layers: dict[str, np.ndarray],
    *,
    kernel: int,
    stride: int,
    size: str,
    kind: str,
) -> None:
    # Our backbone's own classes of convolutions, with other numbers in them.
    import_module("tnet_geo.model.torchvision_schemas")
    create = import_module("timm.layers").create_conv2d
    name = f"same/kernel{kernel}_hwio" if kind == "conv" else f"same/depthwise{kernel}_hwcm"
    if kind == "conv":
        weight = torch.from_numpy(layers[name]).permute(3, 2, 0, 1)
    else:
        weight = torch.from_numpy(layers[name]).permute(2, 3, 0, 1)
    conv = create(3, len(weight), kernel, stride=stride, padding="same", depthwise=kind == "depthwise")
    used = {type(module) for module in network.backbone.modules() if isinstance(module, nn.Conv2d)}
    assert type(conv) in used
    with torch.no_grad():
        conv.weight.copy_(weight)
        found = conv(channels_first(layers[f"same/k{kernel}_{size}_input"]))
    near(found, layers[f"same/k{kernel}_{size}_s{stride}_{kind}"], 1e-5)


def test_batch_norm_moves_and_normalises_as_in_keras(
    network: TraversalNetwork, layers: dict[str, np.ndarray]
) -> None:
    own = network.backbone.get_submodule("net.bn1")  # eps and momentum are those of the network
    norm = nn.BatchNorm2d(6, eps=own.eps, momentum=own.momentum)
    places = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "mean_before",
        "running_var": "variance_before",
    }
    norm.load_state_dict(
        {ours: torch.from_numpy(layers[f"bn/{name}"]) for ours, name in places.items()}, strict=False
    )
    pixels = channels_first(layers["bn/input"])
    near(norm.eval()(pixels), layers["bn/inference"], 1e-6)
    near(norm.train()(pixels), layers["bn/training"], 1e-6)
    near(norm.running_mean, layers["bn/mean_after"], 1e-6)
    near(norm.running_var, layers["bn/variance_after"], 1e-6)
    norm(pixels[:2])
    near(norm.running_mean, layers["bn/mean_after_second_call_first_two_rows"], 1e-6)
    near(norm.running_var, layers["bn/variance_after_second_call_first_two_rows"], 1e-6)


def test_swish_is_the_activation_of_the_backbone(
    network: TraversalNetwork, layers: dict[str, np.ndarray]
) -> None:
    activation = network.backbone.get_submodule("net.bn1.act")
    near(activation(torch.from_numpy(layers["swish/input"]).clone()), layers["swish/output"], 1e-6)


@pytest.mark.parametrize("number", [0, 1, 3, 5, 8, 11])
def test_blocks_of_the_backbone_give_what_the_published_ones_give(
    network: TraversalNetwork, layers: dict[str, np.ndarray], number: int
) -> None:
    stages = network.backbone.get_submodule("net.blocks")
    block = [block for stage in stages for block in stage][number]
    expected = layers[f"block{number:02d}/output"]
    with torch.inference_mode():
        found = block(channels_first(layers[f"block{number:02d}/input"]))
    near(found, expected, 1e-5 * float(np.abs(expected).max()))


def test_codes_of_places_are_the_published_ones(layers: dict[str, np.ndarray]) -> None:
    row, column, depth = torch.from_numpy(layers["position/yxs"]).unbind(dim=1)
    near(place_code(row, column, depth, 320), layers["position/code_320"], 2e-6)


def test_the_position_module_gives_what_the_published_one_gives(
    network: TraversalNetwork, layers: dict[str, np.ndarray]
) -> None:
    position = network.position
    end, code = (torch.from_numpy(layers[f"posmod/{name}"]) for name in ("feature", "code"))
    with torch.inference_mode():
        near(functional.silu(end + position.code(code)), layers["posmod/output"], 1e-5)


def test_the_position_module_knows_places_by_their_paths(
    network: TraversalNetwork, layers: dict[str, np.ndarray]
) -> None:
    mask, parents = layers["position/child_mask"], layers["position/parents_yx"].astype(int)
    paths = [
        (3 * int(parents[n, 0]) + k // 3, 3 * int(parents[n, 1]) + k % 3)
        for n, k in np.argwhere(mask).tolist()
    ]
    expected = torch.from_numpy(layers["position/children_yxs"])
    assert [(*path, int(expected[0, 2])) for path in paths] == [
        tuple(map(int, row)) for row in expected.tolist()
    ]
    depth = expected[:, 2].long()
    centres = torch.tensor([path_centre(path, int(depth[0])) for path in paths])
    places = Places(depth, torch.zeros_like(centres), centres)
    end = torch.zeros(len(paths), 1280)
    with torch.inference_mode():
        code = place_code(*expected.unbind(dim=1), 320)
        torch.testing.assert_close(
            network.position(end, places), functional.silu(network.position.code(code)), rtol=0, atol=1e-6
        )


def test_the_location_module_gives_what_the_published_one_gives_step_by_step(
    network: TraversalNetwork, layers: dict[str, np.ndarray]
) -> None:
    head, kept = network.location, {}
    for name in ("first", "reduce", "expand", "fuse", "score"):
        head.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: kept.update({name: (inputs[0], output)})
        )
    tap = torch.zeros(4, 80, 14, 14)
    tap[:, :, 2::4, 2::4] = channels_first(layers["location/tap"])
    with torch.inference_mode():
        logits = network.locate(tap, torch.zeros(4, 1280), Places.root(4))
    near(functional.silu(kept["first"][1]), layers["location/after_first"], 1e-5)
    near(torch.sigmoid(kept["expand"][1]).flatten(1), layers["location/gate"], 1e-6)
    near(kept["fuse"][0][:, :80], layers["location/after_gate"], 1e-5)
    near(kept["fuse"][0], layers["location/with_grid"], 1e-5)
    near(kept["score"][0], layers["location/after_fuse"], 1e-5)
    near(kept["score"][1].flatten(1), layers["location/scores"], 1e-5)
    near(torch.softmax(logits, dim=1), layers["location/probs"], 1e-6)


def test_the_likeliest_windows_are_chosen_and_their_logarithms_are_the_published_ones(
    layers: dict[str, np.ndarray],
) -> None:
    probabilities = torch.from_numpy(layers["location/probs"])
    chosen = [sorted(row) for row in top_children(probabilities.log(), EVERYONE, 2)]
    assert chosen == [np.flatnonzero(row).tolist() for row in layers["location/top2_mask"]]
    twice = probabilities.log().repeat_interleave(2, dim=0)  # a row for each of the two windows of a look
    found = log_chosen(twice, EVERYONE.repeat(2, 1), torch.tensor(chosen).flatten())[:, None]
    near(found, layers["location/log_prob_chosen"], 1e-6)
    near(found.reshape(2, 4).sum(dim=1, keepdim=True), layers["location/sum_log_prob_per_image"], 2e-6)


def test_ties_go_to_the_lower_window(layers: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(layers["location/tie_probs"]).log()
    chosen = [sorted(row) for row in top_children(logits, EVERYONE[:2], 3)]
    assert chosen == [np.flatnonzero(row).tolist() for row in layers["location/tie_top3_mask"]]


def test_scores_of_nothing_are_a_number_here_and_none_there(layers: dict[str, np.ndarray]) -> None:
    assert np.isnan(layers["location/normalise_of_zero"]).all()
    found = Sharpness(named_model("tnet_fmow").network.location)(torch.zeros(1, 9))
    assert found.tolist() == [[0.0] * 9]


@pytest.mark.parametrize(
    "case",
    [
        "224_3x3_0.5",
        "448_3x3_0.5",
        "224_5x5_0.34375",
        "448_5x5_0.35",
        "224_5x5_0.35",
        "100_3x3_0.5",
        "101_3x3_0.5",
    ],
)
def test_windows_lie_where_the_published_ones_do(layers: dict[str, np.ndarray], case: str) -> None:
    square, grid, fraction = case.split("_")
    count = int(grid[0])
    windows = Windows.of(int(square), count, float(fraction))
    origins = list(product([windows.origin(n) for n in range(count)], repeat=2))
    assert windows.side == layers[f"windows/{case}_side"]
    np.testing.assert_array_equal(origins, layers[f"windows/{case}_origin_yx"])
    zeros = [
        windows.side**2 - covered(row, windows.side, int(square)) * covered(col, windows.side, int(square))
        for row, col in origins
    ]
    assert zeros == layers[f"windows/{case}_zeros"].tolist()


def covered(origin: int, side: int, square: int) -> int:
    """Pixels of a window along an axis that lie in the square."""
    return min(origin + side, square) - max(origin, 0)


def test_a_label_that_ties_with_the_best_class_is_rewarded(layers: dict[str, np.ndarray]) -> None:
    logits = torch.from_numpy(layers["reward/logits"])
    for labels, value in (("labels", "value"), ("labels_alt", "value_alt")):
        found = top_one(logits, torch.from_numpy(layers[f"reward/{labels}"]))
        assert found.bool().tolist() == layers[f"reward/{value}"].tolist()
