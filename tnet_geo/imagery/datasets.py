"""What is known of data sets that many people use: `data_manifests/*.toml`, one file each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tnet_geo.errors import UsageError

__all__ = ["DataSet", "data_set", "data_sets"]

Count = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Where it is had."""

    page: Annotated[str, Field(pattern=r"^https?://")]
    bucket: str | None = None
    files: str | None = None
    """What lists the files."""
    archive_bytes: Mapping[str, Count] = {}


class Licence(_Strict):
    """What one may do with it."""

    name: str
    terms: str
    attribution: str | None = None
    models: str | None = None
    """What the terms say of networks that were trained on it."""


class Imagery(_Strict):
    """The pictures."""

    suffixes: tuple[str, ...]
    kinds: Mapping[str, str]
    """Name of a kind of picture, and what it holds."""
    dtype: str | None = None
    gsd: Annotated[float, Field(gt=0)] | None = None
    """Metres a pixel, where it is the same for all."""


class Classes(_Strict):
    """Names of classes; their places in `order` are the published indices, from 0."""

    order: tuple[str, ...]
    aside: tuple[str, ...] = ()
    """Labels that are no class: kept apart, used only when asked for."""

    @model_validator(mode="after")
    def _once(self) -> Classes:
        names = (*self.order, *self.aside)
        if len(set(names)) < len(names):
            raise ValueError("a class is named twice")
        return self


class Split(_Strict):
    """How many pictures of one kind a split holds; None: nobody says."""

    images: Count | None = None
    note: str | None = None


class Verify(_Strict):
    """How to find out whether one's copy is whole."""

    check: str
    expect: tuple[str, ...]


class DataSet(_Strict):
    """One data set: source, licence, classes in order, splits, counts, how to verify."""

    format: Literal[1]
    name: str
    title: str
    about: str
    cite: str
    read: str
    """The command that makes its manifest."""
    source: Source
    licence: Licence
    imagery: Imagery
    classes: Classes
    splits: Mapping[Literal["train", "val", "test", "seq", "all"], Split]
    verify: Verify


def data_sets() -> tuple[str, ...]:
    """Names of the data sets that are described, sorted."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _folder().iterdir()))


@cache
def data_set(name: str) -> DataSet:
    """What is known of a data set.

    >>> data_set("fmow-rgb").classes.order.index("impoverished_settlement")
    42

    Raises:
        UsageError: there is no description of it.
    """
    file = _folder() / f"{name}.toml"
    if not file.is_file():
        raise UsageError(f"{name} is no data set that is described: name one of {', '.join(data_sets())}.")
    return DataSet.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))


def _folder() -> Traversable:
    """In a wheel the files lie beside this module, in a checkout at the project's root."""
    inside = files("tnet_geo.imagery") / "data_manifests"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "data_manifests"
