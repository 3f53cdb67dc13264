"""The network that a run begins with."""

from __future__ import annotations

import numpy as np
import torch

from tnet_geo.errors import InvalidRunFile
from tnet_geo.learning.dense import native_bag
from tnet_geo.learning.settings import ModelSettings
from tnet_geo.learning.sites import LabelledSites
from tnet_geo.model import NetworkSettings, PixelSettings, TraversalNetwork
from tnet_geo.model.backbones import TimmBackbone, own_scaling
from tnet_geo.model.settings import ArchitectureSettings

__all__ = ["new_network"]

_SAMPLED_SITES = 64


def new_network(
    settings: ModelSettings, sites: LabelledSites, classes: int, device: torch.device
) -> TraversalNetwork:
    """A fresh network for these sites, with the backbone's local weights if the run names any.

    Raises:
        InvalidRunFile: unknown backbone, or weights that are not its own.
    """
    network = TraversalNetwork(
        NetworkSettings(
            **{name: getattr(settings, name) for name in ArchitectureSettings.model_fields},
            classes=classes,
            depths=settings.depths or sites.depths,
            pixels=_pixels(settings.backbone, sites),
        )
    )
    if settings.weights is not None:
        if not isinstance(network.backbone, TimmBackbone):
            raise InvalidRunFile(
                "[model]", f"gives weights to backbone {settings.backbone!r}", "weights are for timm/NAME"
            )
        network.backbone.load_weights(settings.weights)
    return network.on(device)


def _pixels(backbone: str, sites: LabelledSites) -> PixelSettings:
    """timm's own scaling for uint8 RGB, otherwise mean and spread of native pixels of some sites."""
    spec = sites.sites[0].task.reader.spec
    own = own_scaling(backbone)
    if own is not None and spec.dtype == "uint8" and spec.bands == 3:
        mean, std = own
        return PixelSettings(mean=tuple(255 * m for m in mean), std=tuple(255 * s for s in std))
    mean, std = _measured(sites)
    return PixelSettings(bands=spec.bands, dtype=spec.dtype, mean=mean, std=std)


def _measured(sites: LabelledSites) -> tuple[tuple[float, ...], tuple[float, ...]]:
    step = max(1, len(sites.sites) // _SAMPLED_SITES)
    values = []
    for site in sites.sites[::step]:
        bag = native_bag(site, None, 4)
        batch = site.task.reader.read(bag)
        values.append(batch.pixels.transpose(0, 2, 3, 1)[batch.validity > 0].astype(np.float64))
    pixels = np.concatenate(values)
    mean, std = pixels.mean(axis=0), pixels.std(axis=0)
    return tuple(mean.round(3).tolist()), tuple(np.maximum(std, 1e-6).round(6).tolist())
