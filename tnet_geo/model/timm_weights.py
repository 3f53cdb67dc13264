"""Pretrained weights for timm's models: from a local file, or from timm's own hub."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tnet_geo.errors import InvalidRunFile

__all__ = ["weights_from_hub", "weights_of_file"]


def weights_from_hub(create: Callable[..., Any], name: str) -> dict[str, Tensor]:
    """The weights that timm publishes for its model `name`; `create` makes the model, given `pretrained`.

    timm looks into its cache (that of huggingface_hub, `HF_HOME`) where the hub does not answer.

    Raises:
        InvalidRunFile: there are none, or neither hub nor cache has them.
    """
    try:
        state: dict[str, Tensor] = create(pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise InvalidRunFile(
            "[model]",
            f"asks for timm's weights of {name}, which cannot be had ({_first_line(error)})",
            "let this machine reach the hub, fill its cache, or give a local file as weights",
        ) from error
    return state


def weights_of_file(path: Path, net: Any, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, as float32 and in the shapes of timm's model `net`.

    A classifier in the file is left out, a first convolution of three bands adapted to those of `net`,
    and position tables are resampled, all in timm's way. `expected` are the tensors wanted, by timm's names.

    Raises:
        InvalidRunFile: the file does not open, or has other tensors than the model.
    """
    try:
        state = {key: _widened(tensor) for key, tensor in load_file(path).items()}
        for key in _of_classifier(net):
            state.pop(key, None)
        _adapt_bands(state, net, expected)
        adapt = vars(sys.modules[type(net).__module__]).get("checkpoint_filter_fn")
        state = adapt(state, net) if adapt else state
    except (OSError, SafetensorError, RuntimeError, KeyError, AttributeError, NotImplementedError) as error:
        raise _unfit(path, _first_line(error)) from error
    for key, tensor in expected.items():
        if key.endswith("num_batches_tracked"):  # counts that nobody reads, and that some files leave out
            state.setdefault(key, tensor)
    _compare(path, state, expected)
    return state


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _names(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _of_classifier(net: Any) -> list[str]:
    layers = _names(net.pretrained_cfg.get("classifier"))
    return [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


def _adapt_bands(state: dict[str, Tensor], net: Any, expected: Mapping[str, Tensor]) -> None:
    """Give first convolutions of three bands those of `net`: summed for one, else repeated and scaled."""
    for layer in _names(net.pretrained_cfg.get("first_conv")):
        key = f"{layer}.weight"
        if key in state and key in expected and state[key].shape[1] != expected[key].shape[1]:
            models = import_module("timm.models")
            state[key] = models.adapt_input_conv(expected[key].shape[1], state[key])


def _compare(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    common = [key for key in expected if key in state]
    differences = {
        "lacks": [key for key in expected if key not in state],
        "has beside them": [key for key in state if key not in expected],
        "has in other shapes": [key for key in common if state[key].shape != expected[key].shape],
    }
    said = [
        f"{what} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for what, keys in differences.items()
        if keys
    ]
    if said:
        raise _unfit(path, "of the model's tensors it " + "; it ".join(said))


def _unfit(path: Path, cause: str) -> InvalidRunFile:
    return InvalidRunFile(
        "[model]", f"names weights {path} that do not load ({cause})", "check file and backbone"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
