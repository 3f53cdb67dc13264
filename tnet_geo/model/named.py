"""Networks that have a name: `configs/models/*.toml`, the published ones above all."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tnet_geo.errors import UsageError
from tnet_geo.imagery.datasets import data_set
from tnet_geo.model.settings import NetworkSettings, WalkSettings

__all__ = ["NamedModel", "model_names", "named_model"]


class NamedModel(BaseModel):
    """A network with the pixels that it wants and the walk that it was made for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    canvas: str
    reduction: Literal["mean", "central"]
    classes: tuple[str, ...]
    """In the file: names, the name of a data set, or how many there are (which are then numbered)."""
    network: NetworkSettings
    walk: WalkSettings = Field(default_factory=WalkSettings)

    @model_validator(mode="before")
    @classmethod
    def _classes_of(cls, table: dict[str, Any]) -> dict[str, Any]:
        """Fill in the names of the classes, and how many the network tells apart."""
        classes = table.get("classes")
        if isinstance(classes, str):
            classes = data_set(classes).classes.order
        elif isinstance(classes, int):
            classes = tuple(str(number) for number in range(classes))
        if not isinstance(classes, list | tuple):
            raise ValueError("classes are names, the name of a data set, or a number")
        network = table.get("network")
        if isinstance(network, dict):
            network = {"classes": len(classes), **network}
        return table | {"classes": classes, "network": network}


def model_names() -> tuple[str, ...]:
    """Names of the models that are described, sorted."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _folder().iterdir()))


def named_model(name: str) -> NamedModel:
    """The model of that name.

    >>> named_model("tnet_fmow").classes[42], named_model("tnet_fmow").walk.keep
    ('impoverished_settlement', (2, 1))

    Raises:
        UsageError: there is none.
    """
    file = _folder() / f"{name}.toml"
    if not file.is_file():
        raise UsageError(f"{name} is no model that is described: name one of {', '.join(model_names())}.")
    return NamedModel.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))


def _folder() -> Traversable:
    """In a wheel the files lie beside this module, in a checkout at the project's root."""
    inside = files("tnet_geo.model") / "named_models"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs" / "models"
