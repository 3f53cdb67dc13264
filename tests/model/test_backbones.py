"""Backbones: every model gives a tap that knows where, and an end that is timm's own."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model import Bundle, BundleFacts, NetworkSettings, PixelSettings, TraversalNetwork, WalkSettings
from tnet_geo.model import read_bundle as read
from tnet_geo.model.backbones import backbone_of, own_scaling
from tnet_geo.model.places import Places
from tnet_geo.model.settings import LocationSettings
from tnet_geo.model.timm_backbone import timm_library

MODELS = {
    "timm/efficientnet_b0": 64,
    "timm/resnet50": 64,
    "timm/convnext_tiny": 64,
    "timm/mobilenetv3_small_100": 64,
    "timm/tf_efficientnet_lite0": 64,
    "timm/vit_small_patch16_224": 128,
    "timm/swin_tiny_patch4_window7_224": 64,
    "timm/fastvit_t8": 64,
    "timm/efficientvit_b0": 64,
}
"""Models and the side of a tile that is enough for them."""

HEAVY = {name for name in MODELS if re.search("resnet50|_tiny|_small_patch", name)}

EVERY = pytest.mark.parametrize("name", MODELS)


def settings_of(name: str, **others: Any) -> NetworkSettings:
    return NetworkSettings(
        **{"backbone": name, "base_px": MODELS.get(name, 64), "classes": 3, "depths": 3, **others}
    )


def tiles(count: int, side: int, bands: int = 3) -> Tensor:
    return torch.randn(count, bands, side, side, generator=torch.Generator().manual_seed(1))


def freshened(network: TraversalNetwork) -> TraversalNetwork:
    """In evaluation mode; batch norms as after some training: fresh ones let deep maps fade to nothing."""
    norms = [module for module in network.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.clamp_(min=0.5)  # some models begin with blocks that add nothing
            norm.momentum = 1.0
        if norms:
            network.backbone.train()(tiles(4, network.settings.base_px))
    return network.eval()


@cache
def fresh(name: str) -> TraversalNetwork:
    """Tests must leave it as it is."""
    torch.manual_seed(3)
    return freshened(TraversalNetwork(settings_of(name)))


def places(count: int) -> Places:
    return Places(torch.arange(count) % 3, torch.zeros(count, 2), torch.zeros(count, 2))


@EVERY
def test_the_end_is_what_timms_plain_model_makes_of_the_same_pixels(name: str) -> None:
    network, timm = fresh(name), timm_library()
    side = {"img_size": 128} if "vit_small" in name else {"img_size": 64} if "swin" in name else {}
    plain = timm.create_model(name.removeprefix("timm/"), num_classes=0, **side).eval()
    plain.load_state_dict(network.backbone.net.state_dict())
    pixels = tiles(2, MODELS[name])
    with torch.inference_mode():
        _, end = network.backbone(pixels)
        torch.testing.assert_close(end, plain(pixels), rtol=1e-5, atol=1e-6)
    assert end.shape == (2, network.backbone.features)


@EVERY
def test_the_tap_is_the_deepest_map_of_at_least_eight_cells(name: str) -> None:
    network = fresh(name)
    with torch.inference_mode():
        pixels = tiles(1, MODELS[name])
        tap, _ = network.backbone(pixels)
        _, maps = network.backbone.net.forward_intermediates(pixels)
    assert tap.shape == (1, network.backbone.tap_channels, *tap.shape[-2:])
    fine = [found for found in maps if found.shape[-1] >= 8]
    assert torch.equal(tap, fine[-1])


@EVERY
def test_tap_and_child_scores_react_most_where_the_pixels_changed(name: str) -> None:
    network, side = fresh(name), MODELS[name]
    pixels = tiles(4, side)
    changed = pixels.clone()
    changed[:, :, : side // 4, : side // 4] += 2.0  # the quarter that only child 0 sees
    with torch.inference_mode():
        (before, _), (after, _) = network.backbone(pixels), network.backbone(changed)
        scores, scores_after = (network.look(seen, Places.root(4)).child_logits for seen in (pixels, changed))
    moved = (after - before).abs().mean(dim=(0, 1))
    quarter = moved.shape[-1] // 4
    assert moved[:quarter, :quarter].mean() > 5 * moved[2 * quarter :, 2 * quarter :].mean()
    first, *other_corners = (scores_after - scores).abs().mean(dim=0)[[0, 2, 6, 8]]
    assert first > 2 * max(other_corners)


@EVERY
def test_a_step_of_training_reaches_every_weight_that_answers_come_from(name: str) -> None:
    network = copy.deepcopy(fresh(name)).train()
    output = network.look(tiles(3, MODELS[name]), places(3))
    logits = network.aggregate(output.features[None], torch.ones(1, 3, dtype=torch.bool)).logits
    chosen = torch.log_softmax(output.child_logits, dim=1)[:, 4].sum()
    (nn.functional.cross_entropy(logits, torch.tensor([1])) - chosen).backward()
    for part in (network.backbone, network.location):
        gradients = {key: weight.grad for key, weight in part.named_parameters()}
        assert not [key for key, found in gradients.items() if found is None or not found.isfinite().all()]
        assert not [key for key, found in gradients.items() if not found.any()]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in MODELS]
)
def test_a_bundle_of_it_answers_as_the_network_did(name: str, tmp_path: Path) -> None:
    network = fresh(name)
    facts = BundleFacts(classes=("a", "b", "c"), network=network.settings, walk=WalkSettings(keep=(2, 1)))
    again = read(Bundle(facts, network).save(tmp_path / "bundle")).network
    with torch.inference_mode():
        before, after = (n.look(tiles(2, MODELS[name]), places(2)) for n in (network, again))
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.child_logits, after.child_logits)


@pytest.mark.parametrize(
    ("name", "tap", "base_px", "shape"),
    [
        ("timm/tf_efficientnet_b0", "blocks.3", 224, (80, 14, 14)),  # published, fMoW
        ("timm/tf_efficientnet_b1", "blocks.2.1", 224, (40, 28, 28)),  # published, birds
        ("timm/vit_small_patch16_224", "blocks.5", 224, (384, 14, 14)),
        ("timm/swin_tiny_patch4_window7_224", "layers.0", 64, (96, 16, 16)),
    ],
)
def test_a_named_module_is_the_tap(name: str, tap: str, base_px: int, shape: tuple[int, ...]) -> None:
    backbone = backbone_of(settings_of(name, base_px=base_px, location=LocationSettings(tap=tap))).eval()
    seen: list[Tensor] = []
    backbone.net.get_submodule(tap).register_forward_hook(lambda module, inputs, output: seen.append(output))
    pixels = tiles(1, base_px)
    with torch.inference_mode():
        found, end = backbone(pixels)
        assert torch.equal(end, backbone.net(pixels))
    assert found.shape[1:] == shape
    assert backbone.tap_channels == shape[0]
    as_rows = found.flatten(2).transpose(1, 2)
    raw = seen[0].flatten(2).transpose(1, 2) if "efficientnet" in name else seen[0].reshape(1, -1, shape[0])
    assert torch.equal(as_rows, raw[:, -as_rows.shape[1] :])


def test_a_copy_keeps_its_own_tap() -> None:
    settings = settings_of("timm/mobilenetv3_small_100", location=LocationSettings(tap="blocks.1"))
    first = backbone_of(settings).eval()
    second = copy.deepcopy(first)
    with torch.inference_mode():
        for weight in second.parameters():
            weight.mul_(1.1)
        pixels = tiles(1, 64)
        before = first(pixels)[0].clone()
        assert not torch.equal(second(pixels)[0], before)
        assert torch.equal(first(pixels)[0], before)


def test_pixels_are_scaled_as_the_model_was_pretrained() -> None:
    assert own_scaling("timm/tf_efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert own_scaling("timm/resnet50") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert own_scaling("plain") is None


@pytest.mark.parametrize("bands", [1, 5])
def test_classes_bands_depths_and_sides_are_the_runs(bands: int) -> None:
    pixels = PixelSettings(bands=bands, mean=(0.0,) * bands, std=(1.0,) * bands)
    settings = settings_of(
        "timm/mobilenetv3_small_100", pixels=pixels, classes=7, depths=5, base_px=96, aggregation="mean"
    )
    network = TraversalNetwork(settings).eval()
    with torch.inference_mode():
        output = network.look(tiles(2, 96, bands), places(2))
        site = network.aggregate(output.features[None], torch.ones(1, 2, dtype=torch.bool))
    assert output.child_logits.shape == (2, 9)
    assert site.logits.shape == (1, 7)


def test_blocks_are_dropped_as_published_counted_from_one() -> None:
    backbone = backbone_of(settings_of("timm/tf_efficientnet_b0", drop_path=0.5))
    blocks = [block for stage in backbone.net.blocks for block in stage]
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx(
        [0.5 * b / 16 for b in range(1, 17)]
    )
    assert [b for b, block in enumerate(blocks) if block.has_skip] == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    untouched = backbone_of(settings_of("timm/tf_efficientnet_b0"))
    backbone.load_state_dict(untouched.state_dict())
    pixels = tiles(2, 64)
    with torch.inference_mode():
        assert torch.equal(backbone.eval()(pixels)[1], untouched.eval()(pixels)[1])
        assert not torch.equal(backbone.train()(pixels)[1], backbone(pixels)[1])


def test_other_models_get_timms_own_stochastic_depth() -> None:
    backbone = backbone_of(settings_of("timm/convnext_tiny", drop_path=0.3))
    rates = [m.drop_prob for m in backbone.net.modules() if type(m).__name__ == "DropPath"]
    assert rates[-1] == pytest.approx(0.3)
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (
            {"backbone": "plane"},
            "names the unknown backbone 'plane': write `plain`, `bagnet77` or `timm/NAME`.",
        ),
        ({"backbone": "timm/"}, "names the unknown backbone 'timm/'"),
        ({"backbone": "timm/resnet51"}, "names the unknown backbone timm/resnet51: take one of timm's: "),
        (
            {"backbone": "timm/resnet18d.of_mine"},
            "names weights 'of_mine', which timm does not have of resnet18d: take one of resnet18d.ra2_in1k",
        ),
        ({"backbone": "timm/hf-hub:me/mine"}, "names the unknown backbone timm/hf-hub:me/mine"),
        (
            {"backbone": "timm/resnet18", "base_px": 12},
            "has base_px 12, too small for timm/resnet18: take at least 16.",
        ),
        (
            {"backbone": "timm/vit_small_patch16_224", "base_px": 64},
            "has base_px 64, too small for timm/vit_small_patch16_224: take at least 128.",
        ),
        (
            {"backbone": "timm/vit_small_patch16_224", "base_px": 100},
            "has base_px 100, too small for timm/vit_small_patch16_224: take at least 136.",
        ),
        (
            {"backbone": "timm/resnet18", "location": LocationSettings(tap="blocks.3")},
            "names blocks.3 as location.tap, which timm/resnet18 has not: take one of its modules (conv1, ",
        ),
        (
            {"backbone": "timm/resnet18", "location": LocationSettings(tap="global_pool")},
            "the module named as location.tap gives no map",
        ),
        ({"backbone": "timm/vgg11", "drop_path": 0.2}, "sets drop_path, which timm/vgg11 does not know"),
        ({"backbone": "plain", "drop_path": 0.2}, "sets drop_path, which backbone plain does not know"),
        (
            {"backbone": "plain", "location": LocationSettings(tap="to_tap")},
            "sets location.tap, which backbone plain does not know",
        ),
        ({"backbone": "bagnet77", "base_px": 64}, "has base_px 64, too small for bagnet77: take 77"),
        (
            {"backbone": "timm/convnext_tiny", "batch_norm": "per_depth"},
            "asks for batch norms per depth, which timm/convnext_tiny does not have",
        ),
        (
            {"backbone": "timm/levit_128s", "base_px": 224, "batch_norm": "per_depth"},
            "asks for batch norms per depth, which timm/levit_128s does not have",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(others: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRunFile) as refused:
        backbone_of(settings_of(**{"name": "plain", **others}))
    said = str(refused.value)
    assert sentence in said
    assert "\n" not in said
    assert refused.value.exit_code == 4
