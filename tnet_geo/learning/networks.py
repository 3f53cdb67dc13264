"""The network that a run begins with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tnet_geo.errors import InvalidRunFile
from tnet_geo.learning.dense import native_bag
from tnet_geo.learning.settings import ModelSettings
from tnet_geo.learning.sites import LabelledSites
from tnet_geo.model import Bundle, NetworkSettings, PixelSettings, TraversalNetwork, read_bundle
from tnet_geo.model.backbones import TimmBackbone, own_scaling
from tnet_geo.model.settings import ArchitectureSettings

__all__ = ["new_network"]

_SAMPLED_SITES = 64


def new_network(
    settings: ModelSettings, sites: LabelledSites, classes: Sequence[str], device: torch.device
) -> TraversalNetwork:
    """A network for these sites: fresh, with its backbone's weights, or with those of a bundle.

    Raises:
        InvalidBundle: there is none to begin with.
        InvalidRunFile: unknown backbone, or weights that are not its own.
    """
    begun = read_bundle(settings.begin) if settings.begin else None
    network = TraversalNetwork(
        NetworkSettings(
            **{name: getattr(settings, name) for name in ArchitectureSettings.model_fields},
            classes=len(classes),
            depths=settings.depths or sites.depths,
            pixels=begun.facts.network.pixels if begun else _pixels(settings, sites),
        )
    )
    if begun is not None:
        _begin_with(network, begun, sites, classes)
    if settings.weights is not None:
        if not isinstance(network.backbone, TimmBackbone):
            raise InvalidRunFile(
                "[model]", f"gives weights to backbone {settings.backbone!r}", "weights are for timm/NAME"
            )
        network.backbone.load_weights(settings.weights)
    return network.on(device)


def _begin_with(
    network: TraversalNetwork, begun: Bundle, sites: LabelledSites, classes: Sequence[str]
) -> None:
    """Fill a network with the weights of a bundle that knows the same classes and pixels."""
    facts, spec = begun.facts, sites.sites[0].task.reader.spec
    pixels = facts.network.pixels
    if facts.classes != tuple(classes):
        raise InvalidRunFile(
            "[model]", "begins with a bundle that knows other classes", "name one of these sites' classes"
        )
    if (pixels.bands, pixels.dtype) != (spec.bands, spec.dtype):
        raise InvalidRunFile(
            "[model]",
            f"begins with a bundle of {pixels.bands} bands of {pixels.dtype}",
            f"the sites have {spec.bands} of {spec.dtype}",
        )
    try:
        network.load_state_dict(begun.network.state_dict())
    except RuntimeError as error:
        cause = " ".join(str(error).splitlines()[1].split()).rstrip(".")
        raise InvalidRunFile(
            "[model]", f"begins with a bundle of another network ({cause})", "describe that very network"
        ) from error


def _pixels(settings: ModelSettings, sites: LabelledSites) -> PixelSettings:
    """The dtype's range where the run says so; timm's own scaling for uint8 RGB; else what is measured."""
    spec = sites.sites[0].task.reader.spec
    if settings.scaling == "range":
        return _whole_range(spec.bands, spec.dtype)
    own = own_scaling(settings.backbone)
    if own is not None and spec.dtype == "uint8" and spec.bands == 3:
        mean, std = own
        return PixelSettings(mean=tuple(255 * m for m in mean), std=tuple(255 * s for s in std))
    mean, std = _measured(sites)
    return PixelSettings(bands=spec.bands, dtype=spec.dtype, mean=mean, std=std)


def _whole_range(bands: int, dtype: str) -> PixelSettings:
    """From -1 to 1 over everything that a dtype of whole numbers can say."""
    if np.dtype(dtype).kind not in "iu":
        raise InvalidRunFile("[model]", f"scales {dtype} by its range", "leave `scaling` out for such pixels")
    info = np.iinfo(dtype)
    middle, half = (info.max + info.min) / 2, (info.max - info.min) / 2
    return PixelSettings(bands=bands, dtype=dtype, mean=(middle,) * bands, std=(half,) * bands)


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
