"""The laws of tiles against brute force: every pixel, every tile, every candidate is tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tnet_geo.errors import NoFinerLevel
from tnet_geo.grid import (
    Tile,
    Window,
    child,
    child_index,
    children,
    disjoint_tiles,
    footprint,
    last_level,
    level_shape,
    parents_of,
    root_of,
)

steady = settings(deadline=None, derandomize=True)

coarse_tiles = st.builds(Tile, st.integers(1, 12), st.integers(0, 10**6), st.integers(0, 10**6))
halves = st.integers(1, 9)
small_windows = st.builds(
    Window, st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 60)
)


def ground(tiles: list[Tile], half_px: int, side: int) -> np.ndarray:
    """How many of `tiles` cover each native pixel of a square of `side`, pixel by pixel."""
    count = np.zeros((side, side), int)
    for tile in tiles:
        box = footprint(tile, half_px)
        for row in range(box.row, min(box.bottom, side)):
            for col in range(box.col, min(box.right, side)):
                count[row, col] += 1
    return count


@steady
@given(coarse_tiles, st.integers(1, 200))
def test_nine_distinct_children_lie_inside_their_parent_and_touch_its_corners(
    parent: Tile, half_px: int
) -> None:
    outer = footprint(parent, half_px)
    boxes = [footprint(below, half_px) for below in children(parent)]
    assert len(set(boxes)) == 9
    assert all(outer.contains(box) for box in boxes)
    assert min(box.row for box in boxes) == outer.row
    assert max(box.bottom for box in boxes) == outer.bottom
    assert min(box.col for box in boxes) == outer.col
    assert max(box.right for box in boxes) == outer.right


@steady
@given(st.builds(Tile, st.integers(1, 3), st.integers(0, 1), st.integers(0, 1)), st.integers(1, 2))
def test_children_cover_every_pixel_of_their_parent_and_no_other(parent: Tile, half_px: int) -> None:
    side = footprint(parent, half_px).bottom + footprint(parent, half_px).right
    covered = ground(list(children(parent)), half_px, side) > 0
    np.testing.assert_array_equal(covered, ground([parent], half_px, side) > 0)


@steady
@given(coarse_tiles)
def test_children_come_row_by_row_and_know_their_index(parent: Tile) -> None:
    assert list(children(parent)) == sorted(children(parent))
    assert [child_index(parent, below) for below in children(parent)] == list(range(9))
    assert children(parent) == tuple(child(parent, k) for k in range(9))


def test_a_native_tile_has_no_children() -> None:
    with pytest.raises(NoFinerLevel, match="level 0, row 4, column 7"):
        children(Tile(0, 4, 7))
    with pytest.raises(NoFinerLevel):
        child(Tile(0, 4, 7), 3)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_tiles_below_a_root_number_the_square_of_two_to_the_depth_plus_one_less_one(depth: int) -> None:
    tiles = {Tile(6, 3, 2)}
    for _ in range(depth):
        tiles = {child for tile in tiles for child in children(tile)}
    assert len(tiles) == (2 ** (depth + 1) - 1) ** 2


@steady
@given(st.builds(Tile, st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)))
def test_parents_are_exactly_the_tiles_that_have_this_child(tile: Tile) -> None:
    coarser = [Tile(tile.level + 1, row, col) for row in range(7) for col in range(7)]
    assert list(parents_of(tile)) == [parent for parent in coarser if tile in children(parent)]


@steady
@given(small_windows, halves)
def test_the_root_is_the_finest_tile_that_contains_the_window_and_the_best_centred(
    window: Window, half_px: int
) -> None:
    for level in range(12):
        containing = [
            (abs(2 * (box.row + step) - (2 * window.row + window.height)), row, other, col)
            for step in [half_px << level]
            for row in range(window.row // step + 1)
            for col in range(window.col // step + 1)
            for box in [footprint(Tile(level, row, col), half_px)]
            for other in [abs(2 * (box.col + step) - (2 * window.col + window.width))]
            if box.contains(window)
        ]
        if containing:
            # Both axes are independent, so that the nearest centre is nearest along each of them.
            _, row, _, col = min(containing, key=lambda c: (c[0] ** 2 + c[2] ** 2, c[1], c[3]))
            assert root_of(window, half_px) == Tile(level, row, col)
            return
    pytest.fail("no tile contains the window")


@steady
@given(st.integers(1, 400), st.integers(1, 400), halves)
def test_the_last_level_is_the_first_at_which_the_scene_fits_into_the_first_tile(
    rows: int, cols: int, half_px: int
) -> None:
    last = last_level((rows, cols), half_px)
    scene = Window(0, 0, rows, cols)
    fits = [footprint(Tile(level, 0, 0), half_px).contains(scene) for level in range(last + 1)]
    assert fits == [False] * last + [True]
    assert root_of(scene, half_px).level <= last


@steady
@given(st.integers(1, 300), st.integers(0, 8))
def test_level_shapes_are_those_of_halving_again_and_again(side: int, level: int) -> None:
    halved = side
    for _ in range(level):
        halved = (halved + 1) // 2
    assert level_shape((side, 1), level) == (halved, 1)


@steady
@given(small_windows, st.integers(1, 5))
def test_every_native_pixel_of_a_window_is_covered_at_every_level_below_its_root(
    window: Window, half_px: int
) -> None:
    tiles = {root_of(window, half_px)}
    side = max(window.bottom, window.right)
    inside = np.zeros((side, side), bool)
    inside[window.row : window.bottom, window.col : window.right] = True
    while True:
        covered = np.zeros((side, side), bool)
        for tile in tiles:
            box = footprint(tile, half_px)
            covered[box.row : box.bottom, box.col : box.right] = True
        assert covered[inside].all()
        if min(tiles).level == 0:
            break
        tiles = {
            child for tile in tiles for child in children(tile) if footprint(child, half_px).touches(window)
        }


@steady
@given(small_windows, st.integers(0, 3), st.integers(1, 5))
def test_disjoint_tiles_cover_every_pixel_of_a_window_once(window: Window, level: int, half_px: int) -> None:
    count = ground(list(disjoint_tiles(window, level, half_px)), half_px, 130)
    assert (count[window.row : window.bottom, window.col : window.right] == 1).all()
    assert count.max() == 1


@steady
@given(small_windows, small_windows)
def test_windows_touch_exactly_when_they_share_a_pixel(one: Window, other: Window) -> None:
    def pixels(window: Window) -> set[tuple[int, int]]:
        rows, cols = range(window.row, window.bottom), range(window.col, window.right)
        return {(row, col) for row in rows for col in cols}

    assert one.touches(other) == bool(pixels(one) & pixels(other))
    assert one.contains(other) == (pixels(other) <= pixels(one))
