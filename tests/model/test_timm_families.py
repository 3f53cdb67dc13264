"""One small model of each of many families of timm: looks, knows where, and can be trained."""

from __future__ import annotations

import pytest
import torch

from tnet_geo.model import NetworkSettings, TraversalNetwork
from tnet_geo.model.places import Places

FAMILIES = {
    "coat_tiny": 128,
    "convit_tiny": 128,
    "convnext_atto": 128,
    "cpubone_nano": 128,
    "crossvit_tiny_240": 240,
    "cs3darknet_focus_s": 128,
    "cspnext_tiny": 128,
    "deit_tiny_patch16_224": 128,
    "densenet121": 128,
    "edgenext_xx_small": 128,
    "efficientformer_l1": 224,
    "efficientformerv2_s0": 128,
    "efficientvim_m1": 128,
    "efficientvit_b0": 128,
    "efficientvit_m0": 128,
    "ese_vovnet19b_slim_dw": 128,
    "eva02_tiny_patch14_224": 128,
    "fasternet_t0": 128,
    "fastvit_t8": 128,
    "ghostnet_050": 128,
    "halonet_h1": 256,
    "hardcorenas_a": 128,
    "hgnetv2_b0": 128,
    "hiera_tiny_224": 224,
    "hrnet_w18_small": 128,
    "iformer_t": 128,
    "inception_next_atto": 128,
    "lcnetv2_small": 128,
    "legacy_seresnet18": 128,
    "levit_128s": 224,
    "mambaout_femto": 128,
    "mixer_s16_224": 224,
    "mobilenetv3_small_050": 128,
    "mobileone_s0": 128,
    "mobilevit_xxs": 128,
    "nf_regnet_b0": 128,
    "pit_ti_224": 128,
    "poolformer_s12": 128,
    "pvt_v2_b0": 128,
    "regnetx_002": 128,
    "repghostnet_058": 128,
    "repvgg_a0": 128,
    "repvit_m1": 128,
    "resnest14d": 128,
    "resnet18": 128,
    "resnetv2_18": 128,
    "rexnet_100": 128,
    "sam2_hiera_tiny": 128,
    "shvit_s1": 128,
    "skresnet18": 128,
    "starnet_s1": 128,
    "swiftformer_xs": 128,
    "tiny_vit_5m_224": 128,
    "tinynet_c": 128,
    "visformer_tiny": 128,
    "vit_tiny_patch16_224": 128,
    "xcit_nano_12_p8_384": 128,
}
"""Models, nearly each of another module of timm, and a side of tiles that they can look at."""

NEVER_READ = {"efficientvim_m1": ["net.weights"]}
"""Weights that timm's own model has and never uses where it has no classifier."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_timm_looks_and_learns(name: str) -> None:
    torch.manual_seed(2)
    side = FAMILIES[name]
    network = TraversalNetwork(
        NetworkSettings(backbone=f"timm/{name}", base_px=side, classes=3, depths=3, batch_norm="by_depth")
    )
    pixels = torch.randn(4, 3, side, side)
    with torch.inference_mode():
        tap, end = network.eval().backbone(pixels[:2])
        torch.testing.assert_close(end, network.backbone.net(pixels[:2]), rtol=1e-4, atol=1e-5)
    assert tap.shape[1] == network.backbone.tap_channels
    assert min(tap.shape[-2:]) >= 8

    trained = network.on(torch.device("cpu")).train()
    places = Places(torch.tensor([0, 1, 1, 0]), torch.rand(4, 2), torch.rand(4, 2))
    output = trained.look(pixels, places)
    (output.features.square().sum() + output.child_logits.square().sum()).backward()
    gradients = {key: weight.grad for key, weight in trained.backbone.named_parameters()}
    assert [key for key, found in gradients.items() if found is None] == NEVER_READ.get(name, [])
    assert all(found.isfinite().all() for found in gradients.values() if found is not None)


def test_they_are_of_most_modules_of_timm() -> None:
    from tnet_geo.model.timm_backbone import timm_library

    modules = {timm_library().model_entrypoint(name).__module__ for name in FAMILIES}
    assert len(modules) == 56
