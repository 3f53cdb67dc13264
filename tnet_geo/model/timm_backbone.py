"""Any model of timm as a backbone. timm takes seconds to import, so only runs that ask for it do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model.backbone import TAP_CELLS, Backbone
from tnet_geo.model.depth_norm import shared_name
from tnet_geo.model.settings import NetworkSettings
from tnet_geo.model.timm_weights import weights_from_hub, weights_of_file

__all__ = ["TimmBackbone", "own_scaling", "timm_library"]


def timm_library() -> Any:
    """The module `timm`."""
    import_module("tnet_geo.model.torchvision_schemas")  # must come first
    return import_module("timm")


class TimmBackbone(Backbone):
    """Any timm model that offers intermediate features, convolutional or transformer; in `net`.

    The tap is the deepest of its intermediate maps that still has 8 x 8 cells, or the output of the
    module that `location.tap` names; the end is what timm's own head reads the class from.

    Raises:
        InvalidRunFile: timm knows no such model, or it cannot be one for these settings; says why.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self.name = settings.backbone.partition("/")[2]
        self._create = _recipe(self.name, settings)
        self.net: Any = self._create(pretrained=False)
        _step_before_pointwise(self.net)
        if settings.drop_path:
            _count_from_one(self.net, settings.drop_path)
        tap = settings.location.tap
        self._index = self._deepest_fine_map(settings) if tap == "auto" else None
        self._settle(settings)
        self._kept: Any = None
        if tap != "auto":
            self._keep_output_of(tap)
        # one look tells the shapes: what timm writes of its models is not always what comes out
        found, end = self._tried(
            settings, lambda shadow, pixels: shadow(pixels, torch.zeros(1, dtype=torch.long, device="meta"))
        )
        self.tap_channels, self.features, self.tap_cells = found.shape[1], end.shape[1], min(found.shape[-2:])

    def run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See `Backbone`; both outputs come from one pass."""
        if self._index is None:
            last = self.net.forward_features(pixels)
            tap, self._kept = _as_map(self._kept, self.net), None
        else:
            last, (tap,) = self.net.forward_intermediates(pixels, indices=[self._index], stop_early=False)
        return tap, self.net.forward_head(last, pre_logits=True).flatten(1)

    def load_weights(self, weights: Path | Literal["timm"]) -> None:
        """Load a local safetensors file of timm's own key names (any float type), or what timm publishes.

        A classifier in the file is left out, and the first convolution is adapted to other bands than
        three in timm's way. Only "timm" may use the internet, and only where timm's cache lacks the file.

        Raises:
            InvalidRunFile: the file is missing, or its keys or shapes are not this model's; timm has no
                weights of that name, or they cannot be had.
        """
        own = self.net.state_dict()
        if weights == "timm":
            state = weights_from_hub(self._create, self.name)
        else:
            expected = {shared_name(key): tensor for key, tensor in own.items()}
            state = weights_of_file(Path(weights), self.net, expected)
        self.net.load_state_dict({key: state[shared_name(key)] for key in own})

    def _deepest_fine_map(self, settings: NetworkSettings) -> int:
        """Index of the deepest intermediate map that is fine enough to be the tap."""
        if not hasattr(self.net, "forward_intermediates"):
            raise InvalidRunFile(
                "[model]",
                f"names timm/{self.name}, which offers no intermediate features",
                "take another model, or name one of its modules as location.tap",
            )
        _, maps = self._tried(settings, lambda shadow, pixels: shadow.net.forward_intermediates(pixels))
        sides = [min(found.shape[-2:]) for found in maps]
        fine = [index for index, side in enumerate(sides) if side >= TAP_CELLS]
        if not fine:
            raise InvalidRunFile(
                "[model]",
                f"has base_px {settings.base_px}, too small for timm/{self.name}",
                f"take at least {TAP_CELLS * -(-settings.base_px // max(sides))}",
            )
        return fine[-1]

    def _keep_output_of(self, tap: str) -> None:
        try:
            module: nn.Module = self.net.get_submodule(tap)
        except AttributeError as error:
            near = ", ".join(name for name, _ in self.net.named_children())
            raise InvalidRunFile(
                "[model]",
                f"names {tap} as location.tap, which timm/{self.name} has not",
                f"take one of its modules ({near}) or one inside them",
            ) from error
        module.register_forward_hook(self._keep)  # a bound method: a copy of the backbone keeps its own

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002
        self._kept = output

    def _tried(self, settings: NetworkSettings, look: Callable[[TimmBackbone, Tensor], Any]) -> Any:
        """What `look` gives for a tile, in evaluation mode: shapes alone, nothing is computed."""
        side = settings.base_px
        shadow = copy.deepcopy(self).to("meta").eval()
        try:
            with torch.no_grad():
                return look(shadow, torch.zeros(1, settings.pixels.bands, side, side, device="meta"))
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            raise InvalidRunFile(
                "[model]",
                f"names timm/{self.name}, which cannot look at tiles of {side} px ({_first_line(error)})",
                "take another base_px or another model",
            ) from error


def _recipe(name: str, settings: NetworkSettings) -> Callable[..., Any]:
    """timm's own function to create the model without a classifier, for these bands, sides and rates."""
    known = _configuration(name)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": settings.pixels.bands}
    if known is not None and known.fixed_input_size and known.input_size[-1] != settings.base_px:
        options["img_size"] = settings.base_px
    if settings.drop_path:
        options["drop_path_rate"] = settings.drop_path
    return partial(_create, timm_library().create_model, name, options)


