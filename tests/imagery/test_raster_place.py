"""Where rasters lie: their own transform, or the best affine one of points and RPCs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import RPCTransformer

from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Window
from tnet_geo.imagery import RasterInfo, open_raster
from tnet_geo.results.geography import Globe

TRUE = Affine(0.5, 0.02, 600_000, 0.03, -0.5, 5_000_000)


def info_of(path: Path) -> RasterInfo:
    with open_raster(str(path)) as raster:
        return raster.info


def with_points(path: Path, points: list[GroundControlPoint], crs: str = "EPSG:32632") -> Path:
    """A picture of 40 x 50 pixels that is placed by points alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", "GTiff", 50, 40, 1, dtype="uint8", gcps=points, crs=crs) as target:
            target.write(random_pixels(0, (40, 50), 1))
    return path


def points_at(places: list[tuple[float, float]], transform: Affine = TRUE) -> list[GroundControlPoint]:
    """Points of (column, row) that a transform puts in their places."""
    return [GroundControlPoint(row, col, *(transform @ (col, row))) for col, row in places]


CORNERS = [(0.0, 0.0), (50.0, 0.0), (50.0, 40.0), (0.0, 40.0)]


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 600_000, 0, -0.5, 5_000_000),
        Affine(0.5, 0, 600_000, 0, 0.5, 5_000_000),
        Affine(0.3, 0.4, 600_000, 0.4, -0.3, 5_000_000),
        Affine(2, 0, 600_000, 0, -0.1, 5_000_000),
    ],
    ids=["north-up", "south-up", "rotated", "not square"],
)
def test_a_transform_of_its_own_is_taken_as_it_is(tmp_path: Path, transform: Affine) -> None:
    path = write_raster(tmp_path / "scene.tif", random_pixels(1, (40, 50)), transform=transform)
    info = info_of(path)
    assert info.transform == pytest.approx(tuple(transform)[:6], rel=1e-15)
    assert (info.georeference, info.georeference_error_px) == ("transform", None)


def test_points_of_an_affine_frame_give_back_its_transform(tmp_path: Path) -> None:
    info = info_of(with_points(tmp_path / "scene.tif", points_at([*CORNERS, (20.0, 7.0)])))
    assert (info.georeference, info.crs) == ("gcps", "EPSG:32632")
    assert info.transform == pytest.approx(tuple(TRUE)[:6], rel=1e-9)
    assert info.georeference_error_px == pytest.approx(0, abs=1e-5)


def test_points_that_no_affine_frame_has_leave_an_error_in_pixels(tmp_path: Path) -> None:
    points = points_at(CORNERS)
    points[0].x += 4  # four metres, and a pixel is half a metre: by symmetry each corner takes a fourth
    info = info_of(with_points(tmp_path / "scene.tif", points))
    assert info.transform is not None
    back = [~Affine(*info.transform) @ (point.x, point.y) for point in points]
    off = max(
        np.hypot(col - point.col, row - point.row) for (col, row), point in zip(back, points, strict=True)
    )
    assert info.georeference_error_px == pytest.approx(off)
    assert 1.5 < off < 2.5


@pytest.mark.parametrize("places", [CORNERS[:2], [(0, 0), (10, 10), (20, 20)], [(5, 5)] * 4])
def test_points_that_span_no_plane_place_nothing(tmp_path: Path, places: list[tuple[float, float]]) -> None:
    info = info_of(with_points(tmp_path / "scene.tif", points_at(places)))
    assert (info.transform, info.georeference) == (None, None)


def test_points_across_the_antimeridian_stay_together(tmp_path: Path) -> None:
    true = Affine(0.02, 0, 179.5, 0, -0.02, 10)
    points = points_at(CORNERS, true)
    for point in points:
        point.x = (point.x + 180) % 360 - 180
    info = info_of(with_points(tmp_path / "scene.tif", points, "EPSG:4326"))
    assert info.transform == pytest.approx(tuple(true)[:6], abs=1e-9)
    assert info.georeference_error_px == pytest.approx(0, abs=1e-5)


def test_rpcs_are_fitted_at_their_own_height(shared_data: Path) -> None:
    path = shared_data / "odd" / "RGB.byte.rpc.vrt"
    info = info_of(path)
    assert (info.georeference, info.crs) == ("rpcs", "EPSG:4326")
    assert info.transform is not None
    assert info.georeference_error_px is not None
    with rasterio.open(path) as dataset, RPCTransformer(dataset.rpcs) as model:
        height = dataset.rpcs.height_off
        for col, row in ((0, 0), (791, 0), (300, 444), (0, 718), (791, 718)):
            lon, lat = model.xy([row], [col], zs=[height], offset="ul")
            found = ~Affine(*info.transform) @ (lon[0], lat[0])
            assert np.hypot(found[0] - col, found[1] - row) <= info.georeference_error_px


def test_a_crs_keeps_its_short_name_only_if_it_is_that_crs(tmp_path: Path) -> None:
    near = (  # what GDAL takes for IGNF:ETRS89LAEA, of another datum
        "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80 +units=m +no_defs"
    )
    for crs, expected in (("EPSG:3035", "EPSG:3035"), ("ESRI:102001", "ESRI:102001"), (near, None)):
        path = write_raster(tmp_path / "scene.tif", random_pixels(1, (8, 8)), crs=crs)
        found = info_of(path).crs
        assert found is not None
        assert found == expected or (expected is None and found.startswith("PROJCS"))
        assert rasterio.crs.CRS.from_user_input(found) == rasterio.open(path).crs


@pytest.mark.parametrize("given", [None, Affine(1, 0, 5, 1, 0, 5)], ids=["none", "onto a line"])
def test_a_picture_that_lies_nowhere_keeps_its_pixels(tmp_path: Path, given: Any) -> None:
    path = tmp_path / "scene.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", "GTiff", 50, 40, 1, dtype="uint8", transform=given) as target:
            target.write(random_pixels(0, (40, 50), 1))
    with open_raster(str(path)) as raster:
        assert (raster.info.crs, raster.info.transform, raster.info.georeference) == (None, None, None)
        np.testing.assert_array_equal(raster.read(Window(0, 0, 40, 50))[0], random_pixels(0, (40, 50), 1))
    assert Globe().footprints([Window(0, 0, 40, 50)], None, None) == [None]
