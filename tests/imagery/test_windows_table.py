"""Windows come from every table that analysts have: GeoJSON, GeoPackage, GeoParquet and Parquet."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import shapely
from affine import Affine
from pyarrow import parquet
from pyproj import Transformer

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import InvalidManifest
from tnet_geo.grid import Window
from tnet_geo.imagery import manifest_from_windows
from tnet_geo.imagery.manifest import Site

UTM = "EPSG:32632"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`scene.tif`: 100 x 80 pixels of 0.5 m, upper left corner at 600000, 5000000 of EPSG:32632."""
    write_raster(tmp_path / "scene.tif", random_pixels(1, (100, 80), 1))
    return tmp_path


def frame(*shapes: Any, crs: str | None = UTM, **columns: list[Any]) -> gpd.GeoDataFrame:
    rows = {"site_id": [f"s{n}" for n in range(len(shapes))], "scene": ["scene.tif"] * len(shapes)} | columns
    return gpd.GeoDataFrame(rows, geometry=list(shapes), crs=crs)


def write(folder: Path, name: str, rows: gpd.GeoDataFrame) -> Path:
    path = folder / name
    if path.suffix in {".parquet", ".geoparquet"}:
        rows.to_parquet(path)
    else:
        rows.to_file(path, driver="GPKG" if path.suffix == ".gpkg" else "GeoJSON")
    return path


def sites(table: Path, **options: Any) -> tuple[Site, ...]:
    out = table.with_name("sites.csv")
    out.unlink(missing_ok=True)
    return manifest_from_windows(table, out, **options).sites


