"""A table as text or bytes: for a terminal, a spreadsheet, a script, or the next program."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any, Literal

import pyarrow as pa
import shapely

from tnet_geo.results.geoparquet import parquet_bytes

__all__ = ["render"]

CELL = 60
"""Characters of a cell on a terminal; what is longer ends in an ellipsis."""


def render(table: pa.Table, form: Literal["table", "csv", "json", "parquet"] | str) -> bytes:
    """`table` in one of four forms; text is UTF-8 and ends with a line break.

    table: aligned columns, six digits, long cells cut. csv: RFC 4180 with line feeds. json: a
    list of objects, numbers that are none as null. parquet: GeoParquet 1.1 if there is a column `geometry`.
    A geometry is WKT in the first two and GeoJSON in json.

    Raises:
        ValueError: another form.
    """
    if form == "parquet":
        return parquet_bytes(table)
    names = list(table.column_names)
    rows = [[column[n].as_py() for column in table.columns] for n in range(table.num_rows)]
    if form == "csv":
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(
            [names, *([_text(cell) for cell in row] for row in rows)]
        )
        return text.getvalue().encode()
    if form == "json":
        plain = [dict(zip(names, map(_plain, row), strict=True)) for row in rows]
        return (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()
    if form == "table":
        return _aligned(names, rows).encode()
    raise ValueError(f"no form {form!r}: table, csv, json or parquet")


def _aligned(names: list[str], rows: list[list[Any]]) -> str:
    cells = [[_cut(_text(cell, digits=6)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [
        any(_is_number(row[n]) for row in rows) and all(row[n] is None or _is_number(row[n]) for row in rows)
        for n in range(len(names))
    ]

    def line(parts: list[str]) -> str:
        padded = (
            part.rjust(width) if flush else part.ljust(width)
            for part, width, flush in zip(parts, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    count = f"({len(rows)} row{'' if len(rows) == 1 else 's'})"
    return "\n".join([line(names), line(["-" * width for width in widths]), *map(line, cells), count, ""])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cut(text: str) -> str:
    text = text.replace("\n", " ")
    return text if len(text) <= CELL else text[: CELL - 1] + "\u2026"


def _text(value: Any, digits: int | None = None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    if isinstance(value, bytes):
        shape = _shape(value)
        return value.hex() if shape is None else str(shapely.to_wkt(shape, rounding_precision=digits or 9))
    if isinstance(value, dict | list | tuple):
        return json.dumps(_plain(value), ensure_ascii=False)
    return str(value)


def _plain(value: Any) -> Any:
    """The types that JSON has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        shape = _shape(value)
        return value.hex() if shape is None else json.loads(shapely.to_geojson(shape))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _shape(value: bytes) -> shapely.Geometry | None:
    """The geometry that bytes are, if they are WKB."""
    try:
        return shapely.from_wkb(value)
    except shapely.errors.GEOSException:
        return None
