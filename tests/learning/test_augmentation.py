"""One draw per site: all tiles of a walk agree, and children stay who they are."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rasters import random_pixels
from tnet_geo.grid import Tile, children
from tnet_geo.inference import position_in
from tnet_geo.learning.augmentation import Augmentation, SiteAugmentation
from tnet_geo.learning.settings import AugmentationSettings
from tnet_geo.pyramid import MemoryReader

TURNS_ONLY = AugmentationSettings(brightness=0, contrast=0)


def all_turns() -> list[SiteAugmentation]:
    """The eight different turns of the square."""
    drawn = [Augmentation(TURNS_ONLY, "uint8").draw(seed) for seed in range(80)]
    return list({tuple(one.order): one for one in drawn}.values())


def test_there_are_eight_turns() -> None:
    assert len(all_turns()) == 8


@pytest.mark.parametrize("turn", all_turns(), ids=lambda turn: "".join(map(str, turn.order)))
def test_the_child_at_a_turned_place_shows_the_turned_pixels_of_the_child_that_order_names(
    turn: SiteAugmentation,
) -> None:
    # The finer level is the parent's pixels doubled, so that a child is a crop of its parent, enlarged.
    coarse = random_pixels(1, (32, 32))
    reader = MemoryReader.of(coarse.repeat(2, axis=1).repeat(2, axis=2), half_px=16)
    parent = Tile(1, 0, 0)
    turned_parent = turn.pixels(reader.read([parent]).pixels)[0]
    turned_children = turn.pixels(reader.read(children(parent)).pixels)
    for place in range(9):
        row, col = place // 3 * 8, place % 3 * 8
        crop = turned_parent[:, row : row + 16, col : col + 16].repeat(2, axis=1).repeat(2, axis=2)
        np.testing.assert_array_equal(crop, turned_children[turn.order[place]])


@pytest.mark.parametrize("turn", all_turns(), ids=lambda turn: "".join(map(str, turn.order)))
def test_positions_turn_along_with_the_pixels(turn: SiteAugmentation) -> None:
    root = Tile(1, 0, 0)
    places = np.array([position_in(root, child) for child in children(root)], np.float32)
    np.testing.assert_allclose(places @ turn.matrix.T, places[turn.inverse], atol=1e-6)


def test_a_draw_follows_its_seed_and_replays_the_same_on_any_number_of_tiles() -> None:
    augmentation = Augmentation(AugmentationSettings(), "uint8")
    tiles = random_pixels(2, (32, 32), bands=300).reshape(100, 3, 32, 32)
    draw, again, other = (augmentation.draw(seed) for seed in (5, 5, 6))
    together = draw.pixels(tiles)
    np.testing.assert_array_equal(together, again.pixels(tiles))
    np.testing.assert_array_equal(together[70:72], draw.pixels(tiles[70:72]))
    assert (together != other.pixels(tiles)).any()


def test_validity_turns_but_keeps_its_values_and_colours_of_16_bit_pixels_are_left_alone() -> None:
    augmentation = Augmentation(AugmentationSettings(turns=False), "uint16")
    tiles = random_pixels(3, (32, 32), dtype="uint16")[None]
    np.testing.assert_array_equal(augmentation.draw(0).pixels(tiles), tiles)
    validity = random_pixels(4, (32, 32), bands=1)
    turned = Augmentation(AugmentationSettings(), "uint8").draw(1).validity(validity)
    np.testing.assert_array_equal(np.sort(turned.ravel()), np.sort(validity.ravel()))
