"""Metres a pixel, whatever the reference system measures in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tnet_geo.grid import Window
from tnet_geo.imagery.raster import open_raster
from tnet_geo.pyramid.ground import pixel_m
from tnet_geo.pyramid.tiles import RasterSpec

Affine = tuple[float, float, float, float, float, float]


def scene(crs: str | None, transform: Affine | None, side: int = 100) -> RasterSpec:
    return RasterSpec(
        scene_id="scene",
        bands=3,
        dtype="uint8",
        half_px=16,
        shapes=((side, side),),
        crs=crs,
        transform=transform,
        digest="",
    )


def north_up(x: float, y: float, pixel: float) -> Affine:
    return pixel, 0.0, x, 0.0, -pixel, y


def test_metres_of_utm_are_metres_but_for_the_projection_s_scale() -> None:
    assert pixel_m(scene("EPSG:32632", north_up(500_000, 5_000_000, 0.5))) == pytest.approx(0.5, rel=5e-4)


@pytest.mark.parametrize("latitude", [0.0, 45.0, 60.0, -72.0])
def test_degrees_are_as_long_as_they_are_there(latitude: float) -> None:
    degree = 1e-5
    found = pixel_m(scene("EPSG:4326", north_up(11.0, latitude, degree)))
    # A degree of latitude is 111.1 km within one per cent; one of longitude shrinks with the cosine.
    assert found == pytest.approx(111_100 * degree * math.sqrt(math.cos(math.radians(latitude))), rel=0.01)


def test_web_mercator_s_metres_are_half_of_what_they_say_at_sixty_degrees() -> None:
    at_sixty = 8_399_738.0
    assert pixel_m(scene("EPSG:3857", north_up(0.0, at_sixty, 1.0))) == pytest.approx(0.5, rel=0.01)


def test_feet_are_turned_into_metres() -> None:
    california = north_up(6_000_000, 2_000_000, 1.0)  # state plane zone 3, US survey feet
    assert pixel_m(scene("EPSG:2227", california)) == pytest.approx(0.3048, rel=1e-3)


def test_a_turned_pixel_has_the_side_of_its_square_and_a_flat_one_that_of_its_area() -> None:
    x, y = 500_000.0, 5_000_000.0
    turned = (0.3, 0.4, x, 0.4, -0.3, y)
    flat = (2.0, 0.0, x, 0.0, -0.5, y)
    assert pixel_m(scene("EPSG:32632", turned)) == pytest.approx(0.5, rel=1e-3)
    assert pixel_m(scene("EPSG:32632", flat)) == pytest.approx(1.0, rel=1e-3)


def test_it_is_measured_where_the_window_lies() -> None:
    world = scene("EPSG:4326", (0.01, 0.0, -180.0, 0.0, -0.01, 90.0), side=18_000)
    equator, north = (pixel_m(world, Window(row, 9000, 10, 10)) for row in (8995, 2995))
    assert equator is not None
    assert north is not None
    assert north / equator == pytest.approx(math.sqrt(0.5), rel=0.01)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (None, north_up(0, 0, 1)),
        ("EPSG:32632", None),
        ('LOCAL_CS["a drawing board",UNIT["metre",1]]', north_up(0, 0, 1)),
        ("EPSG:32632", north_up(1e12, 1e12, 1)),
        ("no such system", north_up(0, 0, 1)),
    ],
)
def test_what_nobody_knows_is_none(crs: str | None, transform: Affine | None) -> None:
    assert pixel_m(scene(crs, transform)) is None


@pytest.mark.parametrize(
    ("name", "metres"),
    [
        ("river_town_1000.tif", 0.25),  # the Dutch grid
        ("fields_alpha_686.tif", 0.35272),
        ("naip_va_b1.tif", 1.0),
        ("landsat8_b7_memphis_963.tif", 30.0),
        ("sentinel2_tci_1098.tif", 100.0),
        ("landcover_palette_8704.tif", 1.19432856696 * math.cos(math.radians(39.87))),  # Web Mercator
    ],
)
def test_real_scenes_have_the_pixels_that_they_are_known_for(
    shared_data: Path, name: str, metres: float
) -> None:
    with open_raster(str(shared_data / "scenes" / name)) as raster:
        info = raster.info
    known = replace(scene(info.crs, info.transform), shapes=((info.shape[0], info.shape[1]),))
    assert pixel_m(known) == pytest.approx(metres, rel=0.002)
