"""Pictures show the pixels that the walk was over, and boxes where its tiles are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.results.synthetic import HALF_PX, UTM, Scenes, answer_of, land, walk_to
from tnet_geo.errors import InvalidArchive, QueryRefused
from tnet_geo.grid import Window
from tnet_geo.pyramid import MemoryReader, TileReader
from tnet_geo.results import PredictionRow, Results, picture
from tnet_geo.results.marks import depth_colour, marks_of, resolution_text
from tnet_geo.results.scenery import Scenery, scenery_of
from tnet_geo.results.tables import prediction_table, trail_table
from tnet_geo.results.walks import Walk, walks_of


def walk_over(window: Window, target: tuple[int, int]) -> Walk:
    """A walk over `window` as it comes back from disk."""
    trail = walk_to(target, window, seed=4)
    row = PredictionRow(answer_of("site", trail, "quarry", seed=5), "scene", window, HALF_PX)
    return walks_of(prediction_table([row]).to_pylist(), trail_table([row]).to_pylist())["site"]


def scenery(pixels: NDArray[Any], window: Window, validity: NDArray[np.uint8] | None = None) -> Scenery:
    reader = MemoryReader.of(pixels, HALF_PX, validity)
    return scenery_of(walk_over(window, (300, 300)), Scenes({"scene": reader}))


def test_the_picture_of_a_small_scene_is_its_native_pixels() -> None:
    pixels, _ = land(1)
    seen = scenery(pixels, Window(0, 0, 512, 512))
    assert seen.ground == Window(0, 0, 512, 512)
    np.testing.assert_array_equal(seen.picture, pixels.transpose(1, 2, 0))


def test_crops_are_what_the_network_was_given() -> None:
    pixels, _ = land(1)
    reader = MemoryReader.of(pixels, HALF_PX)
    walk = walk_over(Window(0, 0, 512, 512), (300, 300))
    seen = scenery_of(walk, Scenes({"scene": reader}))
    tiles = reader.read([look.tile for look in walk.looks]).pixels.transpose(0, 2, 3, 1)
    assert len(seen.crops) == len(walk.looks)
    np.testing.assert_array_equal(np.stack(seen.crops), tiles)


def test_a_window_of_a_larger_scene_is_shown_with_the_ground_of_its_root() -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (3, 1500, 1300), np.uint8)
    window = Window(700, 600, 300, 250)
    walk = walk_over(window, (800, 700))
    seen = scenery_of(walk, Scenes({"scene": MemoryReader.of(pixels, HALF_PX)}))
    assert seen.ground.contains(window)
    assert seen.beyond
    assert walk.windows[0].contains(seen.ground)
    here = pixels[:, seen.ground.row : seen.ground.bottom, seen.ground.col : seen.ground.right]
    np.testing.assert_array_equal(seen.picture, here.transpose(1, 2, 0))


def test_ground_that_is_too_large_is_shown_coarser_and_covers_the_scene() -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (3, 1501, 1300), np.uint8)
    reader = MemoryReader.of(pixels, HALF_PX)
    seen = scenery_of(walk_over(Window(0, 0, 1501, 1300), (800, 700)), Scenes({"scene": reader}))
    assert seen.picture.shape == (751, 650, 3)
    assert seen.ground == Window(0, 0, 1502, 1300)
    assert not seen.beyond
    np.testing.assert_array_equal(seen.picture, reader.level(1)[0].transpose(1, 2, 0))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 4])
def test_pixels_of_any_kind_are_stretched_to_bytes(dtype: str, bands: int) -> None:
    ramp = np.linspace(100, 3000, 256 * 256).reshape(256, 256)
    pixels = np.stack([ramp * (band + 1) for band in range(bands)]).astype(dtype)
    seen = scenery(pixels, Window(0, 0, 256, 256))
    assert seen.picture[0, 0].max() == 0
    assert seen.picture[-1, -1].min() == 255
    if bands < 3:
        assert (np.ptp(seen.picture, axis=-1) == 0).all()


def test_ground_without_valid_pixels_is_grey_and_does_not_count_for_the_stretch() -> None:
    pixels = np.full((1, 256, 256), 9000, np.uint16)
    pixels[0, 128:] = np.linspace(10, 20, 128 * 256).reshape(128, 256)
    validity = np.zeros((256, 256), np.uint8)
    validity[128:] = 255
    seen = scenery(pixels, Window(0, 0, 256, 256), validity)
    assert (seen.picture[:128] == 128).all()
    assert np.ptp(seen.picture[128:]) == 255


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_scene_of_one_value_or_of_none_is_drawn_without_a_warning(value: float) -> None:
    seen = scenery(np.full((3, 128, 128), value, np.float32), Window(0, 0, 128, 128))
    assert seen.picture.shape == (128, 128, 3)


@pytest.mark.parametrize("side", [64, 100, 512, 3000])
def test_boxes_lie_inside_their_tiles_and_numbers_on_the_picture_apart(side: int) -> None:
    window = Window(0, 0, side, side)
    walk = walk_over(window, (side // 3, side // 3))
    marks = marks_of(walk, window)
    assert [mark.number for mark in marks] == list(range(1, len(walk.looks) + 1))
    for mark, tile in zip(marks, walk.windows, strict=True):
        assert tile.col <= mark.left < mark.left + mark.width <= tile.right
        assert tile.row <= mark.top < mark.top + mark.height <= tile.bottom
        assert 0 <= mark.label_left <= side - mark.label_side
        assert 0 <= mark.label_top <= side - mark.label_side
    corners = [(mark.label_left, mark.label_top) for mark in marks]
    apart = [max(abs(a - c), abs(b - d)) for n, (a, b) in enumerate(corners) for c, d in corners[:n]]
    assert all(distance >= marks[0].label_side for distance in apart)


def test_every_depth_has_a_colour_that_its_neighbours_do_not_have() -> None:
    assert all(depth_colour(depth) != depth_colour(depth + 1) for depth in range(30))
    assert [resolution_text(level) for level in (0, 1, 3)] == [
        "native resolution",
        "1/2 resolution",
        "1/8 resolution",
    ]


@pytest.mark.parametrize("site", ["quarry/0003", "airfield/0000"])
def test_a_picture_is_a_png_and_the_same_each_time(site: str, results: Results, scenes: Scenes) -> None:
    png = picture(results, site, archive=scenes)
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape[1] > 2 * image.shape[0]
    assert picture(results, site, archive=scenes) == png


def test_a_walk_of_many_looks_has_a_picture_that_is_not_wider(results: Results, scenes: Scenes) -> None:
    walk = results.walks(["airfield/0000"])[0]
    many = tuple(replace(walk.looks[n % 5], order=n) for n in range(40))
    long = replace(walk, looks=many, windows=walk.windows * 8)

    class Long:
        record = results.record

        def walks(self, sites: list[str]) -> list[Walk]:
            return [long]

    image = cv2.imdecode(np.frombuffer(picture(Long(), "site", archive=scenes), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape[1] < 4 * image.shape[0]


def test_a_picture_of_a_site_without_answer_or_without_archive_is_refused(results: Results) -> None:
    with pytest.raises(QueryRefused, match="names site 'nobody', which has no answer"):
        picture(results, "nobody")
    with pytest.raises(InvalidArchive, match=r"demo/archive is not there"):
        picture(results, "quarry/0003")


def test_readers_of_memory_are_scenes(scenes: Scenes) -> None:
    reader: TileReader = scenes.reader("scene-0000")
    assert reader.spec.crs != UTM
