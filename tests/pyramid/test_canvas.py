"""The canvas: each site, with the published context, as a square; resampled as the published network was."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from tests.packs import scattered
from tests.rasters import random_pixels
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.imagery.context import with_context
from tnet_geo.pyramid import ArchiveSettings, canvas
from tnet_geo.pyramid.canvas import Block, canvas_cut, canvas_site, fit, fitted_transform

steady = settings(deadline=None, derandomize=True, max_examples=60)
shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))
seeds = st.integers(0, 2**32 - 1)


def reads(pixels: NDArray[Any], validity: NDArray[np.uint8] | None = None) -> Callable[[Window], Block]:
    """What reads windows of a picture in memory."""

    def read(window: Window) -> Block:
        there = slice(window.row, window.bottom), slice(window.col, window.right)
        return pixels[:, *there], None if validity is None else validity[there]

    return read


def whole(pixels: NDArray[Any]) -> Window:
    return Window(0, 0, *pixels.shape[1:])


# --- context ---


@pytest.mark.parametrize(
    ("share", "factor"),
    [(0.9, 0.15), (0.5, 0.15), (0.4, 0.2), (0.3, 0.3), (0.25, 0.5), (0.2, 0.5), (0.1, 1), (0.05, 2)],
)
def test_a_box_grows_by_the_published_share_of_itself(share: float, factor: float) -> None:
    side = round(1000 * share)
    more = int(side * factor / 2)
    start = (1000 - side) // 2
    grown = with_context(Window(start, 300, side, 1), (1000, 1001))
    assert grown is not None
    assert grown.row == max(0, start - more)
    assert grown.bottom == min(1000, start + side + more)
    assert (grown.col, grown.right) == (299, 302)  # its width of one pixel grows by itself at both ends


def test_a_box_at_the_edge_is_cut_off_there() -> None:
    assert with_context(Window(0, 90, 20, 30), (100, 100)) == Window(0, 86, 25, 14)
    assert with_context(Window(120, 0, 30, 30), (100, 100)) is None
    assert canvas_cut(None, (50, 70)) == Window(0, 0, 50, 70)


@steady
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 399), st.integers(0, 399), st.data())
def test_context_keeps_the_box_and_stays_on_the_picture(
    rows: int, cols: int, row: int, col: int, data: st.DataObject
) -> None:
    row, col = row % rows, col % cols
    box = Window(row, col, data.draw(st.integers(1, rows - row)), data.draw(st.integers(1, cols - col)))
    grown = with_context(box, (rows, cols))
    assert grown is not None
    assert grown.contains(box)
    assert Window(0, 0, rows, cols).contains(grown)


# --- resampling ---


def test_a_picture_of_the_canvas_own_size_stays_as_it_is() -> None:
    pixels, mask = random_pixels(1, (48, 48), 4, "uint16"), scattered(2, (48, 48))
    fitted, validity = fit(reads(pixels, mask), whole(pixels), 48)
    np.testing.assert_array_equal(fitted, pixels)
    np.testing.assert_array_equal(validity, mask)


@steady
@given(seeds, shapes, st.integers(46, 60), st.sampled_from(["uint8", "uint16", "int16", "float32"]))
def test_a_picture_below_twice_its_side_is_interpolated_as_published(
    seed: int, shape: tuple[int, int], side: int, dtype: str
) -> None:
    pixels = random_pixels(seed, shape, 2, dtype)
    fitted, validity = fit(reads(pixels), whole(pixels), side)
    assert validity is None
    tensor = torch.from_numpy(pixels.astype(np.float64))[None]
    expected = torch.nn.functional.interpolate(
        tensor, size=(side, side), mode="bilinear", align_corners=False, antialias=False
    )[0].numpy()
    tolerance = 1e-3 if dtype == "float32" else 0.5 + 0.02  # half a grey level by rounding
    np.testing.assert_allclose(fitted, expected, atol=tolerance, rtol=1e-6)


def means(pixels: NDArray[Any], down: int, across: int) -> NDArray[Any]:
    """Means of blocks; those at the edges have fewer pixels."""
    rows, cols = pixels.shape
    return np.array(
        [
            [pixels[row : row + down, col : col + across].mean() for col in range(0, cols, across)]
            for row in range(0, rows, down)
        ]
    )


def interpolated(cells: NDArray[Any], steps: tuple[float, float], side: int) -> NDArray[Any]:
    """Pixel by pixel: the published interpolation on a lattice of cells `steps` apart."""
    result = np.empty((side, side))
    for i in range(side):
        for j in range(side):
            y, x = (
                min(max((at + 0.5) * step - 0.5, 0), count - 1)
                for at, step, count in zip((i, j), steps, cells.shape, strict=True)
            )
            top, left = math.floor(y), math.floor(x)
            low, far = min(top + 1, cells.shape[0] - 1), min(left + 1, cells.shape[1] - 1)
            upper = cells[top, left] * (1 - x + left) + cells[top, far] * (x - left)
            lower = cells[low, left] * (1 - x + left) + cells[low, far] * (x - left)
            result[i, j] = upper * (1 - y + top) + lower * (y - top)
    return result


@steady
@given(seeds, shapes, st.integers(3, 20))
def test_a_larger_picture_is_reduced_by_powers_of_two_first(
    seed: int, shape: tuple[int, int], side: int
) -> None:
    pixels = random_pixels(seed, shape, 1)
    down, across = (2 ** max(0, math.floor(math.log2(pixels_ / side))) for pixels_ in shape)
    cells = means(pixels[0].astype(np.float64), down, across)
    expected = interpolated(cells, (shape[0] / (down * side), shape[1] / (across * side)), side)
    fitted, _ = fit(reads(pixels), whole(pixels), side)
    np.testing.assert_allclose(fitted[0], expected, atol=0.51)


@steady
@given(seeds, shapes, st.integers(2, 40), st.sampled_from(["uint8", "int32", "float32"]))
def test_what_does_not_count_changes_nothing_that_does(
    seed: int, shape: tuple[int, int], side: int, dtype: str
) -> None:
    pixels, mask = random_pixels(seed, shape, 2, dtype), scattered(seed, shape)
    other = pixels.copy()
    other[:, mask == 0] = random_pixels(seed + 1, shape, 2, dtype)[:, mask == 0]
    fitted, validity = fit(reads(pixels, mask), whole(pixels), side)
    again, same = fit(reads(other, mask), whole(pixels), side)
    assert validity is not None
    np.testing.assert_array_equal(validity, same)
    np.testing.assert_array_equal(fitted[:, validity > 0], again[:, validity > 0])


@steady
@given(seeds, shapes, st.integers(2, 40), st.integers(1, 2000))
def test_the_strips_that_a_picture_is_read_in_make_no_difference(
    seed: int, shape: tuple[int, int], side: int, strip_bytes: int
) -> None:
    pixels, mask = random_pixels(seed, shape, 2), scattered(seed, shape)
    mask[: shape[0] // 2] = 255  # strips without and with invalid pixels
    expected, validity = fit(reads(pixels, mask), whole(pixels), side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "STRIP_BYTES", strip_bytes)
        fitted, same = fit(reads(pixels, mask), whole(pixels), side, pixel_bytes=2)
    np.testing.assert_array_equal(fitted, expected)
    np.testing.assert_array_equal(validity, same)


def test_strips_never_ask_for_more_than_they_must() -> None:
    asked: list[Window] = []
    pixels = random_pixels(3, (4000, 50), 1)

    def read(window: Window) -> Block:
        asked.append(window)
        return reads(pixels)(window)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "STRIP_BYTES", 5000)
        fit(read, Window(10, 5, 3980, 40), 16, pixel_bytes=1)
    assert [window.row for window in asked[1:]] == [window.bottom for window in asked[:-1]]
    assert (asked[0].row, asked[-1].bottom) == (10, 3990)
    assert max(window.height * window.width for window in asked) <= 128 * 40  # one row of cells


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_nodata_and_nan_are_no_values(dtype: str) -> None:
    pixels = np.full((1, 40, 40), 100, dtype)
    pixels[0, :20] = np.nan if dtype == "float32" else 7
    fitted, validity = fit(reads(pixels), whole(pixels), 10, nodata=None if dtype == "float32" else 7.0)
    assert validity is None
    np.testing.assert_array_equal(fitted[0, 5:], np.full((5, 10), 100, dtype))
    np.testing.assert_array_equal(fitted[0, :5], pixels[0, :5, :10])  # handed on


def test_extremes_of_a_type_do_not_wrap() -> None:
    for dtype in ("uint8", "int16", "uint32", "int32"):
        limits = np.iinfo(dtype)
        pixels = np.full((1, 33, 21), limits.max, dtype)
        pixels[0, :16] = limits.min
        fitted, _ = fit(reads(pixels), whole(pixels), 64)
        assert (int(fitted[0, 0, 0]), int(fitted[0, -1, -1])) == (limits.min, limits.max)
        assert (np.diff(fitted[0].astype(np.int64), axis=0) >= 0).all()


@steady
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 90), st.integers(1, 90), st.integers(1, 64))
def test_the_square_lies_where_its_cut_does(row: int, col: int, height: int, width: int, side: int) -> None:
    transform = (2.0, 0.5, 1000.0, 0.25, -2.0, 500.0)
    found = fitted_transform(transform, Window(row, col, height, width), side)
    assert found is not None

    def ground(affine: tuple[float, ...], y: float, x: float) -> tuple[float, float]:
        a, b, c, d, e, f = affine
        return a * x + b * y + c, d * x + e * y + f

    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        expected = ground(transform, row + i * height, col + j * width)
        assert ground(found, i * side, j * side) == pytest.approx(expected)


# --- names and settings ---


def test_every_site_is_a_scene_of_its_own_with_a_plain_name() -> None:
    names = ["a/b", "a_b", "a b", "../x", ".hidden", "é", "", "x" * 300, "a/b "]
    sites = [canvas_site(Site(name, "/s.tif", "s", Window(1, 2, 3, 4))) for name in names]
    ids = [site.scene_id for site in sites]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", scene_id, re.ASCII) for scene_id in ids)
    assert max(map(len, ids)) < 100
    assert all(site.window is None for site in sites)
    assert [site.site_id for site in sites] == names


@pytest.mark.parametrize("wrong", ["fit", "fit:", "fit:8", "fit:100000", "fit:0896", "fill:896", "896"])
def test_an_impossible_canvas_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="a canvas is 'native' or 'fit:N' with a side N of 16 to 4096"):
        ArchiveSettings(canvas=wrong)


def test_a_canvas_is_packed_and_its_side_known() -> None:
    chosen = ArchiveSettings(canvas="fit:896", store="scenes")
    assert (chosen.store, chosen.canvas_px) == ("packs", 896)
    assert ArchiveSettings.model_validate_json(chosen.model_dump_json()) == chosen
    assert ArchiveSettings().canvas_px is None
