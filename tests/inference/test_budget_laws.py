"""What holds of walks under every budget, whatever the sites, the order of reads and the company."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archives import TinyArchive
from tests.inference.plain_walks import (
    HALF_PX,
    TEMPERATURES,
    TILE_BYTES,
    CountedReader,
    LateReader,
    PlainWalk,
    Ticks,
    network,
    scene,
    sites,
    tiles_of,
    walked,
)
from tests.networks import small_bundle, small_network
from tnet_geo.errors import UsageError
from tnet_geo.grid import Tile, Window, children, footprint, last_level, level_shape
from tnet_geo.inference import Budget, Classifier, SiteTask, WalkResult, most_looks
from tnet_geo.inference.budgets import walk_with
from tnet_geo.model import WalkSettings
from tnet_geo.pyramid import RasterSpec, ReadMeter, TileBatch
from tnet_geo.trail import Answer

steady = settings(deadline=None, derandomize=True, max_examples=12)
LOOKER = network(21)
SCENES = [scene(1, 128), scene(2, 100, valid=0.5), scene(3, 120)]

some_sites = st.builds(
    lambda n, row, col, height, width: SiteTask(
        f"{n} {row} {col}", SCENES[n], Window(row, col, height, width)
    ),
    st.integers(0, 2),
    st.integers(0, 49),
    st.integers(0, 49),
    st.integers(1, 50),
    st.integers(1, 50),
)
some_keeps = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
some_limits = st.builds(
    Budget,
    tiles=st.none() | st.integers(1, 30),
    stop_at=st.none() | st.floats(0.34, 0.99),
    bytes=st.none() | st.integers(1, 30 * TILE_BYTES),
)


def one(site: SiteTask, walk: WalkSettings, budget: Budget) -> WalkResult:
    (result,) = walked(LOOKER, walk, budget, [site])
    return result


@steady
@given(some_sites, some_keeps, some_limits)
def test_no_walk_costs_more_than_its_budget_and_says_truly_why_it_ended(
    site: SiteTask, keep: tuple[int, ...], budget: Budget
) -> None:
    walk = WalkSettings(keep=keep)
    result = one(site, walk, budget)
    looked, reason = tiles_of(result), result.walk.ended_by
    assert len(set(looked)) == len(looked) <= (budget.tiles or len(looked))
    assert len(looked) <= most_looks(site.window, HALF_PX, walk, budget)
    assert len(looked) == 1 or result.bytes_decoded <= (budget.bytes or result.bytes_decoded)
    assert result.bytes_decoded == sum(site.reader.spec.tile_bytes(tile) for tile in looked)
    further = looks_left(result, site, walk, budget)
    if reason == "complete":
        assert not further
    elif reason == "tiles":
        assert len(looked) == budget.tiles
        assert further
    elif reason == "bytes":
        assert budget.bytes is not None
        assert further
        sizes = [site.reader.spec.tile_bytes(tile) for tile in further]
        assert max(sizes) + result.bytes_decoded > budget.bytes
    else:
        assert reason == "stop_at"
        z = result.output.logits[0].double() / TEMPERATURES[min(len(looked), len(TEMPERATURES)) - 1]
        assert torch.softmax(z, dim=0).max() >= (budget.stop_at or 2)
        assert further


def looks_left(result: WalkResult, site: SiteTask, walk: WalkSettings, budget: Budget) -> set[Tile]:
    """Tiles that the walk would look at as well if no limit ended it."""
    free = Budget(tiles=10_000) if budget.tiles is not None else Budget()
    return set(PlainWalk(LOOKER, walk, free, TEMPERATURES)(site).tiles) - set(tiles_of(result))


@steady
@given(some_sites, st.integers(1, 20), st.integers(1, 20))
def test_a_larger_budget_of_tiles_only_adds_to_the_trail(site: SiteTask, some: int, more: int) -> None:
    short, long = (one(site, WalkSettings(), Budget(tiles=n)) for n in (some, some + more))
    looked = tiles_of(short)
    assert tiles_of(long)[: len(looked)] == looked
    assert torch.equal(long.walk.features[: len(looked)], short.walk.features)
    assert len(looked) == some or short.walk.ended_by == "complete"


@steady
@given(some_sites, some_keeps, st.sampled_from([0.4, 0.6, 0.8]), st.sampled_from([None, 12]))
def test_a_walk_that_stops_early_begins_as_the_whole_walk_does(
    site: SiteTask, keep: tuple[int, ...], stop_at: float, tiles: int | None
) -> None:
    walk = WalkSettings(keep=keep)
    stopped = one(site, walk, Budget(tiles=tiles, stop_at=stop_at))
    whole = one(site, walk, Budget(tiles=tiles))
    looked = tiles_of(stopped)
    assert tiles_of(whole)[: len(looked)] == looked
    assert (len(looked) < len(tiles_of(whole))) == (stopped.walk.ended_by == "stop_at")


@steady
@given(some_sites)
def test_tiles_without_an_end_are_all_tiles_with_ground_each_looked_at_once(site: SiteTask) -> None:
    result = one(site, WalkSettings(), Budget(tiles=10_000))
    every = {result.walk.root}
    for _ in range(result.walk.root.level):
        every |= {
            child
            for tile in every
            if tile.level
            for child in children(tile)
            if footprint(child, HALF_PX).touches(site.window) and valid_below(site, tile, child)
        }
    assert set(tiles_of(result)) == every
    assert len(tiles_of(result)) == len(every)
    assert result.walk.ended_by == "complete"


def valid_below(site: SiteTask, tile: Tile, child: Tile) -> bool:
    k = children(tile).index(child)
    validity = site.reader.read([tile]).validity[0]
    rows, cols = (slice(n * HALF_PX // 2, n * HALF_PX // 2 + HALF_PX) for n in divmod(k, 3))
    return bool(validity[rows, cols].any())


def test_equally_probable_paths_are_walked_in_the_order_in_which_they_were_found() -> None:
    looker = network(4)
    with torch.no_grad():
        for weight in looker.location.parameters():
            weight.zero_()
    site = SiteTask("site", SCENES[0], Window(0, 0, 128, 128))
    (result,) = walked(looker, WalkSettings(), Budget(tiles=30), [site])
    root, *below = tiles_of(result)
    assert below[:9] == list(children(root))
    order = [tile for parent in below[:3] for tile in children(parent)]
    assert below[9:] == list(dict.fromkeys(order))[:20]


BUDGETS = (
    (WalkSettings(keep=(3, 2)), Budget(stop_at=0.65)),
    (WalkSettings(), Budget(tiles=9)),
    (WalkSettings(keep=(2, 1)), Budget(bytes=4 * TILE_BYTES)),
)


@pytest.mark.parametrize(("walk", "budget"), BUDGETS)
def test_answers_are_the_same_bits_however_many_walks_are_under_way_and_whatever_is_read_first(
    walk: WalkSettings, budget: Budget
) -> None:
    tasks = sites(13, side=64)
    usual = walked(LOOKER, walk, budget, tasks, in_flight=1)
    for in_flight in (7, 64):
        late = [
            SiteTask(site.site_id, LateReader(site.reader, n), site.window) for n, site in enumerate(tasks)
        ]
        for one, other in zip(usual, walked(LOOKER, walk, budget, late, in_flight=in_flight), strict=True):
            assert tiles_of(one) == tiles_of(other)
            assert one.walk.ended_by == other.walk.ended_by
            assert torch.equal(one.output.logits, other.output.logits)
            assert torch.equal(one.output.shares, other.output.shares)


@pytest.mark.parametrize("batch_looks", [1, 3, 16])
def test_another_batch_shape_looks_at_the_same_tiles_and_answers_alike(batch_looks: int) -> None:
    walk, budget = WalkSettings(), Budget(tiles=9)
    tasks = sites(6, side=64)
    usual = walked(LOOKER, walk, budget, tasks)
    for one, other in zip(usual, walked(LOOKER, walk, budget, tasks, batch_looks=batch_looks), strict=True):
        assert tiles_of(one) == tiles_of(other)
        torch.testing.assert_close(one.output.logits, other.output.logits, atol=2e-5, rtol=1e-5)


def test_whatever_is_under_way_at_the_deadline_ends_with_what_it_has_seen() -> None:
    walk, tasks, clock = WalkSettings(keep=(3, 2)), sites(13, side=64), Ticks()
    timed = [SiteTask(site.site_id, CountedReader(site.reader, clock), site.window) for site in tasks]
    results = walked(LOOKER, walk, Budget(deadline=40), timed, in_flight=5, clock=clock)
    for result, whole in zip(results, walked(LOOKER, walk, Budget(), tasks), strict=True):
        looked, depths = tiles_of(result), {wish.depth for wish in result.walk.looked}
        assert looked == tiles_of(whole)[: len(looked)]
        assert len(looked) == sum(wish.depth in depths for wish in whole.walk.looked)
        assert (result.walk.ended_by == "deadline") == (looked != tiles_of(whole))
    assert len({len(result.walk.looked) for result in results}) > 2
    assert len(results[-1].walk.looked) == 1


def test_answers_say_how_sure_walks_of_their_order_and_length_are(tiny: TinyArchive) -> None:
    plain = small_bundle(2)
    lists = {"temperature": 0.3, "temperatures": (0.8, 0.6, 0.3)}
    best_first = {"temperatures_best_first": (0.9, 0.5, 0.2)}
    bundle = replace(plain, facts=plain.facts.model_copy(update=lists | best_first))
    found = tiny.manifest.select("test").sites
    tile = 32 * 32 * 3
    for budget, lengths, ended_by, divisors in (
        (Budget(), {3}, "complete", {3: 0.3}),
        (Budget(bytes=9 * tile), {3}, "complete", {3: 0.3}),
        (Budget(bytes=2 * tile), {2}, "bytes", {2: 0.6}),
        (Budget(tiles=4), {4}, "tiles", {4: 0.2}),
        (Budget(tiles=99), {10}, "complete", {10: 0.2}),
        (Budget(tiles=4, stop_at=0.73), {2, 3}, "stop_at", {2: 0.5, 3: 0.2}),
    ):
        answers = [*Classifier(bundle, budget=budget).answer(tiny.archive, found)]
        assert {len(answer.trail) for answer in answers if isinstance(answer, Answer)} == lengths
        for answer in answers:
            assert isinstance(answer, Answer)
            z = torch.tensor(answer.logits, dtype=torch.float64) / divisors[len(answer.trail)]
            assert answer.confidence == pytest.approx(float(torch.softmax(z, dim=0).max()), rel=1e-9)
            assert answer.ended_by == ended_by
            assert answer.confidence >= (budget.stop_at or 0)


class MadeUp:
    """A scene too large to keep: the pixels of a tile are made from where it lies."""

    def __init__(self, side: int, half_px: int) -> None:
        levels = last_level((side, side), half_px) + 1
        shapes = tuple(level_shape((side, side), level) for level in range(levels))
        self.spec = RasterSpec("made up", 3, "uint8", half_px, shapes, None, None, "")
        self.meter = ReadMeter()

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        side = self.spec.base_px
        pixels = np.stack(
            [
                np.random.default_rng([tile.level, tile.row, tile.col]).integers(
                    0, 255, (3, side, side), dtype=np.uint8
                )
                for tile in tiles
            ]
        )
        self.meter.add(self.spec, tiles)
        return TileBatch(pixels, np.full((len(tiles), side, side), 255, np.uint8))

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        future: Future[TileBatch] = Future()
        future.set_result(self.read(tiles))
        return future


def test_a_scene_of_57344_pixels_is_walked_nine_depths_deep_by_a_network_that_knows_four() -> None:
    reader = MadeUp(57_344, 112)
    site = SiteTask("large", reader, Window(0, 0, 57_344, 57_344))
    looker = small_network(2, base_px=224, depths=4)
    (result,) = walked(looker, WalkSettings(keep=(2, 1)), Budget(), [site], batch_looks=2)
    assert [wish.depth for wish in result.walk.looked] == [0] + [n for n in range(1, 9) for _ in range(2)]
    assert result.walk.looked[-1].tile.level == 0
    assert reader.meter.bytes_decoded == result.bytes_decoded == 17 * 224 * 224 * 3
    assert most_looks(site.window, 112, WalkSettings(keep=(2, 1))) == 17
    (deep,) = walked(looker, WalkSettings(keep=(1,)), Budget(bytes=6 * 224 * 224 * 3), [site], batch_looks=2)
    assert [wish.depth for wish in deep.walk.looked] == list(range(6))
    assert deep.walk.ended_by == "bytes"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"tiles": 0}, "0 tiles"),
        ({"stop_at": 0.0}, "confidence 0"),
        ({"stop_at": 1.0}, "confidence 1"),
        ({"stop_at": float("nan")}, "confidence nan"),
        ({"bytes": 0}, "0 bytes"),
        ({"deadline": -1.0}, "-1 seconds"),
        ({"deadline": float("nan")}, "nan seconds"),
    ],
)
def test_budgets_that_no_walk_can_keep_are_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Budget(**limits)  # type: ignore[arg-type]


def test_tiles_have_no_say_beside_keep_and_in_walks_that_nobody_leads() -> None:
    walk = WalkSettings(keep=(2, 1))
    assert walk_with(walk, None, Budget(tiles=3)) == walk
    assert walk_with(walk, [3, 1], Budget(bytes=10)).keep == (3, 1)
    with pytest.raises(UsageError, match="keep"):
        walk_with(walk, [3, 1], Budget(tiles=3))
    with pytest.raises(UsageError, match="0"):
        walk_with(walk, [0], Budget())
    for policy in ("dense", "random"):
        with pytest.raises(UsageError, match=policy):
            one(sites(1)[0], WalkSettings(policy=policy), Budget(tiles=3))
