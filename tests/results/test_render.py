"""A table says the same to people, spreadsheets, scripts and GIS."""

from __future__ import annotations

import csv
import io
import json

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tnet_geo.results import Results
from tnet_geo.results.render import render


def test_a_table_for_people_is_aligned_with_numbers_to_the_right() -> None:
    table = pa.table({"label": ["quarry", None], "n": [5, 1200], "share": [1 / 3, None]})
    assert render(table, "table").decode().splitlines() == [
        "label      n     share",
        "------  ----  --------",
        "quarry     5  0.333333",
        "        1200",
        "(2 rows)",
    ]


def test_an_empty_table_and_long_or_broken_cells_stay_readable() -> None:
    assert render(pa.table({"a": pa.array([], pa.string())}), "table").decode() == "a\n-\n(0 rows)\n"
    line = render(pa.table({"a": ["x\ny" + "z" * 80]}), "table").decode().splitlines()[2]
    assert line.startswith("x yzz")
    assert line.endswith("\u2026")
    assert len(line) == 60


def test_csv_can_be_read_back() -> None:
    table = pa.table({"site": ['with "quotes", comma', "two\nlines"], "n": [1.5, None], "ok": [True, False]})
    rows = list(csv.reader(io.StringIO(render(table, "csv").decode(), newline="")))
    assert rows == [["site", "n", "ok"], ['with "quotes", comma', "1.5", "True"], ["two\nlines", "", "False"]]


def test_json_has_null_where_a_number_is_none_and_keeps_nested_values() -> None:
    table = pa.table(
        {"n": [float("nan"), 2.0], "list": [[1.0, float("inf")], None], "place": [{"x": 1}, None]}
    )
    assert json.loads(render(table, "json")) == [
        {"n": None, "list": [1.0, None], "place": {"x": 1}},
        {"n": 2.0, "list": None, "place": None},
    ]


def test_geometries_are_words_for_people_and_geojson_for_scripts(results: Results) -> None:
    table = results.query("SELECT geometry FROM predictions ORDER BY site_id", rows=1)
    assert "POLYGON ((15" in render(table, "table").decode()
    assert "POLYGON ((1" in render(table, "csv").decode()
    assert json.loads(render(table, "json"))[0]["geometry"]["type"] == "Polygon"


def test_bytes_that_are_no_geometry_are_hexadecimal() -> None:
    assert json.loads(render(pa.table({"raw": [b"\x01\xff"]}), "json")) == [{"raw": "01ff"}]


def test_parquet_of_a_question_opens_in_geopandas_at_the_right_place(results: Results) -> None:
    content = render(results.query("SELECT site_id, geometry, confidence FROM predictions"), "parquet")
    frame = geopandas.read_parquet(io.BytesIO(content))
    assert len(frame) == 14
    assert str(frame.crs) == "OGC:CRS84"
    assert frame.total_bounds[0] == pytest.approx(15, abs=0.01)


def test_parquet_without_geometry_is_plain(results: Results) -> None:
    content = render(results.query("SELECT label, count(*) AS n FROM predictions GROUP BY 1"), "parquet")
    assert pq.read_table(io.BytesIO(content)).column_names == ["label", "n"]


def test_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="no form 'xml'"):
        render(pa.table({"a": [1]}), "xml")
