"""Small untrained networks for tests: what they answer is arbitrary, but always the same."""

from __future__ import annotations

from typing import Any

import torch

from tnet_geo.model import Bundle, BundleFacts, NetworkSettings, PixelSettings, TraversalNetwork, WalkSettings


def small_network(
    seed: int, *, classes: int = 3, base_px: int = 32, depths: int = 4, bands: int = 3, **settings: Any
) -> TraversalNetwork:
    """A network in evaluation mode with random weights, also where fresh ones are zero."""
    torch.manual_seed(seed)
    pixels = PixelSettings(bands=bands, mean=(120.0,) * bands, std=(60.0,) * bands)
    network = TraversalNetwork(
        NetworkSettings(base_px=base_px, classes=classes, depths=depths, pixels=pixels, **settings)
    )
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.normal_(0, 0.3)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.eval()


def small_bundle(
    seed: int = 0, *, walk: WalkSettings | None = None, base_px: int = 32, bands: int = 3
) -> Bundle:
    """A bundle of classes a, b, c around a small network."""
    network = small_network(seed, base_px=base_px, bands=bands)
    facts = BundleFacts(
        classes=("a", "b", "c"), network=network.settings, walk=walk or WalkSettings(keep=(2, 1))
    )
    return Bundle(facts, network, digest="0" * 64)
