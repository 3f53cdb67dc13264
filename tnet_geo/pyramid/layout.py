"""How one scene lies on disk: what its writer, its readers and its seal agree on."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tnet_geo.grid import last_level, level_shape
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.settings import VERSION
from tnet_geo.pyramid.tiles import RasterSpec

__all__ = ["SEAL", "SceneLayout", "array_metadata", "read_layout", "with_checksum"]

SEAL = "zarr.json"
"""A scene's root metadata, written last: without it the scene does not exist."""

_DERIVED = frozenset({"version", "levels", "checksum"})

Json = dict[str, Any]


@dataclass(frozen=True)
class SceneLayout:
    """Everything that a scene's arrays follow from; the attribute `tnet_geo` of its seal."""

    scene_id: str
    source: str
    """File name of the source, without its folder: folders may name classes."""
    digest: str
    bands: int
    dtype: str
    shape: tuple[int, int]
    half_px: int
    shard_px: int
    codec: str
    all_valid: bool
    crs: str | None
    transform: tuple[float, float, float, float, float, float] | None
    nodata: float | None
    scale: tuple[float, ...] | None = None
    """Per band: physical value = scale x pixel + offset; None: 1 for all."""
    offset: tuple[float, ...] | None = None
    """Per band; None: 0 for all."""
    georeference: str | None = None
    """What `transform` was taken from: `transform`, or the best fit to `gcps` or `rpcs`."""
    georeference_error_px: float | None = None
    """The largest error of such a fit."""

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every level, down to the first that fits into one tile."""
        levels = range(last_level(self.shape, self.half_px) + 1)
        return tuple(level_shape(self.shape, level) for level in levels)

    @property
    def names(self) -> tuple[str, ...]:
        """Its arrays at every level."""
        return ("data",) if self.all_valid else ("data", "valid")

    def spec(self, half_px: int | None = None) -> RasterSpec:
        """What a reader answers on a lattice of `half_px`, a multiple of the stored one."""
        half = half_px or self.half_px
        return RasterSpec(
            scene_id=self.scene_id,
            bands=self.bands,
            dtype=self.dtype,
            half_px=half,
            shapes=self.shapes[: last_level(self.shape, half) + 1],
            crs=self.crs,
            transform=self.transform,
            digest=self.digest,
            all_valid=self.all_valid,
            chunk_shape=(self.half_px, self.half_px),
            nodata=self.nodata,
        )

    def attributes(self) -> Json:
        """As JSON; NaN and infinities, which JSON lacks, as strings."""
        facts = {name: _finite(value) for name, value in asdict(self).items()}
        return with_checksum({"version": VERSION, **facts, "levels": len(self.shapes)})

    @property
    def _values(self) -> Json:
        """What the values of `data` mean, for its attributes at every level.

        Not as CF's `_FillValue`, `scale_factor` and `add_offset`: xarray would hand out other pixels
        than those that are stored, as floats.
        """
        facts = {"nodata": self.nodata, "scale": self.scale, "offset": self.offset}
        known = {name: _finite(value) for name, value in facts.items() if value is not None}
        return {"tnet_geo": known} if known else {}

    @classmethod
    def from_attributes(cls, attributes: Json) -> SceneLayout:
        """The inverse of `attributes`. Raises: KeyError, TypeError, ValueError."""
        facts = {key: value for key, value in attributes.items() if key not in _DERIVED}
        if attributes["version"] != VERSION:
            raise ValueError(f"format version {attributes['version']}, this software reads {VERSION}")
        facts["shape"] = tuple(facts["shape"])
        facts["transform"] = tuple(facts["transform"]) if facts["transform"] else None
        facts["nodata"] = None if facts["nodata"] is None else float(facts["nodata"])
        for name in ("scale", "offset"):
            facts[name] = tuple(map(float, facts[name])) if facts.get(name) else None
        return cls(**facts)

    @classmethod
    def from_seal(cls, seal: bytes) -> SceneLayout:
        """What the content of a seal says. Raises: ValueError where it is damaged or of another version."""
        try:
            return cls.from_attributes(json.loads(seal)["attributes"]["tnet_geo"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"the seal {SEAL} lacks {error}") from error

    def shard_shape(self, level: int) -> tuple[int, int]:
        """Sides of a shard: a full one, or what whole chunks a smaller level needs."""
        rows, cols = (
            min(self.shard_px, -(-side // self.half_px) * self.half_px) for side in self.shapes[level]
        )
        return rows, cols

    def array_metadata(self, level: int, name: str) -> Json:
        """zarr v3 metadata of `data` [c, y, x] or `valid` [y, x] at `level`, but for where it lies."""
        lead = [self.bands] if name == "data" else []
        metadata = array_metadata(
            [*lead, *self.shapes[level]],
            [*lead, *self.shard_shape(level)],
            [*lead, self.half_px, self.half_px],
            dtype=self.dtype if name == "data" else "uint8",
            names=[*(["c"] if lead else []), "y", "x"],
            codec=self.codec,
            nodata=self.nodata if name == "data" else None,
        )
        return metadata | {"attributes": self._values if name == "data" else {}}


def _finite(value: Any) -> Any:
    """A number, or several, with what JSON lacks as strings; anything else as it is."""
    if isinstance(value, tuple | list):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def array_metadata(
    shape: list[int],
    shard: list[int],
    chunk: list[int],
    *,
    dtype: str,
    names: list[str],
    codec: str,
    nodata: float | None = None,
) -> Json:
    """zarr v3 metadata of an array of chunks in shards, attributes left empty; `names` are dimensions.

    The fill value is the nodata value, where the type has it: what other readers show where a shard is
    lost, and what rio-tiler takes for nodata.
    """
    kind = np.dtype(dtype)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": kind.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _fill_value(kind, nodata),
        "dimension_names": names,
        "attributes": {},
        "codecs": [_sharding(chunk, kind, codec)],
    }


def _fill_value(dtype: np.dtype[Any], nodata: float | None) -> float | str:
    """As zarr v3 writes it."""
    if dtype.kind == "f":
        value = float(dtype.type(nodata or 0.0))
        names = {math.inf: "Infinity", -math.inf: "-Infinity"}
        return "NaN" if math.isnan(value) else names.get(value, value)
    limits = np.iinfo(dtype)
    fits = nodata is not None and float(nodata).is_integer() and limits.min <= nodata <= limits.max
    return int(nodata) if nodata is not None and fits else 0


def _sharding(chunk: list[int], dtype: np.dtype[Any], codec: str) -> Json:
    """Chunks in shards, each chunk with a checksum of its own: the index alone has one by default."""
    order = {"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {}
    packing = {
        "fast": {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        "interop": {"name": "gzip", "configuration": {"level": 1}},
    }[codec]
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": chunk,
            "codecs": [{"name": "bytes"} | order, packing, {"name": "crc32c"}],
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": "end",
        },
    }


def with_checksum(facts: Json) -> Json:
    """The facts of a seal with their `checksum`, by which `check` sees that any one of them was changed.

    The first 16 hex digits of the sha256 of their JSON, keys sorted, without spaces.
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return facts | {"checksum": hashlib.sha256(text.encode()).hexdigest()[:16]}


def read_layout(scene: Store) -> SceneLayout:
    """The layout of the sealed scene in `scene`.

    Raises:
        FileNotFoundError: there is no seal.
        ValueError: the seal is damaged, or of another version.
    """
    seal = scene.read(SEAL)
    if seal is None:
        raise FileNotFoundError(f"{scene.url} has no {SEAL}")
    return SceneLayout.from_seal(seal)
