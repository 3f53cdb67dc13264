"""Runtimes: what computes the backbone of a network, each faster than eager PyTorch, none another model.

A runtime is a network with another backbone in it. Its name, with version, precision and batch shape, is
part of what names an answer: runtimes agree within a bound, not bit by bit.
"""

from __future__ import annotations

import copy
import os
import shutil
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from tnet_geo.errors import RuntimeUnusable
from tnet_geo.inference.folding import folded, probe_of
from tnet_geo.inference.onnx_graphs import onnx_backbone, onnx_version
from tnet_geo.model.network import TraversalNetwork

__all__ = ["PRECISIONS", "RUNTIMES", "Precision", "Prepared", "Runtime", "prepared"]

Runtime = Literal["folded", "eager", "compiled", "onnx"]
Precision = Literal["float32", "bfloat16"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Prepared(NamedTuple):
    """A network ready for looks."""

    network: TraversalNetwork
    """Shares all but the backbone with the one that it was made of."""
    name: str
    """Runtime, version, precision, device and batch shape: `folded torch-2.13.0 float32 cpu batch 8`."""


def prepared(
    network: TraversalNetwork,
    *,
    runtime: Runtime = "folded",
    precision: Precision = "float32",
    device: torch.device | None = None,
    batch_looks: int = 8,
    digest: str = "",
) -> Prepared:
    """`network`, moved to `device`, with its backbone computed by `runtime`.

    folded: PyTorch, batch norms folded into convolutions where that is exact within 1e-5; where nothing
    can be folded, as with batch norms per depth, this is eager and named so. compiled: folded, then
    `torch.compile` for the one batch shape, tens of seconds at the first look. onnx: ONNX Runtime on the
    CPU; the graph is kept under `digest`, if there is one. bfloat16: autocast of the backbone, where the
    device has it in hardware.

    Raises:
        RuntimeUnusable: this machine or this network cannot do that.
    """
    where = device or torch.device("cpu")
    _check(runtime, precision, where)
    settings, backbone = network.settings, network.eval().backbone
    probe = probe_of(settings.pixels.bands, settings.base_px, settings.depths)
    made: nn.Module = backbone
    if runtime == "onnx":
        made = onnx_backbone(settings, backbone, probe, digest)
    elif runtime != "eager":
        made, pairs = folded(backbone, probe)
        runtime = "eager" if runtime == "folded" and not pairs else runtime
    ready = _with_backbone(network.on(where), made).on(where)
    if runtime == "compiled":
        ready = _with_backbone(ready, _Compiled(ready.backbone))
    if precision == "bfloat16" or where.type == "cuda":
        ready = _with_backbone(ready, _InPrecision(ready.backbone, precision, where.type))
    library = f"onnxruntime-{onnx_version()}" if runtime == "onnx" else f"torch-{torch.__version__}"
    return Prepared(ready, f"{runtime} {library} {precision} {where.type} batch {batch_looks}")


def _check(runtime: Runtime, precision: Precision, device: torch.device) -> None:
    if runtime == "onnx" and device.type != "cpu":
        raise RuntimeUnusable(runtime, f"it computes on the CPU, and {device} is asked for")
    if runtime == "onnx" and precision != "float32":
        raise RuntimeUnusable(runtime, f"its graphs are of float32, and {precision} is asked for")
    if runtime == "compiled" and device.type == "cpu" and not _compiler():
        raise RuntimeUnusable(runtime, "there is no C++ compiler, neither $CXX nor g++ nor clang++")
    if precision == "bfloat16" and not _has_bfloat16(device):
        raise RuntimeUnusable(
            runtime, f"{device} has no bfloat16 in hardware, emulated it is many times slower"
        )


def _compiler() -> str | None:
    """The first C++ compiler that torch would find."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _with_backbone(network: TraversalNetwork, backbone: nn.Module) -> TraversalNetwork:
    """A network that shares everything with `network` but its backbone."""
    other = copy.copy(network)
    other._modules = {**network._modules, "backbone": backbone}
    return other


class _Wrapped(nn.Module):
    """A backbone around a backbone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.tap_channels, self.features, self.layout = inner.tap_channels, inner.features, inner.layout


class _Compiled(_Wrapped):
    """A backbone that torch compiles for the shape that it meets first, weights being constants."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self._call: Any = torch.compile(inner, dynamic=False, options={"freezing": True})

    def forward(self, pixels: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Backbone`."""
        tap, end = self._call(pixels, depth)
        return tap, end


class _InPrecision(_Wrapped):
    """A backbone whose convolutions and products have the precision that was asked for."""

    def __init__(self, inner: nn.Module, precision: Precision, device: str) -> None:
        super().__init__(inner)
        self._precision, self._device = precision, device

    def forward(self, pixels: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Backbone`."""
        with self._context():
            tap, end = self.inner(pixels, depth)
        return tap.float(), end.float()

    def _context(self) -> AbstractContextManager[None]:
        if self._precision == "bfloat16":
            return torch.autocast(self._device, torch.bfloat16)
        # without it, cuDNN computes convolutions of float32 in TF32, which has 10 bits of mantissa
        return torch.backends.cudnn.flags(allow_tf32=False)
