"""Run files: TOML, checked, frozen; an unknown key is refused with the nearest known one."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model.settings import ArchitectureSettings

__all__ = [
    "AugmentationSettings",
    "DataSettings",
    "DenseSettings",
    "JointSettings",
    "LocationSettings",
    "ModelSettings",
    "Passes",
    "PublishedSettings",
    "RivalSettings",
    "RunSettings",
    "Schedule",
    "read_run",
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Table):
    """Table `[data]`: what to learn from. Paths are relative to the working directory."""

    manifest: Path
    archive: Path
    cache_gib: PositiveFloat = 4.0
    """Decoded scenes are kept in memory up to here; the rest is read again whenever it is needed."""


class ModelSettings(ArchitectureSettings):
    """Table `[model]`: the network."""

    base_px: PositiveInt = Field(default=64, multiple_of=4)
    weights: Path | Literal["timm"] | None = None
    """Local safetensors file with timm's key names, or `timm`: the weights that timm names, from its hub
    or the hub's cache. Without it the backbone starts fresh."""
    begin: Path | None = None
    """Bundle of the same network and classes whose weights and scaling of pixels the run begins with."""
    depths: PositiveInt | None = None
    """Depths that are told apart; by default as many as the deepest training site has."""
    scaling: Literal["own", "range"] = "own"
    """`own`: timm's for uint8 RGB, else mean and spread of the training pixels. `range` (published): the
    dtype's whole range becomes -1 to 1; whole numbers only."""

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.begin is not None and self.weights is not None:
            raise ValueError("begin and weights exclude each other")
        return self


class AugmentationSettings(_Table):
    """Table `[augmentation]`: one draw per site and epoch, the same for all its tiles."""

    turns: bool = True
    """One of the eight turns and flips of the square."""
    brightness: float = Field(default=0.06, ge=0, lt=1)
    """Largest change, as a share of white. uint8 only."""
    contrast: float = Field(default=0.15, ge=0, lt=1)
    """Largest relative change. uint8 only."""


class Passes(_Table):
    """How often a stage passes over the sites, and how far its steps go."""

    epochs: NonNegativeInt
    """0 skips the stage."""
    sites_per_step: PositiveInt
    rate: PositiveFloat
    """Peak learning rate."""
    backbone_rate: float = Field(default=1.0, ge=0)
    """The backbone's rate as a multiple of `rate`; small for pretrained backbones."""


class Schedule(Passes):
    """One stage's optimisation: AdamW under a one-cycle rate; an epoch is one pass over the sites."""

    warm_up: float = Field(default=0.15, gt=0, lt=1)
    """Share of the steps in which the rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)


class DenseSettings(Schedule):
    """Table `[dense]`, stage A: multiple-instance training over all finest tiles."""

    epochs: NonNegativeInt = 9
    sites_per_step: PositiveInt = 4
    rate: PositiveFloat = 3e-3
    warm_up: float = Field(default=0.2, gt=0, lt=1)
    tiles_with_gradient: PositiveInt = 16
    """All tiles are seen; gradients pass through this many per site, those that win the maximum."""
    most_tiles: PositiveInt = 256
    """Largest bag; sites with more native tiles give a random part of them."""
    stop_at: float = Field(default=0.98, gt=0, le=1)
    """The stage ends when validation has reached this twice."""


class LocationSettings(Schedule):
    """Table `[location]`, stage B: the location head learns an order of children made from labels."""

    epochs: NonNegativeInt = 8
    sites_per_step: PositiveInt = 16
    rate: PositiveFloat = 1.5e-3
    detours: float = Field(default=0.2, ge=0, le=1)
    """Share of parents at which random children are followed instead of the best."""
    order_weight: PositiveFloat = 1.0
    """Weight of the loss of the order, beside that of the class."""
    sharpness: PositiveFloat = 0.4
    """Temperature of the order, in standard deviations of the scores."""
    pool_steps: PositiveInt = 250
    score_tiles: PositiveInt = 1023
    """Most tiles per site that are scored to make the order; bounds what the stage reads."""


class JointSettings(Schedule):
    """Table `[joint]`, stage C: policy gradient through sampled walks."""

    epochs: NonNegativeInt = 8
    sites_per_step: PositiveInt = 16
    rate: PositiveFloat = 5e-4
    walks: int = Field(default=4, ge=2)
    """Walks sampled per site; each is judged against the mean of the others."""
    location_weight: float = Field(default=0.5, ge=0)
    """Weight of stage B's loss at the start; it falls to zero over the stage."""


