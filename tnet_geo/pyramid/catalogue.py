"""The archive's table of contents: Parquet parts, a row per scene or packed site, only ever added to."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tnet_geo.pyramid.layout import SceneLayout, read_layout
from tnet_geo.pyramid.pack_index import CATALOGUE, opened_pack
from tnet_geo.pyramid.pack_layout import PACKS, Pack, scene_key
from tnet_geo.pyramid.places import LocalStore, Store

__all__ = ["SCHEMA", "append_catalogue", "pack_rows", "scene_row"]

SCHEMA = pa.schema(
    [
        pa.field("scene_id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("bands", pa.int32(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("cols", pa.int64(), nullable=False),
        pa.field("levels", pa.int32(), nullable=False),
        pa.field("all_valid", pa.bool_(), nullable=False),
        pa.field("crs", pa.string()),
        pa.field("transform", pa.list_(pa.float64())),
        pa.field("key", pa.uint64(), nullable=False),
        # Of packed sites alone:
        pa.field("pack_id", pa.string()),
        pa.field("slot", pa.int32()),
        pa.field("replaces", pa.string()),
    ]
)


def append_catalogue(archive: Store | Path, scene_ids: Iterable[str]) -> int:
    """Add rows of those of the scenes, and of all packs of the archive, that have none; how many.

    Of `scene_ids` those that are packed are passed over here: their pack is not.
    What a row says is taken from the seal, or from the pack's index, so that scenes sealed by a run that
    was killed get theirs from the next one. A row whose digest is not the seal's is of an older pyramid;
    so is one whose pack another row replaces.

    Raises:
        ValueError: the seal of one of the scenes is damaged.
    """
    store = LocalStore(str(archive)) if isinstance(archive, Path) else archive
    wanted = sorted(set(scene_ids).intersection(store.names("scenes")))
    scenes, packs = _known(store, wanted)
    rows = [
        scene_row(layout)
        for layout in _layouts(store, wanted)
        if (layout.scene_id, layout.digest) not in scenes
    ]
    tables = [pa.Table.from_pylist(rows, SCHEMA), *map(pack_rows, _sealed(store, packs))]
    table = pa.concat_tables(tables)
    if len(table):
        names = "\n".join(map(" ".join, zip(*(table[name].to_pylist() for name in _NAMED), strict=True)))
        part = f"{CATALOGUE}/part-{hashlib.sha256(names.encode()).hexdigest()[:16]}.parquet"
        content = io.BytesIO()
        pq.write_table(table, content, compression="zstd", write_page_checksum=True)
        store.write(part, content.getvalue())
    return len(table)


_NAMED = ("scene_id", "digest")


def _known(store: Store, scene_ids: list[str]) -> tuple[set[tuple[str, str]], set[str]]:
    """Of what there are rows: scenes by id and digest, as far as they are asked for, and ids of packs."""
    scenes: set[tuple[str, str]] = set()
    packs: set[str] = set()
    asked = pa.array(scene_ids, pa.string())
    for name in store.names(CATALOGUE):
        content = store.read(f"{CATALOGUE}/{name}") if name.endswith(".parquet") else None
        if content is None:
            continue
        table = pq.read_table(io.BytesIO(content), columns=[*_NAMED, "pack_id"])
        packs.update(pc.drop_null(pc.unique(table["pack_id"])).to_pylist())
        table = table.filter(pc.and_(pc.is_null(table["pack_id"]), pc.is_in(table["scene_id"], asked)))
        scenes.update(zip(*(table[name].to_pylist() for name in _NAMED), strict=True))
    return scenes, packs


def _layouts(store: Store, scene_ids: list[str]) -> Iterator[SceneLayout]:
    """Of those of the scenes that are sealed."""
    for scene_id in scene_ids:
        with suppress(FileNotFoundError):
            yield read_layout(store.at("scenes", scene_id))


def _sealed(store: Store, known: set[str]) -> Iterator[Pack]:
    """Sealed packs of which there are no rows yet; what is wrong with a damaged one, `check` says."""
    for pack_id in store.names(PACKS):
        if pack_id in known:
            continue
        try:
            pack = opened_pack(store, pack_id)
        except ValueError:
            continue
        if pack is not None:
            yield pack


def scene_row(layout: SceneLayout) -> dict[str, object]:
    """The row of a scene, as `SCHEMA` says."""
    return {
        "scene_id": layout.scene_id,
        "digest": layout.digest,
        "source": layout.source,
        "crs": layout.crs,
        "transform": None if layout.transform is None else list(layout.transform),
        "key": scene_key(layout.scene_id),
        **_shape(layout.bands, layout.dtype, layout.shapes, layout.all_valid),
    }


def pack_rows(pack: Pack) -> pa.Table:
    """Rows of all sites of a pack."""
    layout, index = pack.layout, pack.index
    shared = _shape(layout.bands, layout.dtype, layout.shapes, layout.all_valid)
    shared["pack_id"] = layout.pack_id
    columns = [
        pa.repeat(pa.scalar(shared[field.name], field.type), len(index))
        if field.name in shared
        else index[field.name]
        for field in SCHEMA
    ]
    return pa.table(columns, SCHEMA)


def _shape(bands: int, dtype: str, shapes: tuple[tuple[int, int], ...], all_valid: bool) -> dict[str, object]:
    return {
        "bands": bands,
        "dtype": dtype,
        "rows": shapes[0][0],
        "cols": shapes[0][1],
        "levels": len(shapes),
        "all_valid": all_valid,
    }
