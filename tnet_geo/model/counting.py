"""What a network costs before it runs: parameters, and multiply-accumulates of looks and walks.

Counted are convolutions and matrix products, as the TNet paper (NeurIPS 2021) counts "FLOPs": one
multiplication with its addition is one. Nothing is computed: shapes are traced on torch's meta device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tnet_geo.model.network import TraversalNetwork
from tnet_geo.model.places import Places
from tnet_geo.model.settings import NetworkSettings, WalkSettings

__all__ = ["LookMacs", "WalkMacs", "aggregation_macs", "look_macs", "parameters", "shapes_of", "walk_macs"]


@dataclass(frozen=True)
class LookMacs:
    """Multiply-accumulates of the parts of one look."""

    backbone: int
    position: int
    location: int
    """Only where children are chosen: not at the last depth."""
    classifier: int
    """Once a site."""

    @property
    def look(self) -> int:
        """Of a look whose children nobody chooses."""
        return self.backbone + self.position


@dataclass(frozen=True)
class WalkMacs:
    """Multiply-accumulates of a walk that keeps what it may."""

    looks: int
    decisions: int
    """Looks whose children are chosen."""
    total: int


def parameters(network: nn.Module) -> int:
    """Numbers that training changes; moving statistics are not among them.

    >>> parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in network.parameters())


def shapes_of(settings: NetworkSettings) -> TraversalNetwork:
    """The network of these settings without any numbers, whatever its size: on torch's meta device.

    Raises:
        InvalidRunFile: see `TraversalNetwork`.
    """
    with torch.device("meta"), _NoDraws():
        return TraversalNetwork(settings).eval()


class _NoDraws(TorchFunctionMode):
    """Leaves out normal draws: on the meta device they would load torch's compiler, which takes seconds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in {nn.init.normal_, Tensor.normal_}:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def look_macs(network: TraversalNetwork) -> LookMacs:
    """Multiply-accumulates of one look of a network of these settings."""
    shapes = _without_numbers(network)
    side, bands = network.settings.base_px, network.settings.pixels.bands
    pixels = torch.zeros(1, bands, side, side, device="meta")
    places = Places.root().to(pixels.device)
    tap, end = shapes.encode(pixels, places.depth)
    parent = torch.zeros(1, shapes.backbone.features, device="meta")
    return LookMacs(
        backbone=_macs(lambda: shapes.encode(pixels, places.depth)),
        position=_macs(lambda: shapes.place(end, places)),
        location=_macs(lambda: shapes.locate(tap, end, places, parent)),
        classifier=shapes.classifier.in_features * shapes.classifier.out_features,
    )


def walk_macs(network: TraversalNetwork, walk: WalkSettings, depths: int | None = None) -> WalkMacs:
    """Multiply-accumulates of a walk down to a number of depths; by default those the network knows.

    A child that two parents share counts for both, so that this is the most that a walk can cost.
    Evidence is not counted: the share of each look in each class is a second use of what is there.
    """
    per_depth = [1]
    for depth in range((depths or network.settings.depths) - 1):
        kept = min(walk.keep_at(depth), network.settings.location.windows**2)
        if not kept:
            break
        per_depth.append(per_depth[-1] * kept)
    looks, decisions = sum(per_depth), sum(per_depth[:-1])
    shapes = _without_numbers(network)
    parts, pool = look_macs(shapes), aggregation_macs(shapes, looks)
    total = looks * parts.look + decisions * parts.location + pool + parts.classifier
    return WalkMacs(looks, decisions, total)


def _without_numbers(network: TraversalNetwork) -> TraversalNetwork:
    return network if network.classifier.weight.is_meta else _shapes_once(network.settings)


@lru_cache(maxsize=1)
def _shapes_once(settings: NetworkSettings) -> TraversalNetwork:
    """Counting changes nothing in it; to make one takes half a second, which a job's workers wait for."""
    return shapes_of(settings)


def aggregation_macs(network: TraversalNetwork, looks: int) -> int:
    """Multiply-accumulates of adding up so many looks of one site; each takes as many as the others."""
    shapes = _without_numbers(network)
    features: Tensor = torch.zeros(1, looks, shapes.backbone.features, device="meta")
    mask = torch.ones(1, looks, dtype=torch.bool, device="meta")
    return _macs(lambda: shapes.aggregation(features, mask))


def _macs(work: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        work()
    return int(counter.get_total_flops()) // 2
