"""What is written opens in what people use, and lies where the scene lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio.warp
import shapely
from pyproj import CRS

from tests.results.synthetic import UTM, row_of
from tnet_geo.grid import Window
from tnet_geo.results import write_part
from tnet_geo.results.geography import Footprint, Globe

ROWS = [row_of(n, (200, 300)) for n in range(4)]
HALF_METRE = (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_600_000.0)


def one(window: Window, crs: str | None, transform: tuple[float, ...] | None) -> Footprint | None:
    return Globe().footprints([window], crs, transform)[0]


def test_geopandas_opens_both_tables_and_filters_them_by_a_box(tmp_path: Path) -> None:
    seal = write_part(tmp_path, "r", "p", ROWS)
    frame = geopandas.read_parquet(seal)
    assert frame.crs == CRS("OGC:CRS84")
    assert set(frame.geom_type) == {"Polygon"}
    first = frame.sort_values("lon").iloc[0]
    near = geopandas.read_parquet(seal, bbox=(first.lon - 1e-4, 50, first.lon + 1e-4, 51))
    assert list(near["site_id"]) == [first["site_id"]]
    looks = geopandas.read_parquet(tmp_path / "trails/run=r/part-p.parquet")
    assert len(looks) == 20
    assert looks.geometry.is_valid.all()


def test_duckdb_sees_geometries_and_plain_columns(tmp_path: Path) -> None:
    seal = write_part(tmp_path, "r", "p", ROWS)
    with duckdb.connect() as database:
        row = database.sql(
            f"SELECT typeof(geometry), lon, lat, bbox.xmin FROM '{seal}' ORDER BY lon"
        ).fetchall()[0]
    assert row[0] == "GEOMETRY('OGC:CRS84')"
    assert row[3] < row[1] < row[3] + 0.01
    assert row[2] == pytest.approx(50.5508, abs=1e-4)


def test_the_metadata_are_those_of_geoparquet_1_1_without_a_crs(tmp_path: Path) -> None:
    seal = write_part(tmp_path, "r", "p", ROWS)
    facts = json.loads(pq.read_schema(seal).metadata[b"geo"])
    column = facts["columns"]["geometry"]
    assert facts["version"] == "1.1.0"
    assert "crs" not in column
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert column["geometry_types"] == ["Polygon"]
    assert pq.read_metadata(seal).row_group(0).column(0).compression == "ZSTD"


def test_without_georeference_there_are_no_coordinates_but_pixels(tmp_path: Path) -> None:
    seal = write_part(tmp_path, "r", "p", [replace(row, crs=None, transform=None) for row in ROWS])
    frame = geopandas.read_parquet(seal)
    assert frame[["lon", "lat", "geometry"]].isna().all(axis=None)
    assert set(frame["height"]) == {512}
    assert pq.read_table(seal, partitioning=None)["bbox"].null_count == len(ROWS)


def test_corners_lie_where_rasterio_puts_them() -> None:
    window = Window(row=100, col=40, height=64, width=32)
    place = one(window, UTM, HALF_METRE)
    assert place is not None
    assert isinstance(place.polygon, shapely.Polygon)
    affine = rasterio.Affine(*HALF_METRE)
    corners = [affine @ (col, row) for row in (100, 164) for col in (40, 72)]
    lons, lats = rasterio.warp.transform(UTM, "OGC:CRS84", *map(list, zip(*corners, strict=True)))
    for lon, lat in zip(lons, lats, strict=True):
        assert place.polygon.exterior.distance(shapely.Point(lon, lat)) < 1e-9
    assert place.polygon.contains(shapely.Point(place.lon, place.lat))
    assert place.polygon.exterior.is_ccw


def test_edges_that_bend_on_the_globe_get_corners_and_short_ones_do_not() -> None:
    small = one(Window(0, 0, 64, 64), UTM, HALF_METRE)
    large = one(Window(0, 0, 1000, 1000), "EPSG:32633", (300.0, 0.0, 300_000.0, 0.0, -300.0, 7_000_000.0))
    assert small is not None
    assert large is not None
    assert shapely.get_num_coordinates(small.polygon) == 5
    assert shapely.get_num_coordinates(large.polygon) > 30


def test_a_footprint_across_the_antimeridian_is_cut_in_two() -> None:
    place = one(Window(0, 0, 100, 100), "EPSG:32660", (1000.0, 0.0, 770_000.0, 0.0, -1000.0, -1_800_000.0))
    assert place is not None
    assert isinstance(place.polygon, shapely.MultiPolygon)
    west, east = sorted(place.polygon.geoms, key=lambda part: -part.bounds[0])
    assert west.bounds[2] == 180
    assert east.bounds[0] == -180
    assert np.ptp(west.bounds[::2]) + np.ptp(east.bounds[::2]) < 2


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (None, HALF_METRE),
        (UTM, None),
        ("nonsense", HALF_METRE),
        ('LOCAL_CS["site grid",UNIT["metre",1]]', HALF_METRE),
        (UTM, (1e9, 0.0, 0.0, 0.0, -1e9, 0.0)),
    ],
)
def test_where_nobody_knows_the_place_none_is_invented(
    crs: str | None, transform: tuple[float, ...] | None
) -> None:
    assert one(Window(0, 0, 64, 64), crs, transform) is None
