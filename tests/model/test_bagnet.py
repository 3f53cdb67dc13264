"""BagNet-77, the backbone of TNet for ImageNet: its facts are those of the published network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tnet_geo.model import NetworkSettings
from tnet_geo.model.backbones import BagNet77
from tnet_geo.model.bagnet import _Bottleneck, _Convolution, _tap_cells
from tnet_geo.model.settings import LocationSettings

_FORM = LocationSettings(form="context", cells=(0, 2, 4, 6, 8), fraction=0.34375)


def bagnet(base_px: int = 77, drop_path: float = 0.0) -> BagNet77:
    torch.manual_seed(7)
    settings = NetworkSettings(
        backbone="bagnet77", base_px=base_px, classes=3, depths=2, drop_path=drop_path, location=_FORM
    )
    return BagNet77(settings)


def test_parameters_and_maps_are_the_published_ones() -> None:
    net = bagnet()
    assert sum(weight.numel() for weight in net.parameters()) == 20_033_664
    shapes = []
    for part in (net.stem, *net.to_tap, *net.to_end):
        part.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.inference_mode():
        tap, end = net.eval()(torch.zeros(1, 3, 77, 77))
    assert shapes == [
        (64, 75, 75), (256, 38, 38), (512, 19, 19), (1024, 9, 9), (2048, 7, 7), (512, 7, 7)
    ]  # fmt: skip
    assert tap.shape == (1, 1024, 9, 9)
    assert end.shape == (1, 512)
    assert not [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_a_cell_of_the_last_map_sees_77_pixels() -> None:
    net = bagnet().eval()
    pixels = torch.randn(1, 3, 161, 161, generator=torch.Generator().manual_seed(1)).requires_grad_()
    last = net.to_end(net.to_tap(torch.nn.functional.leaky_relu(net.stem(pixels), 0.2)))
    middle = last.shape[-1] // 2
    last[0, :, middle, middle].sum().backward()
    seen = torch.nonzero(pixels.grad[0].abs().sum(dim=0))  # type: ignore[index]
    assert (seen.amax(dim=0) - seen.amin(dim=0) + 1).tolist() == [77, 77]


@pytest.mark.parametrize("base_px", [67, 77, 128])
def test_the_cells_of_the_tap_are_known_before_it_is_made(base_px: int) -> None:
    with torch.inference_mode():
        tap, _ = bagnet(base_px).eval()(torch.zeros(1, 3, base_px, base_px))
    assert tap.shape[-1] == _tap_cells(base_px) >= 8
    assert _tap_cells(66) < 8


def test_padding_is_tensorflows(shared_data: Path) -> None:
    layers = shared_data.parent / "parity" / "layers.npz"
    if not layers.is_file():
        pytest.skip(f"the published network's numbers are not here: no {layers}")
    arrays = np.load(layers)
    cases = [name for name in arrays.files if name.startswith("same/k") and name.endswith("_conv")]
    assert len(cases) >= 8
    for name in cases:
        kernel, side, stride, _ = name.removeprefix("same/k").split("_")
        weight = torch.from_numpy(arrays[f"same/kernel{kernel}_hwio"]).permute(3, 2, 0, 1)
        pixels = torch.from_numpy(arrays[f"same/k{kernel}_{side}_input"]).permute(0, 3, 1, 2)
        layer = _Convolution(weight.shape[1], weight.shape[0], int(kernel), int(stride.removeprefix("s")))
        layer.load_state_dict({"weight": weight, "bias": torch.zeros(len(weight))})
        expected = torch.from_numpy(arrays[name]).permute(0, 3, 1, 2)
        with torch.inference_mode():
            torch.testing.assert_close(layer(pixels), expected, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(("stride", "padded"), [(2, True), (1, True), (2, False), (1, False)])
def test_a_bottleneck_adds_the_branch_to_the_cells_that_it_is_about(stride: int, padded: bool) -> None:
    """With a branch of zeros only the shortcut is left: the cells under the middle of each kernel."""
    block = _Bottleneck(8, 4, 3, stride, padded=padded)
    pixels = torch.rand(1, 8, 19, 19, generator=torch.Generator().manual_seed(1))

    def sees(output: Tensor, row: int) -> list[int]:
        gradient = torch.autograd.grad(output[0, :, row, row].sum(), copy)[0]
        return sorted(set(torch.nonzero(gradient[0].abs().sum(dim=0))[:, 0].tolist()))

    copy = pixels.clone().requires_grad_()
    full = block(copy)
    window = sees(full, 2)
    copy = pixels.clone().requires_grad_()
    with torch.no_grad():
        block.third.weight.zero_()
    only = block(copy)
    if stride == 2 or padded is False:
        assert sees(only, 2) == [window[1]]
    assert len(window) == 3
    assert full.shape == only.shape


def test_whole_channels_of_the_last_map_are_dropped_in_training_only() -> None:
    net = bagnet(drop_path=0.5)
    pixels = torch.rand(4, 3, 77, 77, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, trained = net.train()(pixels)
        _, end = net.eval()(pixels)
    dropped = trained == 0
    assert 0.4 < dropped.float().mean() < 0.6
    torch.testing.assert_close(trained[~dropped], 2 * end[~dropped])
