"""The stream of walks: nobody waits for a slow neighbour, passes are full, and what waits is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest
import torch

from tests.networks import small_network
from tests.rasters import random_pixels
from tnet_geo.errors import TileUnreadable
from tnet_geo.grid import Tile, Window
from tnet_geo.inference import Budget, Engine, SiteTask, WalkResult
from tnet_geo.model import WalkSettings
from tnet_geo.pyramid import MemoryReader, RasterSpec, ReadMeter, TileBatch
from tnet_geo.trail import Failure

HALF_PX = 16
KEEP = WalkSettings(keep=(2, 1))


class WatchedReader:
    """A reader in memory that tells what it is asked for, and answers when it is told to."""

    def __init__(self, reader: MemoryReader, asked: Callable[[Sequence[Tile]], None]) -> None:
        self._reader, self._asked = reader, asked
        self.release: threading.Event | None = None

    @property
    def spec(self) -> RasterSpec:
        return self._reader.spec

    @property
    def meter(self) -> ReadMeter:
        return self._reader.meter

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        return self._reader.read(tiles)

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        self._asked(tiles)
        if self.release is None:
            return self._reader.submit(tiles)
        held: Future[TileBatch] = Future()
        threading.Thread(target=self._answer_late, args=(held, tiles), daemon=True).start()
        return held

    def _answer_late(self, held: Future[TileBatch], tiles: Sequence[Tile]) -> None:
        assert self.release is not None
        if self.release.wait(30):
            held.set_result(self._reader.read(tiles))
        else:
            held.set_exception(TileUnreadable("scene", "tile", "nobody let it go"))


def site(
    seed: int,
    asked: Callable[[Sequence[Tile]], None] = lambda _: None,
    *,
    side: int = 256,
    dtype: str = "uint8",
) -> SiteTask:
    reader = WatchedReader(MemoryReader.of(random_pixels(seed, (side, side), dtype=dtype), HALF_PX), asked)
    return SiteTask(f"site {seed}", reader, Window(0, 0, side, side))


def engine(settings: WalkSettings = KEEP, **how: int) -> tuple[Engine, list[int]]:
    """An engine, and the sizes of the passes that it makes."""
    network, passes = small_network(3), []
    network.backbone.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    return Engine(network, settings, **how), passes


def test_a_slow_site_holds_up_no_other_and_still_answers_in_its_place() -> None:
    finished = threading.Event()

    def native(tiles: Sequence[Tile]) -> None:
        if tiles[0].level == 0:
            finished.set()

    slow = site(0)
    assert isinstance(slow.reader, WatchedReader)
    slow.reader.release = finished  # its root comes when its neighbour has come down to native tiles
    results = list(engine(batch_looks=4)[0].walk([slow, site(1, native)]))
    assert [result.walk.task.site_id for result in results if isinstance(result, WalkResult)] == [
        "site 0",
        "site 1",
    ]


def test_looks_of_any_site_and_depth_fill_passes_together() -> None:
    walker, passes = engine(batch_looks=8, in_flight=16)
    results = list(walker.walk(site(seed) for seed in range(40)))
    looks = sum(len(result.walk.looked) for result in results if isinstance(result, WalkResult))
    assert set(passes) == {8}
    assert looks <= 8 * len(passes) < looks + 8 * 2  # hardly anything is filled up


def test_where_time_is_short_sites_that_began_first_are_done_first_so_that_some_are_whole() -> None:
    network, passes = small_network(3), []
    network.backbone.register_forward_hook(lambda *_: passes.append(1))
    budget = Budget(deadline=12)  # passes: those of half the sites' looks
    walker = Engine(network, KEEP, budget=budget, batch_looks=4, in_flight=16, clock=lambda: len(passes))
    results = [result for result in walker.walk(site(n) for n in range(16)) if isinstance(result, WalkResult)]
    ends = [result.walk.ended_by for result in results]
    assert ends[:4] == ["complete"] * 4
    assert ends[-4:] == ["deadline"] * 4


@pytest.mark.parametrize("in_flight", [1, 5])
def test_what_is_read_ahead_is_bounded_however_large_a_site_is(in_flight: int) -> None:
    waiting, most = 0, 0

    def asked(tiles: Sequence[Tile]) -> None:
        nonlocal waiting, most
        waiting += len(tiles)
        most = max(most, waiting)

    walker, _ = engine(WalkSettings(policy="dense"), batch_looks=4, in_flight=in_flight)
    looked = walker.passes.launch

    def launch(rows: Sequence[object]) -> object:
        nonlocal waiting
        waiting -= len(rows)
        return looked(rows)  # type: ignore[arg-type]

    walker.passes.launch = launch  # type: ignore[method-assign, assignment]
    results = list(walker.walk(site(seed, asked, side=512) for seed in range(3)))
    assert [len(result.walk.looked) for result in results if isinstance(result, WalkResult)] == [256] * 3
    assert most <= 2 * (in_flight + 4) + 4
    assert waiting == 0


def test_sites_are_begun_only_as_their_turn_comes_near() -> None:
    begun = 0

    def tasks() -> Iterator[SiteTask]:
        nonlocal begun
        while True:
            begun += 1
            yield site(begun % 7)

    results = engine(batch_looks=4, in_flight=3)[0].walk(tasks())
    for taken in range(1, 30):
        next(results)
        assert begun <= taken + 4 * 3


def test_sites_of_other_dtypes_share_the_stream_and_answer_as_if_alone() -> None:
    sites = [site(n, dtype=("uint8", "uint16")[n % 2]) for n in range(6)]
    together = list(engine(batch_looks=4)[0].walk(sites))
    for one, result in zip(sites, together, strict=True):
        (alone,) = engine(batch_looks=4)[0].walk([one])
        assert isinstance(result, WalkResult)
        assert isinstance(alone, WalkResult)
        assert torch.equal(result.output.logits, alone.output.logits)


def test_failures_known_beforehand_keep_their_place() -> None:
    results = list(engine(batch_looks=4)[0].walk([Failure("none", "is not there"), site(1), site(2)]))
    assert results[0] == Failure("none", "is not there")
    assert [isinstance(result, WalkResult) for result in results] == [False, True, True]


def test_a_site_that_fails_halfway_gives_back_its_room() -> None:
    def fails(tiles: Sequence[Tile]) -> None:
        pass

    broken = site(3, fails, side=512)
    assert isinstance(broken.reader, WatchedReader)
    answer = broken.reader.submit

    def submit(tiles: Sequence[Tile]) -> Future[TileBatch]:
        if Tile(0, 16, 16) not in tiles:
            return answer(tiles)
        failed: Future[TileBatch] = Future()
        failed.set_exception(TileUnreadable("scene", "tile", "made so by the test"))
        return failed

    broken.reader.submit = submit  # type: ignore[method-assign]
    walker, _ = engine(WalkSettings(policy="dense"), batch_looks=4, in_flight=1)
    first, second = walker.walk([broken, site(4, side=512)])
    assert isinstance(first, Failure)
    assert isinstance(second, WalkResult)
    assert len(second.walk.looked) == 256