def _create(create_model: Callable[..., Any], name: str, options: dict[str, Any], *, pretrained: bool) -> Any:
    try:
        return create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise InvalidRunFile(
            "[model]", f"sets drop_path, which timm/{name} does not know", "leave it out"
        ) from error
    except (AssertionError, ValueError) as error:
        raise InvalidRunFile(
            "[model]",
            f"names timm/{name}, which cannot be made for {options} ({_first_line(error)})",
            "take another base_px or another model",
        ) from error


def _step_before_pointwise(net: nn.Module) -> None:
    """Let 1 x 1 convolutions of a few bands skip cells before they multiply, not while: the same numbers.

    Without it, training FastViT, MobileOne or RepVGG kills the process on a CPU: the gradient of such a
    convolution's weights, channels last, writes beyond its memory (oneDNN in torch 2.13.0, on AVX2).
    """
    for module in net.modules():
        if not isinstance(module, nn.Conv2d) or module.in_channels >= 8:
            continue
        if module.kernel_size == (1, 1) and module.stride != (1, 1) and module.padding == (0, 0):
            module.register_forward_pre_hook(partial(_skip_cells, step=module.stride))
            module.stride = (1, 1)


def _skip_cells(module: nn.Module, inputs: tuple[Tensor], *, step: Sequence[int]) -> Tensor:  # noqa: ARG001
    return inputs[0][:, :, :: step[0], :: step[1]]


def _count_from_one(net: Any, rate: float) -> None:
    """Drop block b of n, counted from 1, with probability rate b / n, where timm counts from 0.

    That is what published TNet does; only in models that are made of timm's EfficientNet blocks. Blocks
    without a shortcut are never dropped.
    """
    if type(net).__name__ not in {"EfficientNet", "MobileNetV3"}:
        return
    layers = import_module("timm.layers")
    blocks = [block for stage in net.blocks for block in stage]
    for index, block in enumerate(blocks, start=1):
        if hasattr(block, "drop_path"):
            block.drop_path = layers.DropPath(rate * index / len(blocks))


def _as_map(output: Any, net: Any) -> Tensor:
    """A module's output as a map [n, channels, t, t]: timm's transformers have tokens, or channels last.

    Raises:
        ValueError: it is none.
    """
    if isinstance(output, Tensor) and output.ndim == 4:
        channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        return output.permute(0, 3, 1, 2) if channels_last else output
    if isinstance(output, Tensor) and output.ndim == 3:
        tokens = output[:, getattr(net, "num_prefix_tokens", 0) :]
        side = isqrt(tokens.shape[1])
        if side * side == tokens.shape[1]:
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
    raise ValueError("the module named as location.tap gives no map")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _configuration(name: str) -> Any:
    """timm's data configuration of its model `name`, with or without the tag of weights; None: it has none.

    Raises:
        InvalidRunFile: timm knows no such model, or no weights of that tag.
    """
    timm = timm_library()
    family, _, tag = name.partition(".")
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{family.split('_', maxsplit=1)[0]}*")[:5])
        raise InvalidRunFile(
            "[model]", f"names the unknown backbone timm/{name}", f"take one of timm's: {near or 'resnet50'}"
        )
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = ", ".join(timm.list_models(f"{family}.*", pretrained=True)[:5])
        raise InvalidRunFile(
            "[model]",
            f"names weights {tag!r}, which timm does not have of {family}",
            f"take one of {tags or f'timm/{family}'}",
        ) from error


def own_scaling(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and spread (of values from 0 to 1) that a timm model was pretrained with; None for others.

    Raises:
        InvalidRunFile: timm knows no such model, or no weights of that tag.
    """
    family, _, model = name.partition("/")
    if family != "timm":
        return None
    known = _configuration(model)
    return (known.mean, known.std) if known else None
