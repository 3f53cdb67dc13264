"""What a bundle says of itself: everything in `bundle.toml`."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from tnet_geo.model.settings import NetworkSettings, WalkSettings

__all__ = ["BUNDLE_FILES", "BUNDLE_VERSION", "BundleFacts", "FileName"]

BUNDLE_VERSION: Final = 2

FileName = Literal["model.safetensors", "mlm.json", "golden.npz"]
BUNDLE_FILES: tuple[FileName, ...] = ("model.safetensors", "mlm.json", "golden.npz")
"""What stands beside `bundle.toml`. A name is one of these, so no bundle can point anywhere else."""

_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")

_LARGEST_TILE = 1 << 14
"""Pixels along a side; a look at a tile takes memory by its square."""

_Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class BundleFacts(BaseModel):
    """Everything that `bundle.toml` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["tnet-geo bundle"] = "tnet-geo bundle"
    version: Literal[2] = BUNDLE_VERSION
    files: dict[FileName, _Sha256] = Field(default_factory=dict)
    """All files beside `bundle.toml`, each with its sha256; empty for a bundle never saved."""
    classes: tuple[str, ...]
    """In the order of the logits."""
    canvas: str = "native"
    reduction: Literal["mean", "central"] = "mean"
    """How pyramids in memory are made. `mean`: of the valid pixels below. `central` (published): bilinear
    without antialiasing, which looks at the middle of each block only."""
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Logits are divided by it before the softmax."""
    temperatures: tuple[_Temperature, ...] = ()
    """The same for what a walk would answer after 1, 2, ... looks, of which more would follow; the last one
    is `temperature`, and holds for all further looks and for whole walks. Empty: `temperature` for all."""
    temperatures_best_first: tuple[_Temperature, ...] = ()
    """The same for walks under a budget of tiles, whose looks come in another order."""
    gsd_m: tuple[FiniteFloat, FiniteFloat] | None = None
    """Finest and coarsest ground sampling distance seen in training, in metres; None: not georeferenced."""
    value_range: tuple[FiniteFloat, FiniteFloat] | None = None
    """0.1 and 99.9 percentile of the pixels seen in training, in the source's units; None: not known."""
    value_peaks: tuple[FiniteFloat, FiniteFloat] | None = None
    """How high the values of a site go, at the dimmest and at the brightest training site: the 99th
    percentile of its root tile. Scalings that are too small show here; None: not known."""
    network: NetworkSettings
    walk: WalkSettings
    training: dict[str, str | int | float] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    """On validation, with their cost in tiles."""

    def temperatures_of(self, *, best_first: bool) -> tuple[float, ...]:
        """After 1, 2, ... looks of a walk in that order; the last one holds for all further looks."""
        return (self.temperatures_best_first if best_first else self.temperatures) or (self.temperature,)

    @model_validator(mode="after")
    def _pixels_can_be(self) -> BundleFacts:
        pixels = self.network.pixels
        if self.network.base_px > _LARGEST_TILE:
            raise ValueError(f"tiles of {self.network.base_px} px, above {_LARGEST_TILE}")
        if pixels.dtype not in _DTYPES:
            raise ValueError(f"pixels of {pixels.dtype}, which is none of {', '.join(_DTYPES)}")
        if {len(pixels.mean), len(pixels.std)} != {pixels.bands}:
            raise ValueError(
                f"mean and std of {len(pixels.mean)} and {len(pixels.std)} bands, not {pixels.bands}"
            )
        if not all(isfinite(value) for value in pixels.mean + pixels.std) or min(pixels.std) <= 0:
            raise ValueError("a mean that is no number, or a std that is not above 0")
        return self

    @model_validator(mode="after")
    def _sides_agree(self) -> BundleFacts:
        if len(self.classes) != self.network.classes:
            raise ValueError(f"{len(self.classes)} classes, but a network of {self.network.classes}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class stands twice")
        for name in ("gsd_m", "value_range", "value_peaks"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name} ends before it begins")
        if self.temperatures and self.temperatures[-1] != self.temperature:
            raise ValueError("temperatures that do not end with the temperature")
        return self
