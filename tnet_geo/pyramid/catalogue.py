"""The archive's table of contents: Parquet parts, one row per sealed scene, only ever added to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tnet_geo.pyramid.layout import SceneLayout, read_layout

__all__ = ["append_catalogue"]

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
    ]
)


def append_catalogue(archive: Path, scene_ids: Iterable[str]) -> int:
    """Add rows of those scenes of the archive in folder `archive` that have none; how many.

    What a scene's row says is taken from its seal, so that scenes sealed by a run that was killed
    get theirs from the next one. A row whose digest is not the seal's is of an older pyramid.
    """
    catalogue = archive / "catalogue"
    known: set[tuple[str, str]] = set()
    for part in sorted(catalogue.glob("part-*.parquet")):
        table = pq.read_table(part, columns=["scene_id", "digest"])
        known.update(zip(*(table[name].to_pylist() for name in ("scene_id", "digest")), strict=True))
    layouts = (read_layout(archive / "scenes" / scene_id) for scene_id in sorted(set(scene_ids)))
    rows = [_row(layout) for layout in layouts if (layout.scene_id, layout.digest) not in known]
    if rows:
        names = "\n".join(f"{row['scene_id']} {row['digest']}" for row in rows)
        part = catalogue / f"part-{hashlib.sha256(names.encode()).hexdigest()[:16]}.parquet"
        _write(part, pa.Table.from_pylist(rows, SCHEMA))
    return len(rows)


def _row(layout: SceneLayout) -> dict[str, object]:
    return {
        "scene_id": layout.scene_id,
        "digest": layout.digest,
        "source": layout.source,
        "bands": layout.bands,
        "dtype": layout.dtype,
        "rows": layout.shape[0],
        "cols": layout.shape[1],
        "levels": len(layout.shapes),
        "all_valid": layout.all_valid,
        "crs": layout.crs,
        "transform": None if layout.transform is None else list(layout.transform),
    }


def _write(part: Path, table: pa.Table) -> None:
    """Whole or not at all."""
    part.parent.mkdir(exist_ok=True)
    draft = part.with_name(f".{part.name}.{os.getpid()}")
    with draft.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(part)
