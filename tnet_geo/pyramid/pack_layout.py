"""How a pack lies on disk: many sites of one shape in shared arrays, and the index that names them."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tnet_geo.grid import last_level, level_shape
from tnet_geo.pyramid.layout import SEAL, array_metadata, with_checksum
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.settings import VERSION
from tnet_geo.pyramid.tiles import RasterSpec

__all__ = [
    "INDEX",
    "INDEX_SCHEMA",
    "MOST_SITES",
    "PACKS",
    "Pack",
    "PackLayout",
    "index_bytes",
    "pack_documents",
    "read_pack",
    "scene_key",
]

PACKS = "packs"
"""Folder of an archive's packs."""
INDEX = "index.parquet"
"""One row per site of a pack, in the order of its slots."""
MOST_SITES = 1024
"""Of one pack: a task of seconds, and few enough files for a million sites."""
SHARD_BYTES = 100 << 20
"""Decoded bytes of a shard of whole sites, about."""
SHARD_CHUNKS = 1 << 17
"""At most so many chunks in a shard: its index, which a first read needs whole, has 16 bytes for each."""

Json = dict[str, Any]

_DERIVED = frozenset({"version", "pack_id", "levels", "checksum"})

INDEX_SCHEMA = pa.schema(
    [
        pa.field("slot", pa.int32(), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),  # see scene_key
        pa.field("scene_id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("crs", pa.string()),
        pa.field("transform", pa.list_(pa.float64())),
        pa.field("georeference", pa.string()),
        pa.field("georeference_error_px", pa.float64()),
        pa.field("nodata", pa.float64()),
        pa.field("scale", pa.list_(pa.float64())),
        pa.field("offset", pa.list_(pa.float64())),
        # What was cut from the source for a site on a canvas, its context included, in native pixels.
        pa.field("row_off", pa.int64()),
        pa.field("col_off", pa.int64()),
        pa.field("height", pa.int64()),
        pa.field("width", pa.int64()),
        pa.field("replaces", pa.string()),  # the pack with an older digest of the same scene_id
    ]
)


def scene_key(scene_id: str) -> int:
    """64 bits that a scene is looked up by: the first 8 bytes of its id's sha256, little endian.

    >>> hex(scene_key("yard"))
    '0x293e8e67c7b7e47a'
    """
    return int.from_bytes(hashlib.sha256(scene_id.encode()).digest()[:8], "little")


@dataclass(frozen=True)
class PackLayout:
    """Everything that a pack's arrays follow from; the attribute `tnet_geo` of its seal."""

    digest: str
    """sha256, in hex, of the digests of its sites in the order of their slots."""
    sites: int
    bands: int
    dtype: str
    shape: tuple[int, int]
    half_px: int
    codec: str
    canvas: str
    all_valid: bool
    shard_sites: tuple[tuple[int, int], ...]
    """Of every level: sites in a shard of `data`, and in one of `valid`."""
    index_sha256: str
    """Of the bytes of the index, in hex."""

    @property
    def pack_id(self) -> str:
        """The name of its folder."""
        return self.digest[:16]

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every level, down to the first that fits into one tile."""
        levels = range(last_level(self.shape, self.half_px) + 1)
        return tuple(level_shape(self.shape, level) for level in levels)

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays of every level."""
        return ("data",) if self.all_valid else ("data", "valid")

    def array_metadata(self, level: int, name: str) -> Json:
        """zarr v3 metadata of `data` [site, c, y, x] or `valid` [site, y, x], attributes left empty."""
        lead = [self.bands] if name == "data" else []
        half = self.half_px
        shape = self.shapes[level]
        return array_metadata(
            [self.sites, *lead, *shape],
            [self.shard_sites[level][name == "valid"], *lead, *(-(-side // half) * half for side in shape)],
            [1, *lead, half, half],
            dtype=self.dtype if name == "data" else "uint8",
            names=["site", *(["c"] if lead else []), "y", "x"],
            codec=self.codec,
        )

    def attributes(self) -> Json:
        """As JSON."""
        facts = {"version": VERSION, **asdict(self), "pack_id": self.pack_id, "levels": len(self.shapes)}
        return with_checksum(facts)

    @classmethod
    def from_attributes(cls, attributes: Json) -> PackLayout:
        """The inverse of `attributes`. Raises: KeyError, TypeError, ValueError."""
        facts = {key: value for key, value in attributes.items() if key not in _DERIVED}
        if attributes["version"] != VERSION:
            raise ValueError(f"format version {attributes['version']}, this software reads {VERSION}")
        facts["shape"] = tuple(facts["shape"])
        facts["shard_sites"] = tuple(map(tuple, facts["shard_sites"]))
        return cls(**facts)


def shard_sites(shape: tuple[int, int], half_px: int, pixel_bytes: int) -> int:
    """How many sites of `shape` (rows, columns of one level) share a shard of a full pack.

    As many as make about 100 MB, so that every shard of a pack of 1024 sites is about as full.

    >>> shard_sites((512, 512), half_px=112, pixel_bytes=3)
    128
    """
    chunks = math.prod(-(-side // half_px) for side in shape)
    most = max(1, min(SHARD_BYTES // (math.prod(shape) * pixel_bytes), SHARD_CHUNKS // chunks, MOST_SITES))
    shards = -(-MOST_SITES // most)
    return -(-MOST_SITES // shards)


def pack_documents(layout: PackLayout) -> dict[str, bytes]:
    """The zarr metadata of a pack by key, the seal last: all of it follows from the layout."""
    documents = {}
    for level in range(len(layout.shapes)):
        documents[f"{level}/{SEAL}"] = _group({})
        for name in layout.names:
            documents[f"{level}/{name}/{SEAL}"] = _json(layout.array_metadata(level, name))
    return documents | {SEAL: _group({"tnet_geo": layout.attributes()})}


def _group(attributes: Json) -> bytes:
    return _json({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _json(content: Json) -> bytes:
    """Compact and with keys in a fixed order: equal content is equal bytes."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def index_bytes(rows: Sequence[Json]) -> bytes:
    """The index of a pack as a Parquet file: the same rows give the same bytes."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), INDEX_SCHEMA), file, compression="zstd")
    return file.getvalue()


class Pack:
    """A sealed pack: its layout, and the rows of its index."""

    def __init__(self, layout: PackLayout, index: pa.Table) -> None:
        self.layout, self.index = layout, index

    def scene_id(self, slot: int) -> str | None:
        """The scene in a slot; None beyond the last one."""
        found: str | None = self.index["scene_id"][slot].as_py() if slot < len(self.index) else None
        return found

    def spec(self, slot: int, half_px: int | None = None) -> RasterSpec:
        """What a reader of one site answers on a lattice of `half_px`, a multiple of the stored one."""
        # Column by column: a row of all of them takes twice as long as the rest of opening a site.
        names = ("scene_id", "crs", "transform", "digest", "nodata")
        layout, row = self.layout, {name: self.index[name][slot].as_py() for name in names}
        half = half_px or layout.half_px
        return RasterSpec(
            scene_id=row["scene_id"],
            bands=layout.bands,
            dtype=layout.dtype,
            half_px=half,
            shapes=layout.shapes[: last_level(layout.shape, half) + 1],
            crs=row["crs"],
            transform=None if row["transform"] is None else tuple(row["transform"]),
            digest=row["digest"],
            all_valid=layout.all_valid,
            chunk_shape=(layout.half_px, layout.half_px),
            nodata=row["nodata"],
        )


def read_pack(packs: Store, pack_id: str) -> Pack | None:
    """A pack of the store of packs; None if none is sealed under this id.

    Raises:
        ValueError: its seal or its index is damaged, or of another version.
    """
    seal = packs.read(f"{pack_id}/{SEAL}")
    if seal is None:
        return None
    try:
        layout = PackLayout.from_attributes(json.loads(seal)["attributes"]["tnet_geo"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the seal {SEAL} of pack {pack_id} lacks {error}") from error
    content = packs.read(f"{pack_id}/{INDEX}")
    if content is None or hashlib.sha256(content).hexdigest() != layout.index_sha256:
        raise ValueError(f"{INDEX} of pack {pack_id} is {'missing' if content is None else 'damaged'}")
    return Pack(layout, pq.read_table(io.BytesIO(content)))
