"""Places of looks: what features are told of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tnet_geo.grid import Tile, children
from tnet_geo.inference.walks import path_centre, position_in, usual_path
from tnet_geo.model import Places
from tnet_geo.model.position import CodedPosition, place_code
from tnet_geo.model.settings import PositionSettings
from tnet_geo.model.windows import Windows


def test_the_code_is_sines_then_cosines_of_row_column_and_depth_then_zeros() -> None:
    code = place_code(torch.tensor([2.0]), torch.tensor([5.0]), torch.tensor([1.0]), 320)[0]
    frequencies = [100 ** (-k / 52) for k in range(53)]
    expected = [wave(x * f) for x in (2, 5, 1) for wave in (math.sin, math.cos) for f in frequencies]
    np.testing.assert_allclose(code, [*expected, 0, 0], atol=1e-6)


@pytest.mark.parametrize("coordinates", ["lattice", "path"])
def test_whole_coordinates_come_back_from_those_between_minus_one_and_one(coordinates: str) -> None:
    root, depths = Tile(9, 3, 1), 9
    position = CodedPosition(24, PositionSettings(form="code", coordinates=coordinates), windows=3)
    chance = np.random.default_rng(2)
    tile, path = root, (0, 0)
    for depth in range(1, depths + 1):
        k = int(chance.integers(9))
        tile, path = children(tile)[k], (3 * path[0] + k // 3, 3 * path[1] + k % 3)
        places = Places(
            torch.tensor([depth]),
            torch.tensor([position_in(root, tile)]),
            torch.tensor([path_centre(path, depth)]),
        )
        lattice = [tile.row - (root.row << depth), tile.col - (root.col << depth)]
        assert position._cells(places)[0].tolist() == (lattice if coordinates == "lattice" else list(path))


def test_two_paths_to_one_tile_have_two_codes_and_the_lattice_has_one() -> None:
    # row 1 + 1 halves down, by (0, 2) and by (1, 0)
    one, other = (torch.tensor([path_centre((y, 0), 2)]) for y in (2, 3))
    place = torch.tensor([position_in(Tile(2, 0, 0), Tile(0, 2, 0))])
    for coordinates, same in (("lattice", True), ("path", False)):
        torch.manual_seed(0)
        settings = PositionSettings(form="code", coordinates=coordinates)
        position = CodedPosition(32, settings, windows=3)
        end, depth = torch.zeros(1, 32), torch.tensor([2])
        found = [position(end, Places(depth, place, path)) for path in (one, other)]
        assert torch.equal(*found) == same


def test_the_usual_path_leads_to_its_tile() -> None:
    root = Tile(4, 2, 3)
    for row in range(31):
        for col in (0, 7, 30):
            y, x = usual_path(root, Tile(0, (2 << 4) + row, (3 << 4) + col))
            tile = root
            for depth in range(3, -1, -1):
                tile = children(tile)[3 * (y // 3**depth % 3) + x // 3**depth % 3]
            assert tile == Tile(0, 32 + row, 48 + col)


@pytest.mark.parametrize(
    ("square", "count", "fraction", "expected"),
    [
        (896, 3, 0.5, Windows(448, 224, 0, 0)),
        (224, 5, 0.34375, Windows(77, 37, 1, 0)),
        (448, 5, 0.35, Windows(157, 73, 1, 0)),
        (224, 5, 0.35, Windows(78, 37, 1, 1)),
        (101, 3, 0.5, Windows(50, 26, 1, 0)),
    ],
)
def test_windows_lie_where_published_ones_do(
    square: int, count: int, fraction: float, expected: Windows
) -> None:
    assert Windows.of(square, count, fraction) == expected
