"""Footprints where longitudes begin anew: the whole Earth, the antimeridian, and the poles."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tnet_geo.grid import Window
from tnet_geo.results import geography
from tnet_geo.results.geography import Footprint, Globe

Transform = tuple[float, float, float, float, float, float]


def footprint(crs: str, transform: Transform, rows: int, cols: int) -> Footprint:
    (found,) = Globe().footprints([Window(0, 0, rows, cols)], crs, transform)
    assert found is not None
    assert found.polygon.is_valid
    return found


@pytest.mark.parametrize(
    ("west", "cols"),
    [(-180, 720), (0, 720), (-180.25, 721)],
    ids=["from -180", "from 0", "a little beyond the Earth"],
)
def test_the_whole_earth_is_the_whole_earth(west: float, cols: int) -> None:
    found = footprint("EPSG:4326", (0.5, 0, west, 0, -0.5, 75), 300, cols)
    assert found.polygon.equals(shapely.box(-180, -75, 180, 75))


def test_longitudes_up_to_360_are_put_in_their_places() -> None:
    found = footprint("EPSG:4326", (0.1, 0, 190, 0, -0.1, 10), 10, 20)
    assert found.polygon.bounds == pytest.approx((-170, 9, -168, 10))


@pytest.mark.parametrize("west", [179.5, -180.5])
def test_what_crosses_the_antimeridian_is_cut_there(west: float) -> None:
    found = footprint("EPSG:4326", (0.1, 0, west, 0, -0.1, 10), 10, 10)
    east, begin = shapely.box(179.5, 9, 180, 10), shapely.box(-180, 9, -179.5, 10)
    assert found.polygon.symmetric_difference(shapely.MultiPolygon([east, begin])).area < 1e-9


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3031", -90), ("EPSG:3995", 90)])
def test_a_frame_around_a_pole_holds_it(crs: str, pole: int) -> None:
    found = footprint(crs, (1000, 0, -500_000, 0, -1000, 500_000), 1000, 1000)
    west, south, east, north = found.polygon.bounds
    assert (west, east) == pytest.approx((-180, 180))
    assert pole in (south, north)
    for lon in range(-180, 181, 10):
        assert found.polygon.intersects(shapely.Point(lon, pole * 86 / 90))
        assert not found.polygon.contains(shapely.Point(lon, pole * 80 / 90))


def test_a_frame_beside_a_pole_does_not_hold_it() -> None:
    found = footprint("EPSG:3031", (1000, 0, 100_000, 0, -1000, 500_000), 1000, 300)
    assert found.polygon.bounds[1] > -89.5


def short_windows() -> tuple[list[Window], list[Transform]]:
    """Windows of up to 300 m, each with a place of its own in zone 33 north."""
    chance = np.random.default_rng(4)
    windows = [
        Window(*chance.integers(0, 500, 2).tolist(), *chance.integers(1, 600, 2).tolist()) for _ in range(60)
    ]
    east, north = chance.integers(200_000, 800_000, 60).tolist(), chance.integers(0, 8_000_000, 60).tolist()
    return windows, [(0.5, 0.1, x, 0.1, -0.5, y) for x, y in zip(east, north, strict=True)]


def test_windows_of_many_scenes_lie_where_each_of_them_lies_alone() -> None:
    windows, transforms = short_windows()
    together = Globe().located(windows, "EPSG:32633", transforms)
    alone = [
        Globe().footprints([window], "EPSG:32633", transform)[0]
        for window, transform in zip(windows, transforms, strict=True)
    ]
    assert together == alone


def test_short_edges_are_straight_and_found_to_be_so_by_their_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    windows, transforms = short_windows()
    quick = Globe().located(windows, "EPSG:32633", transforms)
    monkeypatch.setattr(geography, "_straight", lambda lon, lat: np.zeros(len(lon), bool))
    slow = Globe().located(windows, "EPSG:32633", transforms)
    for one, other in zip(quick, slow, strict=True):
        assert one is not None
        assert other is not None
        assert (one.lon, one.lat) == (other.lon, other.lat)
        assert one.polygon.hausdorff_distance(other.polygon) < geography.STRAIGHT_DEG
