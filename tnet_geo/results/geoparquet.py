"""Tables as GeoParquet 1.1: what GIS software, DuckDB and pandas open without being told anything."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

__all__ = ["parquet_bytes", "with_geography"]


def with_geography(table: pa.Table) -> pa.Table:
    """The table with GeoParquet's metadata, if it has a column `geometry` of WKB.

    No `crs` is stated, which means OGC:CRS84: readers disagree on how to write one. The bbox covering
    is stated where the column `bbox` is there.

    Source: GeoParquet 1.1.0, https://geoparquet.org/releases/v1.1.0
    """
    if "geometry" not in table.column_names or not pa.types.is_binary(table.schema.field("geometry").type):
        return table
    shapes = shapely.from_wkb([value for value in table["geometry"].to_pylist() if value is not None])
    types = sorted({shape.geom_type for shape in shapes})
    column: dict[str, object] = {"encoding": "WKB", "geometry_types": types}
    if len(shapes):
        column["bbox"] = [float(side) for side in shapely.total_bounds(shapes)]
    if "bbox" in table.column_names:
        column["covering"] = {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}}
    facts = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return table.replace_schema_metadata({"geo": json.dumps(facts)})


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file, zstd, with GeoParquet's metadata where it has a geometry."""
    sink = pa.BufferOutputStream()
    pq.write_table(with_geography(table), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content
