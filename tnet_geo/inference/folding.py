"""Batch norms folded into the convolutions before them: the same function with fewer passes over memory.

Which convolution feeds which batch norm is not written in a model's tree of modules, so one pass over
pixels is watched: a pair is a convolution whose output is the very tensor that a batch norm takes in.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tnet_geo.model.backbones import Backbone

__all__ = ["EXACT_WITHIN", "Folded", "Probe", "folded", "furthest", "probe_of"]

EXACT_WITHIN = 1e-5
"""How far tap and end may move by folding, as a share of their largest value."""

Probe = tuple[Tensor, Tensor]
"""Pixels float32 [n, bands, B, B] and depths int64 [n]."""


class Folded(NamedTuple):
    """A backbone of its own, and how many of its batch norms are gone."""

    backbone: Backbone
    pairs: int


class _Pair(NamedTuple):
    """Names of a convolution and of the batch norm that alone takes in what it gives."""

    conv: str
    norm: str


def probe_of(bands: int, base_px: int, depths: int) -> Probe:
    """Scaled pixels, always the same: one tile of 8 x 8 colours at each of the first two depths.

    Noise pixel by pixel, which no camera gives, makes published TNet, with the weights of its parity files,
    amplify the last bits of float32 by a factor of 10^4 (measured): nothing would agree with anything.
    """
    count = min(depths, 2)
    chance = torch.Generator().manual_seed(0)
    cells = 2 * torch.rand(count, bands, 8, 8, generator=chance) - 1
    pixels = functional.interpolate(cells, (base_px, base_px))
    return pixels.contiguous(memory_format=torch.channels_last), torch.arange(count)


@torch.inference_mode()
def furthest(one: nn.Module, other: nn.Module, probe: Probe) -> float:
    """Largest difference of tap or end between two backbones, as a share of the largest value of `other`."""
    pairs = zip(one(*probe), other(*probe), strict=True)
    return max(_difference(a.float().cpu(), b.float().cpu()) for a, b in pairs)


def _difference(found: Tensor, wanted: Tensor) -> float:
    scale = wanted.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    # max() of a NaN is not a NaN everywhere, and it must never pass for agreement
    return float(((found - wanted).abs().max() / scale).nan_to_num(torch.inf))


def folded(backbone: Backbone, probe: Probe) -> Folded:
    """A copy of a backbone in evaluation mode, on the CPU, with every batch norm folded that can be.

    Pairs that move tap or end by more than `EXACT_WITHIN` stay as they are: then each is tried alone.
    """
    original = copy.deepcopy(backbone).cpu().eval()
    pairs = _pairs(original, probe)
    together = _with(original, pairs)
    if furthest(together, original, probe) <= EXACT_WITHIN:
        return Folded(together, len(pairs))
    kept: list[_Pair] = []
    for pair in pairs:
        if furthest(_with(original, [*kept, pair]), original, probe) <= EXACT_WITHIN:
            kept.append(pair)
    return Folded(_with(original, kept), len(kept))


def _pairs(backbone: Backbone, probe: Probe) -> list[_Pair]:
    """Convolutions and batch norms that are used once, one right after the other."""
    names = {module: name for name, module in backbone.named_modules()}
    given: list[tuple[Tensor, str]] = []  # holds the tensors, so that no other can have their identity
    taken: list[tuple[Tensor, str]] = []
    uses: Counter[str] = Counter()

    def conv_done(conv: nn.Module, _: object, output: Tensor) -> None:
        given.append((output, names[conv]))
        uses[names[conv]] += 1

    def norm_begins(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        taken.append((inputs[0], names[norm]))
        uses[names[norm]] += 1

    hooks = [
        module.register_forward_hook(conv_done)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(norm_begins)
        for module in names
        if isinstance(module, nn.Conv2d) or _has_statistics(module)
    ]
    try:
        with torch.inference_mode():
            backbone(*probe)
    finally:
        for hook in hooks:
            hook.remove()
    source = {id(output): name for output, name in given}
    found = [_Pair(source[id(tensor)], norm) for tensor, norm in taken if id(tensor) in source]
    users = Counter(pair.conv for pair in found)
    return [
        pair
        for pair in found
        if uses[pair.conv] == uses[pair.norm] == users[pair.conv] == 1
        and not any(_is_watched(backbone.get_submodule(name)) for name in pair)
    ]


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody takes this module's output as a tap."""
    return bool(module._forward_hooks)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_var is not None


def _with(backbone: Backbone, pairs: Sequence[_Pair]) -> Backbone:
    """A copy in which each pair is one convolution, followed by what the batch norm did besides."""
    copied = copy.deepcopy(backbone)
    for pair in pairs:
        conv, norm = copied.get_submodule(pair.conv), copied.get_submodule(pair.norm)
        copied.set_submodule(pair.conv, fuse_conv_bn_eval(conv, norm))  # type: ignore[arg-type, type-var]
        copied.set_submodule(pair.norm, _rest(norm))
    return copied


def _rest(norm: nn.Module) -> nn.Module:
    """timm's batch norms carry their activation with them."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()
