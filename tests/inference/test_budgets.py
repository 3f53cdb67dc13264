"""Every budget against a plain loop, and what must hold of all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.inference.plain_walks import (
    BATCH,
    CODED,
    TEMPERATURES,
    TILE_BYTES,
    CountedReader,
    PlainWalk,
    Ticks,
    network,
    sites,
    tiles_of,
    walked,
)
from tnet_geo.inference import Budget, SiteTask, WalkResult
from tnet_geo.model import WalkSettings


def assert_same(result: WalkResult, plain: PlainWalk) -> None:
    """The same looks in the same order, the same reasons, and the same bits."""
    assert tiles_of(result) == plain.tiles
    assert result.walk.ended_by == plain.ended_by
    assert result.bytes_decoded == plain.bytes
    assert [wish.path for wish in result.walk.looked] == [look.path for look in plain.looks]
    found = [wish.path_log_probability for wish in result.walk.looked]
    assert found == pytest.approx([look.log_probability for look in plain.looks], rel=1e-9, abs=1e-9)
    assert torch.equal(result.walk.features, torch.stack([look.features for look in plain.looks]))
    assert torch.equal(result.output.logits[0], plain.logits)


NO_BUDGET = Budget()
WALKS: dict[str, tuple[WalkSettings, Budget, dict[str, Any], set[str]]] = {
    "keep": (WalkSettings(keep=(2, 1, 1)), NO_BUDGET, {}, {"complete"}),
    "root": (WalkSettings(keep=()), NO_BUDGET, {}, {"complete"}),
    "wide": (WalkSettings(keep=(3, 2)), NO_BUDGET, {"aggregation": "mean"}, {"complete"}),
    "published": (
        WalkSettings(keep=(4, 3), duplicates="twice", order="window"),
        NO_BUDGET,
        CODED,
        {"complete"},
    ),
    "one tile": (WalkSettings(), Budget(tiles=1), {}, {"tiles"}),
    "few tiles": (WalkSettings(), Budget(tiles=5), {"aggregation": "ltpa"}, {"tiles"}),
    "tiles": (WalkSettings(), Budget(tiles=17), {}, {"tiles", "complete"}),
    "tiles told of parents": (WalkSettings(), Budget(tiles=12), CODED, {"tiles"}),
    "stop": (WalkSettings(keep=(3, 2)), Budget(stop_at=0.65), {}, {"stop_at", "complete"}),
    "tiles until sure": (WalkSettings(), Budget(tiles=24, stop_at=0.7), {}, {"stop_at", "tiles"}),
    "bytes": (WalkSettings(keep=(3, 2)), Budget(bytes=5 * TILE_BYTES), {}, {"bytes"}),
    "bytes of shared tiles": (
        WalkSettings(keep=(4, 3), duplicates="twice"),
        Budget(bytes=9 * TILE_BYTES),
        CODED,
        {"bytes", "complete"},
    ),
    "tiles and bytes": (WalkSettings(), Budget(tiles=20, bytes=11 * TILE_BYTES + 5), {}, {"bytes"}),
    "dense": (WalkSettings(policy="dense"), Budget(bytes=9 * TILE_BYTES), {}, {"bytes", "complete"}),
    "everything": (
        WalkSettings(),
        Budget(tiles=9, bytes=8 * TILE_BYTES, stop_at=0.65, deadline=1e9),
        {},
        {"tiles", "bytes", "stop_at"},
    ),
}
"""How it is walked, and every way in which some of seven sites then end."""


@pytest.mark.parametrize("name", WALKS)
def test_the_engine_walks_as_a_plain_loop_does_bit_by_bit(name: str) -> None:
    walk, budget, how, ends = WALKS[name]
    looker, tasks = network(11, **how), sites(7)
    plain = PlainWalk(looker, walk, budget, TEMPERATURES, BATCH)
    results = walked(looker, walk, budget, tasks)
    for task, result in zip(tasks, results, strict=True):
        assert_same(result, plain(task))
    assert {result.walk.ended_by for result in results} == ends  # else it could not tell a budget from none


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WALKS)
def test_the_engine_walks_as_a_plain_loop_does_over_many_networks_and_sites(name: str, seed: int) -> None:
    walk, budget, how, _ = WALKS[name]
    looker, tasks = network(100 + seed, **how), sites(12 + seed, side=160)
    plain = PlainWalk(looker, walk, budget, TEMPERATURES, BATCH)
    for task, result in zip(tasks, walked(looker, walk, budget, tasks), strict=True):
        assert_same(result, plain(task))


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [1, 2, 3, 9, 50, 128, 200])
def test_best_first_equals_a_plain_loop_up_to_two_hundred_tiles(tiles: int) -> None:
    looker, tasks = network(5), sites(5, side=256)
    plain = PlainWalk(looker, WalkSettings(), Budget(tiles=tiles), TEMPERATURES, BATCH)
    for task, result in zip(tasks, walked(looker, WalkSettings(), Budget(tiles=tiles), tasks), strict=True):
        assert_same(result, plain(task))


@pytest.mark.parametrize(
    ("walk", "budget"),
    [
        (WalkSettings(keep=(2, 1)), Budget(deadline=17)),
        (WalkSettings(), Budget(tiles=9, deadline=23)),
        (WalkSettings(), Budget(tiles=9, deadline=0)),
    ],
)
def test_after_the_deadline_walks_go_no_further_and_every_site_has_its_root(
    walk: WalkSettings, budget: Budget
) -> None:
    looker, clocks, tasks = network(11), (Ticks(), Ticks()), sites(9)
    plain = PlainWalk(looker, walk, budget, TEMPERATURES, BATCH, clock=clocks[0])
    expected = []
    for task in tasks:
        reader = CountedReader(task.reader, clocks[0])
        plain(SiteTask(task.site_id, reader, task.window))
        expected.append((plain.tiles, plain.ended_by, plain.logits))
    timed = [SiteTask(task.site_id, CountedReader(task.reader, clocks[1]), task.window) for task in tasks]
    # one after another, as the plain loop does: the clock then stands alike at every look
    results = walked(looker, walk, budget, timed, in_flight=1, clock=clocks[1])
    for (tiles, ended_by, logits), result in zip(expected, results, strict=True):
        assert (tiles_of(result), result.walk.ended_by) == (tiles, ended_by)
        assert torch.equal(result.output.logits[0], logits)
    assert {"deadline"} < {result.walk.ended_by for result in results} or budget.deadline == 0
    assert all(result.walk.looked[0].depth == 0 for result in results)
