"""Variables of the published TensorFlow code as weights of our networks, and back.

Names are rewritten by rule, so that every width and depth of EfficientNet is covered; what a layout
becomes follows from the number of axes on both sides. Source: names of the published checkpoints.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from torch import Tensor, nn

from tnet_geo.errors import InvalidCheckpoint
from tnet_geo.model.tensor_bundle import read_checkpoint

__all__ = [
    "REWARD_BASELINE",
    "load_published",
    "published_layout",
    "published_names",
    "read_variables",
]

REWARD_BASELINE = "baseline_var"
"""The one variable that is no weight: a running mean of the reward, which training alone uses."""

_FEATURES = "feature_extraction"
_LOCATION = "location_prediction"

_MODULES = {
    "backbone.net.conv_stem": f"{_FEATURES}/stem/conv2d",
    "backbone.net.bn1": f"{_FEATURES}/stem/batch_norm",
    "backbone.net.conv_head": f"{_FEATURES}/top/conv2d",
    "backbone.net.bn2": f"{_FEATURES}/top/batch_norm",
    "position.code": "feature_posBurn/linear",
    "location.first": f"{_LOCATION}/init/conv2d",
    "location.reduce": f"{_LOCATION}/se/conv2d_1",
    "location.expand": f"{_LOCATION}/se/conv2d_2",
    "location.rows": f"{_LOCATION}/height_scaling",
    "location.columns": f"{_LOCATION}/width_scaling",
    "location.fuse": f"{_LOCATION}/final/conv2d",
    "location.score": f"{_LOCATION}/output_linear",
    "classifier": f"{_FEATURES}/logits_layer/linear",
}

_WITH_EXPANSION = {
    "conv_pw": "expand/conv2d",
    "bn1": "expand/batch_norm",
    "conv_dw": "depthwise/conv2d",
    "bn2": "depthwise/batch_norm",
    "conv_pwl": "bottleneck/conv2d",
    "bn3": "bottleneck/batch_norm",
}
_WITHOUT_EXPANSION = {
    "conv_dw": "depthwise/conv2d",
    "bn1": "depthwise/batch_norm",
    "conv_pw": "bottleneck/conv2d",
    "bn2": "bottleneck/batch_norm",
}
_SQUEEZE_EXCITE = {"se.conv_reduce": "se/conv2d_1", "se.conv_expand": "se/conv2d_2"}

_STATISTICS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}

# All that zipfile, zlib and numpy say of damaged and forged archives.
_UNREADABLE = (
    EOFError,
    MemoryError,
    OSError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)

_SCOPED_ANYHOW = re.compile(r"(?:^|/)((?:height|width)_scaling/(?:kernel|bias))$")
"""Versions of Keras disagree on the scopes that stand before these names."""


def published_names(network: nn.Module) -> dict[str, str]:
    """Name of every weight and statistic of an EfficientNet network of ours -> its published variable.

    Counters of batches, which TensorFlow does not keep, are left out.

    Raises:
        KeyError: the network has weights that the published code has no name for.
    """
    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    return {name: _variable_of(name) for name in names}


def _variable_of(name: str) -> str:
    module, _, kind = name.rpartition(".")
    variable = _MODULES.get(module) or _block_variable(module)
    if variable.endswith("batch_norm"):
        return f"{variable}/{_STATISTICS[kind]}"
    if kind == "bias":
        return f"{variable}/bias"
    return f"{variable}/{'depthwise_kernel' if 'depthwise' in variable else 'kernel'}"


def _block_variable(module: str) -> str:
    """`backbone.net.blocks.1.0.conv_pw` -> `feature_extraction/part3_block1/expand/conv2d`."""
    found = re.fullmatch(r"backbone\.net\.blocks\.(\d+)\.(\d+)\.(.+)", module)
    if not found:
        raise KeyError(module)
    stage, block, layer = int(found[1]), int(found[2]), found[3]
    layers = _SQUEEZE_EXCITE | (_WITH_EXPANSION if stage else _WITHOUT_EXPANSION)
    return f"{_FEATURES}/part{stage + 2}_block{block + 1}/{layers[layer]}"


def read_variables(path: Path) -> dict[str, NDArray[np.float32]]:
    """Variables by published name, in TensorFlow's layouts: from a checkpoint, or an `.npz` of them.

    Raises:
        InvalidCheckpoint: there is neither, or it is damaged.
    """
    if path.suffix != ".npz":
        return read_checkpoint(path)
    try:
        # Opened here: numpy leaves a file that is no archive of arrays open.
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name], dtype=np.float32) for name in sorted(arrays.files)}
    except _UNREADABLE as error:
        cause = " ".join(str(error).split())
        raise InvalidCheckpoint(str(path), f"cannot be read ({cause})", "fetch or save it anew") from error


def load_published(
    network: nn.Module, variables: Mapping[str, NDArray[np.float32]], *, origin: str
) -> float | None:
    """Fill a network with published variables, all of them or none; gives their reward baseline, if any.

    origin: what refusals call the variables.

    Raises:
        InvalidCheckpoint: names every variable that is missing, unexpected or of another shape.
    """
    names, state = published_names(network), network.state_dict()
    shapes = {
        variable: tuple(_published_axes(variable, state[name].to("meta")).shape)
        for name, variable in names.items()
    }
    found = dict(_scoped(variables, shapes))
    # The dense baselines learn without rewards.
    baseline = found.pop(REWARD_BASELINE, None) if "position.code.weight" in names else None
    faults = _faults({variable: array.shape for variable, array in found.items()}, shapes)
    if faults:
        raise InvalidCheckpoint(origin, faults, "name the kind of network that it was saved from")
    weights = {
        name: _our_axes(variable, torch.from_numpy(found[variable])) for name, variable in names.items()
    }
    network.load_state_dict(state | weights)
    return None if baseline is None else float(baseline)


def _scoped(
    variables: Mapping[str, NDArray[np.float32]], known: Iterable[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Variables with their known names, where only the scope before the name of a coordinate differs."""
    ours = {found[1]: name for name in known if (found := _SCOPED_ANYHOW.search(name))}
    taken = set(variables)
    for name, array in variables.items():
        found = _SCOPED_ANYHOW.search(name)
        meant = name if found is None else ours.get(found[1], name)
        # Two variables never become one: the second keeps its own name, and is unexpected.
        shown = name if meant in taken else meant
        taken.add(shown)
        yield shown, array


