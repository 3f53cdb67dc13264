"""Pretrained weights: timm's own keys from a file or from its hub, all of them or a refusal."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model import NetworkSettings, PixelSettings
from tnet_geo.model.backbones import TimmBackbone
from tnet_geo.model.timm_backbone import timm_library

LITE0 = "timm/tf_efficientnet_lite0"
SMALL = "timm/mobilenetv3_small_050"


def backbone(name: str, bands: int = 3, base_px: int = 64, **others: Any) -> TimmBackbone:
    pixels = PixelSettings(bands=bands, mean=(0.0,) * bands, std=(1.0,) * bands)
    settings = NetworkSettings(backbone=name, base_px=base_px, classes=3, depths=2, pixels=pixels, **others)
    return TimmBackbone(settings)


def plain(name: str, **others: Any) -> Any:
    return timm_library().create_model(name.removeprefix("timm/"), **{"num_classes": 0, **others}).eval()


def pixels(bands: int = 3, side: int = 64) -> Tensor:
    return torch.rand(2, bands, side, side, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.fixture(scope="module")
def imagenet(shared_data: Path) -> Path:
    path = shared_data / "weights" / "tf_efficientnet_lite0.backbone.fp16.safetensors"
    if not path.is_file():
        pytest.skip(f"ImageNet weights are not here: no {path}")
    return path


@pytest.fixture
def with_classifier(imagenet: Path, tmp_path: Path) -> Path:
    """The whole ImageNet model in one file, as timm publishes it."""
    last = imagenet.with_name("tf_efficientnet_lite0.classifier1000.fp16.safetensors")
    path = tmp_path / "model.safetensors"
    save_file({**load_file(imagenet), **load_file(last)}, path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Weights of another initialisation, with their classifier."""
    torch.manual_seed(11)
    path = tmp_path / "small.safetensors"
    save_file(plain(SMALL, num_classes=10).state_dict(), path)
    return path


@pytest.fixture
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("the internet was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_internet")
def test_real_imagenet_features_are_those_of_timms_plain_model(imagenet: Path, with_classifier: Path) -> None:
    reference = plain(LITE0)
    reference.load_state_dict(load_file(imagenet))
    for path in (imagenet, with_classifier):
        ours = backbone(LITE0).eval()
        ours.load_weights(path)
        with torch.inference_mode():
            _, end = ours(pixels())
            torch.testing.assert_close(end, reference(pixels()), rtol=1e-5, atol=1e-6)
            assert end.std() > 0.1


def test_one_band_sees_what_three_equal_ones_show(imagenet: Path) -> None:
    colour, grey = backbone(LITE0).eval(), backbone(LITE0, bands=1).eval()
    colour.load_weights(imagenet)
    grey.load_weights(imagenet)
    picture = pixels(1)
    with torch.inference_mode():
        torch.testing.assert_close(
            grey(picture)[1], colour(picture.repeat(1, 3, 1, 1))[1], rtol=1e-4, atol=1e-4
        )


def test_six_bands_see_what_three_do_where_they_repeat_them(imagenet: Path) -> None:
    colour, six = backbone(LITE0).eval(), backbone(LITE0, bands=6).eval()
    colour.load_weights(imagenet)
    six.load_weights(imagenet)
    with torch.inference_mode():
        torch.testing.assert_close(
            six(pixels().repeat(1, 2, 1, 1))[1], colour(pixels())[1], rtol=1e-4, atol=1e-4
        )


def test_every_depth_begins_with_the_norms_of_the_file(small: Path) -> None:
    shared, own = backbone(SMALL).eval(), backbone(SMALL, batch_norm="per_depth").eval()
    shared.load_weights(small)
    own.load_weights(small)
    with torch.inference_mode():
        expected = shared(pixels())[1]
        for depth in (0, 1):
            found = own(pixels(), torch.full((2,), depth))[1]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_position_tables_are_resampled_to_other_sides(tmp_path: Path) -> None:
    torch.manual_seed(1)
    name = "timm/vit_tiny_patch16_224"
    source = plain(name)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    other, same = backbone(name, base_px=160), backbone(name, base_px=224).eval()
    other.load_weights(tmp_path / "vit.safetensors")
    same.load_weights(tmp_path / "vit.safetensors")
    assert other.net.pos_embed.shape == (1, 1 + 10 * 10, 192)
    middle = source.pos_embed[0, 1:].mean(dim=0)
    torch.testing.assert_close(other.net.pos_embed[0, 1:].mean(dim=0), middle, rtol=0.2, atol=5e-3)
    with torch.inference_mode():
        torch.testing.assert_close(same(pixels(side=224))[1], source(pixels(side=224)), rtol=1e-5, atol=1e-6)


def _without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if "blocks.0" not in key}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without, "it lacks blocks.0.0.conv_dw.weight, blocks.0.0.bn1.weight, blocks.0.0.bn1.bias and "),
        (lambda state: {**state, "extra": torch.zeros(1)}, "it has beside them extra)"),
        (
            lambda state: {**state, "bn1.bias": torch.zeros(3)},
            "of the model's tensors it has in other shapes bn1.bias)",
        ),
        (
            lambda state: {**state, "conv_stem.weight": torch.zeros(16, 4, 3, 3)},
            "small.safetensors that do not load",
        ),
    ],
)
def test_weights_of_another_model_are_refused_by_name(small: Path, change: Any, sentence: str) -> None:
    save_file(change(load_file(small)), small)
    ours = backbone(SMALL)
    before = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    with pytest.raises(InvalidRunFile) as refused:
        ours.load_weights(small)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04\x95not a table of tensors"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRunFile, match=r"names weights .*weights\.safetensors that do not load \("):
        backbone(SMALL).load_weights(path)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """huggingface_hub's cache, empty, on a machine that is told not to ask the internet."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.usefixtures("no_internet")
def test_timms_own_weights_come_from_the_hubs_cache(hub_cache: Path, with_classifier: Path) -> None:
    model = hub_cache / "models--timm--tf_efficientnet_lite0.in1k"
    snapshot = model / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    with_classifier.rename(snapshot / "model.safetensors")
    ours, reference = backbone(LITE0).eval(), plain(LITE0)
    ours.load_weights("timm")
    state = load_file(snapshot / "model.safetensors")
    reference.load_state_dict({key: state[key] for key in reference.state_dict()})
    with torch.inference_mode():
        torch.testing.assert_close(ours(pixels())[1], reference(pixels()), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("no_internet", "hub_cache")
@pytest.mark.parametrize("name", [LITE0, "timm/mobilenetv4_conv_small_035"])
def test_weights_that_cannot_be_had_are_one_sentence(name: str) -> None:
    ours = backbone(name)
    with pytest.raises(InvalidRunFile) as refused:
        ours.load_weights("timm")
    said = str(refused.value)
    assert f"asks for timm's weights of {ours.name}, which cannot be had (" in said
    assert said.endswith("let this machine reach the hub, fill its cache, or give a local file as weights.")
    assert "\n" not in said
