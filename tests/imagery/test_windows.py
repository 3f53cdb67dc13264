"""Windows in pixels or in map coordinates become sites that lie inside their scenes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pyproj import Transformer

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import InvalidManifest, OutputExists
from tnet_geo.grid import Window
from tnet_geo.imagery import manifest_from_windows, open_raster, read_manifest

PIXELS = "site_id,scene,row_off,col_off,height,width"
BOUNDS = "site_id,scene,min_x,min_y,max_x,max_y,crs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`scene.tif`: 100 x 80 pixels of 0.5 m, upper left corner at 600000, 5000000 of EPSG:32632."""
    write_raster(tmp_path / "scene.tif", random_pixels(1, (100, 80), 1))
    return tmp_path


def windows(folder: Path, *rows: str) -> list[Window | None]:
    (folder / "windows.csv").write_text("\n".join(rows) + "\n")
    (folder / "sites.csv").unlink(missing_ok=True)
    manifest = manifest_from_windows(folder / "windows.csv", folder / "sites.csv")
    assert read_manifest(folder / "sites.csv").sites == manifest.sites
    return [site.window for site in manifest.sites]


def test_windows_in_pixels_are_taken_as_they_are(folder: Path) -> None:
    assert windows(folder, PIXELS, "a,scene.tif,10,20,30,40", "b, scene.tif ,0,0,100,80") == [
        Window(10, 20, 30, 40),
        Window(0, 0, 100, 80),
    ]


def test_a_window_that_leaves_its_scene_is_clipped(folder: Path) -> None:
    assert windows(folder, PIXELS, "a,scene.tif,-5,70,20,40") == [Window(0, 70, 15, 10)]


def test_bounds_of_windows_lead_back_to_the_windows(tmp_path: Path) -> None:
    transform = (0.1, 0, 600_000.3, 0, -0.3, 5_000_000.7)  # numbers that binary fractions only come near to
    write_raster(tmp_path / "scene.tif", random_pixels(1, (100, 80), 1), transform=transform)
    asked = [Window(row, col, 7, 3) for row in range(0, 90, 5) for col in range(0, 75, 5)]
    rows = []
    for n, window in enumerate(asked):
        west, east = (600_000.3 + 0.1 * col for col in (window.col, window.right))
        south, north = (5_000_000.7 - 0.3 * row for row in (window.bottom, window.row))
        rows.append(f"{n},scene.tif,{west!r},{south!r},{east!r},{north!r},")
    assert windows(tmp_path, BOUNDS, *rows) == asked


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("600005,4999980,600010,4999990", Window(20, 10, 20, 10)),  # on the edges of pixels
        ("600005.1,4999980.1,600010.1,4999990.1", Window(19, 10, 21, 11)),  # rounded outwards
        ("599000,4999990,600001,5001000", Window(0, 0, 20, 2)),  # clipped
        ("600005.1,4999999.1,600005.2,4999999.2", Window(1, 10, 1, 1)),  # inside one pixel
    ],
)
def test_map_coordinates_become_the_pixels_that_they_touch(
    folder: Path, bounds: str, expected: Window
) -> None:
    assert windows(folder, BOUNDS, f"a,scene.tif,{bounds},") == [expected]
    assert windows(folder, BOUNDS, f"a,scene.tif,{bounds},EPSG:32632") == [expected]


def test_map_coordinates_of_another_system_are_turned_into_the_scene_s(folder: Path) -> None:
    turn = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
    west, south, east, north = turn.transform_bounds(600_005, 4_999_970, 600_025, 4_999_990)
    (found,) = windows(folder, BOUNDS, f"a,scene.tif,{west!r},{south!r},{east!r},{north!r},EPSG:4326")
    assert found is not None
    assert found.contains(Window(20, 10, 40, 40))
    assert Window(18, 8, 44, 44).contains(found)  # a box of one system is turned a little in another


def test_a_scene_that_lies_with_south_up_is_placed_by_its_transform(tmp_path: Path) -> None:
    transform = (0.5, 0, 600_000, 0, 0.5, 5_000_000)
    write_raster(tmp_path / "scene.tif", random_pixels(1, (100, 80), 1), transform=transform)
    assert windows(tmp_path, BOUNDS, "a,scene.tif,600005,5000010,600010,5000020,") == [Window(20, 10, 20, 10)]


def test_rows_of_both_kinds_stand_in_one_table(folder: Path) -> None:
    header = f"{PIXELS},min_x,min_y,max_x,max_y"
    rows = ("a,scene.tif,1,2,3,4,,,,", "b,scene.tif,,,,,600005,4999980,600010,4999990")
    assert windows(folder, header, *rows) == [Window(1, 2, 3, 4), Window(20, 10, 20, 10)]