def _faults(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """What is wrong, with every name; empty if nothing is."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name} ({_by(found[name])} instead of {_by(shape)})"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    faults = {"lacks": missing, "has unexpected": unexpected, "has misshapen": misshapen}
    return "; ".join(f"{what} {', '.join(sorted(names))}" for what, names in faults.items() if names)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def published_layout(variable: str, tensor: Tensor) -> NDArray[np.float32]:
    """One of our weights, its gradient or its moments, as the published code lays it out.

    >>> published_layout("feature_extraction/top/conv2d/kernel", torch.zeros(1280, 320, 1, 1)).shape
    (1, 1, 320, 1280)
    """
    return _published_axes(variable, tensor.detach().cpu().float()).contiguous().numpy()


def _published_axes(variable: str, tensor: Tensor) -> Tensor:
    if variable.endswith("/depthwise_kernel"):
        return tensor.permute(2, 3, 0, 1)  # [C, 1, H, W] to HWCM
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)  # OIHW to HWIO
    return tensor.T if tensor.ndim == 2 else tensor  # [out, in] to [in, out]


def _our_axes(variable: str, tensor: Tensor) -> Tensor:
    if variable.endswith("/depthwise_kernel"):
        return tensor.permute(2, 3, 0, 1)
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)
    return tensor.T if tensor.ndim == 2 else tensor
