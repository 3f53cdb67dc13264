"""Location heads: what moves their scores, and what they are told."""

from __future__ import annotations

import pytest
import torch

from tnet_geo.errors import InvalidRunFile
from tnet_geo.model import NetworkSettings, Places, TraversalNetwork
from tnet_geo.model.location import CellHead, child_pooling, location_of
from tnet_geo.model.settings import LocationSettings

CHANNELS, FEATURES = 12, 20
PUBLISHED = {"form": "cells", "cells": (2, 6, 10), "scores": "unit", "temperature": "fixed"}


def head(**settings: object) -> torch.nn.Module:
    torch.manual_seed(3)
    return location_of(LocationSettings.model_validate(settings), CHANNELS, FEATURES, depths=3).eval()


def inputs(n: int = 4) -> tuple[torch.Tensor, torch.Tensor, Places, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    tap = torch.randn(n, CHANNELS, 14, 14, generator=generator)
    end, parent = (torch.randn(n, FEATURES, generator=generator) for _ in range(2))
    centre = torch.rand(n, 2, generator=generator) * 2 - 1
    return tap, end, Places(torch.arange(n) % 3, centre, centre), parent


@pytest.mark.parametrize("cells", [4, 8, 14, 7])
def test_every_child_is_scored_by_the_cells_of_its_footprint(cells: int) -> None:
    fine = 28  # a multiple of four times every side: whole cells there are parts of cells here
    weights = child_pooling(cells).reshape(9, cells, cells)
    for k in range(9):
        box = torch.zeros(4 * fine, 4 * fine)
        row, col = k // 3 * fine, k % 3 * fine
        box[row : row + 2 * fine, col : col + 2 * fine] = 1
        side = 4 * fine // cells
        share = box.reshape(cells, side, cells, side).sum(dim=(1, 3))
        torch.testing.assert_close(weights[k], share / share.sum())


@pytest.mark.parametrize("form", [{"form": "map"}, PUBLISHED, PUBLISHED | {"form": "context"}])
def test_every_head_gives_nine_logits_that_its_tap_decides(form: dict[str, object]) -> None:
    tap, end, places, _ = inputs()
    network = head(**form)
    logits = network(tap, end, places, None)
    assert logits.shape == (4, 9)
    assert not torch.equal(logits, network(tap.flip(2), end, places, None))


@pytest.mark.parametrize("form", [{"form": "map"}, PUBLISHED])
@pytest.mark.parametrize("told", ["position", "parent"])
def test_what_a_head_is_told_begins_without_effect_and_can_be_learned(
    form: dict[str, object], told: str
) -> None:
    tap, end, places, parent = inputs()
    plain, network = head(**form), head(**form, **{told: True})
    network.load_state_dict(plain.state_dict(), strict=False)
    expected = plain(tap, end, places, None)
    torch.testing.assert_close(network(tap, end, places, parent), expected)
    layer = getattr(network.told, told)
    torch.nn.init.normal_(layer.weight)
    assert not torch.allclose(network(tap, end, places, parent), expected)


def test_unit_scores_bound_how_sure_a_head_can_be() -> None:
    tap, end, places, _ = inputs(64)
    probabilities = torch.softmax(head(**PUBLISHED)(tap, end, places, None), dim=1)
    assert probabilities.max() <= 0.2654
    assert probabilities.min() >= 0.0414


def test_a_learned_temperature_starts_as_published_and_lifts_that_bound() -> None:
    tap, end, places, _ = inputs(64)
    plain, learned = head(**PUBLISHED), head(**(PUBLISHED | {"temperature": "learned"}))
    learned.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(learned(tap, end, places, None), plain(tap, end, places, None))
    torch.nn.init.constant_(learned.sharpness.scale, 20.0)
    assert torch.softmax(learned(tap, end, places, None), dim=1).max() > 0.5


def test_scores_that_are_all_zero_are_no_reason_for_nan() -> None:
    tap, end, places, _ = inputs()
    network = head(**PUBLISHED)
    assert isinstance(network, CellHead)
    torch.nn.init.zeros_(network.score.weight)
    torch.nn.init.zeros_(network.score.bias)
    assert torch.equal(network(tap, end, places, None), torch.zeros(4, 9))


def test_five_by_five_windows_have_twenty_five_logits() -> None:
    tap, end, places, _ = inputs()
    network = head(form="cells", cells=(2, 4, 6, 8, 10), fraction=0.35)
    assert network(tap, end, places, None).shape == (4, 25)


def test_cells_and_form_belong_together() -> None:
    with pytest.raises(ValueError, match="form 'cells' needs cells"):
        LocationSettings(form="cells")
    with pytest.raises(ValueError, match="form 'map' takes no cells"):
        LocationSettings(cells=(1, 2, 3))


def test_cells_beyond_the_tap_are_refused_when_the_network_is_made() -> None:
    location = LocationSettings(form="cells", cells=(2, 6, 10))
    with pytest.raises(InvalidRunFile, match=r"names cell 10 of a tap of 8 x 8 cells"):
        TraversalNetwork(NetworkSettings(base_px=64, classes=2, depths=2, location=location))