class PublishedSettings(Passes):
    """Table `[published]`: as TNet (NeurIPS 2021) was trained, by Adam, with the best children followed.

    The defaults are those of the published 448 px stage but for the epochs.
    """

    epochs: NonNegativeInt = 0
    """Published: 40, then 10 at 896 px."""
    sites_per_step: PositiveInt = 64
    rate: PositiveFloat = 1e-3
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.8,)
    """Shares of the steps after which the rate is multiplied by `drop`."""
    drop: PositiveFloat = 0.1
    walk_class: float = Field(default=0.2, ge=0, le=1)
    """Share of the class loss that is the walk's; the rest is that of single looks (896 px: 0.05)."""
    walk_reward: float = Field(default=0.2, ge=0, le=1)
    """Share of the reward that is the walk's; the rest is that of single looks (896 px: 0.05)."""
    policy: float = Field(default=0.1, ge=0)
    """Weight of the policy gradient."""
    look_depths: PositiveInt | None = None
    """So many depths, the root's included, have losses of single looks; without it all (896 px: 2)."""
    contrastive: float = Field(default=0.0, ge=0)
    """Weight of the contrastive loss of the sites of a step (published: birds only, 100 or 50)."""
    l2: float = Field(default=0.0, ge=0)
    """Multiple of the sum of squares of all weights outside batch norms that is added to the loss."""


class RivalSettings(_Table):
    """Table `[rivals]`: what the walk is compared with, trained on the same sites."""

    train: tuple[Literal["root", "random", "dense"], ...] = ("root", "random", "dense")
    root_epochs: PositiveInt = 40
    root_rate: PositiveFloat = 2e-3


class RunSettings(_Table):
    """A whole run file."""

    out: Path
    """Folder of the run: log, checkpoint, bundle, rivals."""
    seed: NonNegativeInt = 0
    threads: PositiveInt = 1
    """Torch's threads; more than one only where the cores are ours alone."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""
    keep: tuple[PositiveInt, ...] = (2, 1, 1)
    duplicates: Literal["once", "twice"] = "once"
    """What a walk does with a child that two parents share: see `WalkSettings`."""
    order: Literal["best", "window"] = "best"
    """In which children are looked at: see `WalkSettings`."""
    data: DataSettings
    model: ModelSettings = Field(default_factory=ModelSettings)
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings)
    dense: DenseSettings = Field(default_factory=DenseSettings)
    location: LocationSettings = Field(default_factory=LocationSettings)
    joint: JointSettings = Field(default_factory=JointSettings)
    published: PublishedSettings = Field(default_factory=PublishedSettings)
    rivals: RivalSettings = Field(default_factory=RivalSettings)


def read_run(path: Path, *, overrides: dict[str, Any] | None = None) -> RunSettings:
    """A run file, with `overrides` (same tables) laid over it.

    Raises:
        InvalidRunFile: missing, no TOML, an unknown key, or a value that cannot be.
    """
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidRunFile(str(path), f"cannot be read ({error.strerror})", "name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRunFile(str(path), f"is not TOML ({error})", "mend that line") from error
    for key, value in (overrides or {}).items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value
    try:
        return RunSettings.model_validate(table)
    except ValidationError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: ValidationError) -> InvalidRunFile:
    """The first complaint of pydantic in our words."""
    first = error.errors()[0]
    *tables, key = [str(part) for part in first["loc"]]
    where = "".join(f"[{table}] " for table in tables)
    if first["type"] != "extra_forbidden":
        return InvalidRunFile(str(path), f"has a wrong value at {where}{key}", str(first["msg"]))
    known = _keys_of(tables)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0)
    return InvalidRunFile(str(path), f"has the unknown key {where}{key}", f"did you mean {near[0]!r}?"[:-1])


def _keys_of(tables: list[str]) -> list[str]:
    model: type[BaseModel] = RunSettings
    for table in tables:
        annotation = model.model_fields[table].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