FORMATS = ["w.geojson", "w.gpkg", "w.parquet", "w.geoparquet"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_shape_becomes_the_pixels_that_its_bounds_touch(folder: Path, name: str) -> None:
    # South and east edges lie inside a pixel, so that the fourth digit of a GeoJSON changes nothing.
    square = shapely.box(600_005.1, 4_999_979.9, 600_010.2, 4_999_989.8)
    triangle = shapely.Polygon([(600_001.1, 4_999_999.9), (600_003.9, 4_999_999.9), (600_001.1, 4_999_996.2)])
    crs = "EPSG:4326" if name == "w.geojson" else UTM
    rows = frame(square, triangle, label=["road", None], split=["train", "none"]).to_crs(crs)
    first, second = sites(write(folder, name, rows))
    assert (first.label, first.split, second.label, second.split) == ("road", "train", None, None)
    assert first.window == Window(20, 10, 21, 11)
    assert second.window == Window(0, 2, 8, 6)


@pytest.mark.parametrize("name", FORMATS)
def test_windows_in_pixels_go_before_shapes(folder: Path, name: str) -> None:
    pixels = {"row_off": [1, None], "col_off": [2, None], "height": [3, None], "width": [4, None]}
    rows = frame(shapely.box(9, 50, 9.1, 50.1), shapely.box(600_005, 4_999_980, 600_010, 4_999_990), **pixels)
    rows.loc[0, "geometry"] = None
    if name == "w.geojson":
        rows = rows.to_crs("EPSG:4326")
    first, second = sites(write(folder, name, rows))
    assert first.window == Window(1, 2, 3, 4)
    assert second.window is not None
    assert second.window.contains(Window(20, 10, 20, 10))


@pytest.mark.parametrize("name", ["w.gpkg", "w.parquet"])
def test_facts_of_a_row_come_along_whatever_their_type(folder: Path, name: str) -> None:
    square = shapely.box(600_005, 4_999_980, 600_010, 4_999_990)
    facts = {
        "site_id": [7],
        "date": np.array(["2024-05-31T10:40:00"], "datetime64[ms]"),
        "gsd": [0.5],
        "country": ["DEU"],
        "cloud_cover": [12],
        "footprint": [square.wkt],
    }
    (site,) = sites(write(folder, name, frame(square, **facts)))
    assert (site.site_id, site.gsd, site.country, site.cloud_cover) == ("7", 0.5, "DEU", 12)
    assert site.date is not None
    assert site.date.startswith("2024-05-31T10:40:00")
    assert site.footprint == square.wkt


def test_a_shape_fits_a_turned_scene_more_closely_than_its_bounds(tmp_path: Path) -> None:
    turned = Affine.translation(600_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    write_raster(tmp_path / "scene.tif", random_pixels(1, (100, 80), 1), transform=turned)
    corners = [turned @ (col, row) for col, row in ((10.2, 20.2), (30.2, 20.2), (30.2, 60.2), (10.2, 60.2))]
    (site,) = sites(write(tmp_path, "w.gpkg", frame(shapely.Polygon(corners))))
    assert site.window == Window(20, 10, 41, 21)


def test_edges_bend_as_they_are_turned(tmp_path: Path) -> None:
    # A parallel of latitude is a curve in UTM: its middle lies further from the pole than its ends.
    transform = (100, 0, 300_000, 0, -100, 7_300_000)
    write_raster(tmp_path / "scene.tif", random_pixels(1, (3000, 4000), 1), transform=transform)
    west, south, east, north = 6.0, 64.0, 12.0, 65.0
    (site,) = sites(write(tmp_path, "w.gpkg", frame(shapely.box(west, south, east, north), crs="EPSG:4326")))
    turn = Transformer.from_crs("EPSG:4326", UTM, always_xy=True)
    _, middle = turn.transform(9.0, south)
    _, ends = turn.transform(west, south)
    assert site.window is not None
    assert middle < ends - 1000
    assert site.window.bottom == int(np.ceil((7_300_000 - middle) / 100))


def test_geoparquet_without_reference_system_means_that_of_the_scene_or_longitude(folder: Path) -> None:
    square = shapely.box(600_005, 4_999_980, 600_010, 4_999_990)
    (site,) = sites(write(folder, "w.parquet", frame(square, crs=None)))
    assert site.window == Window(20, 10, 20, 10)
    write(folder, "w.parquet", frame(square).to_crs("OGC:CRS84"))
    table = parquet.read_table(folder / "w.parquet")
    about = json.loads(table.schema.metadata[b"geo"])
    del about["columns"]["geometry"]["crs"]
    parquet.write_table(
        table.replace_schema_metadata({b"geo": json.dumps(about).encode()}), folder / "w.parquet"
    )
    (site,) = sites(folder / "w.parquet")
    assert site.window is not None
    assert site.window.contains(Window(20, 10, 20, 10))


def test_plain_parquet_is_a_table_of_numbers(folder: Path) -> None:
    columns = {"site_id": ["a"], "scene": ["scene.tif"], "row_off": [1], "col_off": [2], "height": [3]}
    parquet.write_table(pa.table(columns | {"width": [4.0]}), folder / "w.parquet")
    assert sites(folder / "w.parquet")[0].window == Window(1, 2, 3, 4)


def test_a_geopackage_of_several_layers_needs_its_layer_named(folder: Path) -> None:
    for name, west in (("one", 600_005), ("two", 600_010)):
        frame(shapely.box(west, 4_999_980, west + 5, 4_999_990)).to_file(folder / "w.gpkg", layer=name)
    with pytest.raises(InvalidManifest, match=r"has the layers one, two: name one of them with --layer"):
        sites(folder / "w.gpkg")
    with pytest.raises(InvalidManifest, match=r"has no layer 'three': name one of one, two"):
        sites(folder / "w.gpkg", layer="three")
    assert sites(folder / "w.gpkg", layer="two")[0].window == Window(20, 20, 20, 10)


def outside(folder: Path) -> Path:
    return write(folder, "w.gpkg", frame(shapely.box(700_000, 4_999_980, 700_010, 4_999_990)))


def no_scene(folder: Path) -> Path:
    return write(folder, "w.gpkg", frame(shapely.box(0, 0, 1, 1)).drop(columns="scene"))


def no_shape(folder: Path) -> Path:
    return write(
        folder, "w.parquet", frame(shapely.Point(), shapely.box(600_005, 4_999_980, 600_010, 4_999_990))
    )


def bare_scene(folder: Path) -> Path:
    write_raster(folder / "scene.tif", random_pixels(1, (100, 80), 1), crs=None)
    return write(folder, "w.gpkg", frame(shapely.box(600_005, 4_999_980, 600_010, 4_999_990)))


def unknown_suffix(folder: Path) -> Path:
    (folder / "w.shp").write_bytes(b"")
    return folder / "w.shp"


def damaged(folder: Path) -> Path:
    (folder / "w.gpkg").write_bytes(b"no database")
    return folder / "w.gpkg"


def damaged_parquet(folder: Path) -> Path:
    (folder / "w.geoparquet").write_bytes(b"no table")
    return folder / "w.geoparquet"


def wrong_number(folder: Path) -> Path:
    return write(folder, "w.gpkg", frame(shapely.box(600_005, 4_999_980, 600_010, 4_999_990), gsd=["wide"]))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (outside, r"outside its scene .* at site 's0'"),
        (no_scene, "has no column 'scene'"),
        (no_shape, "no window of numbers at site 's0'"),
        (bare_scene, "a shape with a reference system, and its scene has none at site 's0'"),
        (unknown_suffix, r"is none of \.csv, \.geojson"),
        (damaged, r"w\.gpkg cannot be read"),
        (damaged_parquet, r"w\.geoparquet cannot be read"),
        (wrong_number, "the gsd 'wide' at site 's0'"),
    ],
)
def test_what_is_no_table_of_windows_is_refused_by_name(
    folder: Path, case: Callable[[Path], Path], said: str
) -> None:
    table = case(folder)
    with pytest.raises(InvalidManifest, match=said) as caught:
        sites(table)
    assert "\n" not in str(caught.value)
    assert not (folder / "sites.csv").exists()


def test_without_its_extra_the_way_out_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = outside(folder)
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "pyogrio":
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InvalidManifest, match=r"without pyogrio: pip install 'tnet-geo\[gis\]'"):
        sites(table)
