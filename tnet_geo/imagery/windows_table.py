"""Rows of a table of windows, as text and geometry: CSV, GeoJSON, GeoPackage, GeoParquet, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import shapely
from pyarrow import parquet
from pyproj import CRS
from pyproj.exceptions import ProjError
from shapely.geometry.base import BaseGeometry

from tnet_geo.errors import InvalidManifest

__all__ = ["FORMATS", "Row", "WindowTable", "read_windows"]

FORMATS = (".csv", ".geojson", ".json", ".gpkg", ".parquet", ".geoparquet")
_REMEDY = "name a CSV, GeoJSON, GeoPackage or GeoParquet file"
_CRS84 = "OGC:CRS84"
"""What GeoParquet means where it names no reference system."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: text by column, empty where there is nothing, and the shape that it may have."""

    text: Mapping[str, str]
    shape: BaseGeometry | None = None
    """In the reference system of the table."""


@dataclass(frozen=True, slots=True)
class WindowTable:
    """A table as it was read."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    shapes: bool = False
    """Whether rows may have a shape."""
    crs: str | None = None
    """Reference system of the shapes; None: nobody says, so that of their scenes."""


def read_windows(table: Path, layer: str | None = None) -> WindowTable:
    """Read a table by its suffix; `layer` is needed where a GeoPackage has several.

    Raises:
        InvalidManifest: missing, damaged, of another format, or of several layers.
    """
    kind = table.suffix.lower()
    try:
        if kind == ".csv":
            return _csv(table)
        if kind in {".parquet", ".geoparquet"}:
            return _parquet(table)
        if kind in FORMATS:
            return _vector(table, layer)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException, shapely.errors.GEOSException) as error:
        cause = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InvalidManifest(str(table), f"cannot be read ({cause})", _REMEDY) from error
    raise InvalidManifest(str(table), f"is none of {', '.join(FORMATS)}", _REMEDY)


def _csv(table: Path) -> WindowTable:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey="", restval="")
        rows = tuple(Row({key: value.strip() for key, value in row.items() if key}) for row in reader)
        return WindowTable(tuple(reader.fieldnames or ()), rows)


def _parquet(table: Path) -> WindowTable:
    with parquet.ParquetFile(table) as file:
        read, about = file.read(), json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
    where = about.get("primary_column")
    if where is None:
        return _table(read.column_names, [column.to_pylist() for column in read.columns])
    fact = about["columns"][where]
    if fact.get("encoding") != "WKB":
        what = f"has shapes in {fact.get('encoding')}"
        raise InvalidManifest(str(table), what, "write GeoParquet with WKB")
    crs = fact.get("crs", _CRS84)  # a key that is missing means CRS84, null means nobody knows
    try:
        crs = CRS.from_json_dict(crs).to_wkt() if isinstance(crs, dict) else crs
    except ProjError as error:
        raise InvalidManifest(str(table), "has an unknown reference system", "write its CRS again") from error
    shapes = shapely.from_wkb(read[where].to_pylist())
    rest = read.drop_columns([where])
    return _table(rest.column_names, [column.to_pylist() for column in rest.columns], shapes, crs)


def _vector(table: Path, layer: str | None) -> WindowTable:
    try:
        import pyogrio  # noqa: PLC0415 - an extra
        from pyogrio.errors import DataSourceError  # noqa: PLC0415
    except ImportError as error:
        remedy = "pip install 'tnet-geo[gis]', or give CSV or GeoParquet"
        raise InvalidManifest(str(table), f"cannot be read without {error.name}", remedy) from error
    try:
        layers = [str(name) for name, _ in pyogrio.list_layers(table)]
        if layer is None and len(layers) > 1:
            what = f"has the layers {', '.join(layers)}"
            raise InvalidManifest(str(table), what, "name one of them with --layer")
        if layer is not None and layer not in layers:
            what = f"has no layer {layer!r}"
            raise InvalidManifest(str(table), what, f"name one of {', '.join(layers)}")
        about, _, shapes, fields = pyogrio.raw.read(table, layer=layer, datetime_as_string=True)
    except DataSourceError as error:
        cause = " ".join(str(error).split(";")[0].split())
        raise InvalidManifest(str(table), f"cannot be read ({cause})", _REMEDY) from error
    crs = about["crs"]
    names = [str(name) for name in about["fields"]]
    values = [field.tolist() for field in fields]
    return _table(names, values, None if shapes is None else shapely.from_wkb(shapes), crs)


def _table(
    columns: Sequence[str], values: Sequence[Sequence[Any]], shapes: Any = None, crs: str | None = None
) -> WindowTable:
    rows = [dict(zip(columns, map(_text, row), strict=True)) for row in zip(*values, strict=True)]
    places = [None] * len(rows) if shapes is None else [_something(shape) for shape in shapes]
    made = tuple(Row(row, place) for row, place in zip(rows, places, strict=True))
    return WindowTable(tuple(columns), made, shapes is not None, crs)


def _something(shape: BaseGeometry | None) -> BaseGeometry | None:
    return None if shape is None or shape.is_empty else shape


def _text(value: Any) -> str:
    """As a CSV would have it; whole numbers without a point, since missing ones make floats of them."""
    if value is None or value != value:  # noqa: PLR0124 - NaN is how a number is missing
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.isoformat() if hasattr(value, "isoformat") else str(value).strip()