def test_labels_splits_and_dates_are_kept_and_other_columns_are_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tnet_geo")
    header = f"{PIXELS},label,split,date,scene_id,valid_share,remark"
    rows = ("a,scene.tif,0,0,5,5,road,train,2024-05-31,mine,1.0,x", "b,scene.tif,0,0,5,5,,none,,mine,,")
    windows(folder, header, *rows)
    first, second = read_manifest(folder / "sites.csv").sites
    assert (first.label, first.split, first.date, first.scene_id) == ("road", "train", "2024-05-31", "mine")
    assert (second.label, second.split, second.date) == (None, None, None)
    assert "valid_share, remark" in caplog.text


def test_a_scene_that_cannot_be_read_is_left_to_the_build(folder: Path) -> None:
    assert windows(folder, PIXELS, "a,absent.tif,10,20,30,40") == [Window(10, 20, 30, 40)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("site_id,row_off,col_off,height,width", "a,0,0,5,5"), "no column 'scene'"),
        (("site_id,scene,row_off,col_off,height", "a,scene.tif,0,0,5"), "no windows"),
        ((PIXELS, "a,scene.tif,100,0,5,5"), "outside its scene of 100 rows and 80 columns at site 'a'"),
        ((PIXELS, "a,scene.tif,0,0,5,"), "no window of numbers at site 'a'"),
        ((PIXELS, "a,scene.tif,0,0,5,x"), "no window of numbers at site 'a'"),
        ((PIXELS, "a,scene.tif"), "no window of numbers at site 'a'"),
        ((PIXELS, "a,scene.tif,0,0,5,inf"), "not finite at site 'a'"),
        ((PIXELS, "a,scene.tif,0,0,5,1.5"), "part of a pixel at site 'a'"),
        ((PIXELS, "a,scene.tif,0,0,5,0"), "without pixels at site 'a'"),
        ((PIXELS, "a,,0,0,5,5"), "without scene"),
        ((PIXELS, ",scene.tif,0,0,5,5"), "without site_id"),
        ((PIXELS,), "no rows"),
        ((PIXELS, "a,scene.tif,0,0,5,5", "a,scene.tif,0,0,6,6"), "'a' more than once"),
        ((BOUNDS, "a,scene.tif,700000,4999980,700010,4999990,"), "outside its scene .* at site 'a'"),
        ((BOUNDS, "a,scene.tif,600010,4999980,600005,4999990,"), "not below its maximum at site 'a'"),
        ((BOUNDS, "a,scene.tif,0,0,1,1,EPSG:0"), "EPSG:0 cannot place .* at site 'a'"),
        ((BOUNDS, "a,scene.tif,900,900,901,901,EPSG:4326"), "EPSG:4326 cannot place .* at site 'a'"),
        ((BOUNDS, "a,absent.tif,0,0,1,1,"), "scene that cannot be read .* at site 'a'"),
    ],
)
def test_what_is_no_window_of_its_scene_is_refused_by_name(
    folder: Path, rows: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InvalidManifest, match=said) as caught:
        windows(folder, *rows)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert not (folder / "sites.csv").exists()


def test_map_coordinates_need_a_georeference(shared_data: Path, tmp_path: Path) -> None:
    scene = shared_data / "scenes" / "forest_road_1249.tif"
    with pytest.raises(InvalidManifest, match="without georeference at site 'a'"):
        windows(tmp_path, BOUNDS, f"a,{scene},0,0,1,1,")


def test_a_table_that_is_missing_or_an_output_that_exists_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidManifest, match=r"absent\.csv cannot be read \(No such file"):
        manifest_from_windows(folder / "absent.csv", folder / "sites.csv")
    windows(folder, PIXELS, "a,scene.tif,0,0,5,5")
    with pytest.raises(OutputExists):
        manifest_from_windows(folder / "windows.csv", folder / "sites.csv")


def test_the_real_windows_make_fourteen_sites_inside_their_scenes(shared_data: Path, tmp_path: Path) -> None:
    manifest = manifest_from_windows(shared_data / "scenes" / "windows.csv", tmp_path / "sites.parquet")
    assert (len(manifest), len(manifest.scenes())) == (14, 6)
    bridge = manifest.sites[0]
    assert (bridge.site_id, bridge.label, bridge.split) == ("bridge", "road_bridge", "val")
    assert bridge.window == Window(row=1150, col=800, height=800, width=1000)
    assert [site.site_id for site in manifest.sites if site.split is None] == ["no_image"]
    for site in manifest.sites:
        with open_raster(site.scene) as raster:
            assert site.window is not None
            assert Window(0, 0, *raster.info.shape).contains(site.window)
