"""Walks of the engine against a plain loop, and what they read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from tests.networks import small_network
from tests.rasters import random_pixels
from tnet_geo.errors import TileUnreadable
from tnet_geo.grid import Tile, Window, children, footprint, root_of
from tnet_geo.inference import Engine, SiteTask, WalkResult, position_in
from tnet_geo.model import Places, TraversalNetwork, WalkSettings
from tnet_geo.pyramid import MemoryReader, RasterSpec, ReadMeter, TileBatch
from tnet_geo.trail import Failure

HALF_PX = 16
CODED = {"form": "code", "coordinates": "path"}


class CountingReader:
    """A reader in memory that remembers every tile that it was asked for."""

    def __init__(self, reader: MemoryReader, broken: Sequence[Tile] = ()) -> None:
        self._reader, self._broken = reader, set(broken)
        self.asked: list[Tile] = []

    @property
    def spec(self) -> RasterSpec:
        return self._reader.spec

    @property
    def meter(self) -> ReadMeter:
        return self._reader.meter

    def read(self, tiles: Sequence[Tile]) -> TileBatch:
        return self.submit(tiles).result()

    def submit(self, tiles: Sequence[Tile]) -> Future[TileBatch]:
        self.asked += tiles
        if self._broken & set(tiles):
            failed: Future[TileBatch] = Future()
            failed.set_exception(TileUnreadable("scene", str(tiles[0]), "made so by the test"))
            return failed
        return self._reader.submit(tiles)


def task(seed: int, window: Window | None = None, side: int = 256, broken: Sequence[Tile] = ()) -> SiteTask:
    pixels = random_pixels(seed, (side, side))
    reader = CountingReader(MemoryReader.of(pixels, HALF_PX), broken)
    return SiteTask(f"site {seed}", reader, window or Window(0, 0, side, side))


def plain_walk(
    network: TraversalNetwork, site: SiteTask, keep: WalkSettings
) -> tuple[list[Tile], torch.Tensor]:
    """One site, one look at a time, written from the definition: the oracle."""
    root = root_of(site.window, HALF_PX)
    looked: list[Tile] = []
    features: list[torch.Tensor] = []
    queue = [(root, (0, 0), torch.zeros(1, network.backbone.features))]
    while queue:
        chosen = []
        for tile, path, above in queue:
            batch = site.reader.read([tile])
            inputs = network.scale(torch.from_numpy(batch.pixels), torch.from_numpy(batch.validity))
            depth = root.level - tile.level
            cell = torch.tensor([path]) * 2 + 1
            places = Places(
                torch.tensor([depth]), torch.tensor([position_in(root, tile)]), cell / 3**depth - 1
            )
            output = network.look(inputs, places, above)
            looked.append(tile)
            features.append(output.features)
            if tile.level == 0:
                continue
            below = children(tile)
            able = [k for k in range(9) if footprint(below[k], HALF_PX).touches(site.window)]
            order = sorted(able, key=lambda k: (-output.child_logits[0, k].item(), k))
            picked = order[: keep.keep_at(depth)]
            for k in sorted(picked) if keep.order == "window" else picked:
                if keep.duplicates == "twice" or below[k] not in [tile for tile, _, _ in chosen]:
                    way = (3 * path[0] + k // 3, 3 * path[1] + k % 3)
                    chosen.append((below[k], way, output.features))
        queue = chosen
    bag = torch.cat(features)[None]
    return looked, network.aggregate(bag, torch.ones(bag.shape[:2], dtype=torch.bool)).logits[0]


def walk(sites: Sequence[SiteTask], settings: WalkSettings, **engine: int) -> list[WalkResult]:
    results = list(Engine(small_network(3), settings, **engine).walk(sites))
    assert all(isinstance(result, WalkResult) for result in results)
    return [result for result in results if isinstance(result, WalkResult)]


@pytest.mark.parametrize("keep", [(2, 1, 1), (1,), (3, 2), (9, 9, 9)])
def test_the_engine_looks_where_a_plain_loop_looks_and_answers_the_same(keep: tuple[int, ...]) -> None:
    settings = WalkSettings(keep=keep)
    sites = [task(seed) for seed in range(3)] + [task(9, Window(40, 70, 90, 33))]
    with torch.inference_mode():
        for site, result in zip(sites, walk(sites, settings), strict=True):
            looked, logits = plain_walk(small_network(3), site, settings)
            assert [wish.tile for wish in result.walk.looked] == looked
            torch.testing.assert_close(result.output.logits[0], logits, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "network"),
    [
        (WalkSettings(keep=(4, 3), duplicates="twice"), {}),
        (WalkSettings(keep=(4, 3), order="window"), {}),
        (WalkSettings(keep=(4, 3), duplicates="twice", order="window"), {"position": CODED}),
        (WalkSettings(keep=(4, 3)), {"position": CODED, "location": {"position": True, "parent": True}}),
    ],
)
def test_every_switch_of_walk_and_place_means_what_the_plain_loop_means(
    settings: WalkSettings, network: dict[str, object]
) -> None:
    engine = Engine(small_network(5, **network), settings, batch_looks=4)
    sites = [task(seed) for seed in range(3)]
    with torch.inference_mode():
        for site, result in zip(sites, engine.walk(sites), strict=True):
            assert isinstance(result, WalkResult)
            looked, logits = plain_walk(engine.network, site, settings)
            assert [wish.tile for wish in result.walk.looked] == looked
            assert (len(set(looked)) < len(looked)) == (settings.duplicates == "twice")
            torch.testing.assert_close(result.output.logits[0], logits, atol=1e-4, rtol=1e-5)


def test_an_answer_does_not_depend_on_the_sites_walked_beside_it() -> None:
    settings = WalkSettings(keep=(2, 1, 1))
    together = walk([task(seed) for seed in range(7)], settings)
    backwards = walk([task(seed) for seed in reversed(range(7))], settings, in_flight=3)[::-1]
    for seed, (one, other) in enumerate(zip(together, backwards, strict=True)):
        alone = walk([task(seed)], settings)[0]
        assert torch.equal(one.output.logits, alone.output.logits)
        assert torch.equal(one.output.logits, other.output.logits)


def test_without_padding_the_network_sees_wanted_tiles_alone_and_answers_alike() -> None:
    network, seen = small_network(3), []
    network.backbone.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    settings = WalkSettings(keep=(2, 1))
    (single,) = Engine(network, settings, batch_looks=8, pad=False).walk([task(1)])
    assert isinstance(single, WalkResult)
    assert sum(seen) == len(single.walk.looked)
    assert max(seen) <= 2
    padded = walk([task(1)], settings)[0]
    torch.testing.assert_close(single.output.logits, padded.output.logits, atol=1e-5, rtol=1e-5)


def test_only_chosen_tiles_are_read_each_once_and_every_byte_is_counted() -> None:
    sites = [task(seed) for seed in range(4)]
    for site, result in zip(sites, walk(sites, WalkSettings(keep=(2, 1, 1))), strict=True):
        assert isinstance(site.reader, CountingReader)
        assert site.reader.asked == [wish.tile for wish in result.walk.looked]
        assert len(set(site.reader.asked)) == len(site.reader.asked) <= 7
        assert site.reader.meter.bytes_decoded == result.bytes_decoded == len(site.reader.asked) * 32 * 32 * 3


def test_two_parents_sharing_a_child_look_at_it_once() -> None:
    result = walk([task(1)], WalkSettings(keep=(9, 9, 9)))[0]
    looked = [wish.tile for wish in result.walk.looked]
    assert len(looked) == sum((2 ** (depth + 1) - 1) ** 2 for depth in range(4)) == len(set(looked))


def test_a_site_that_fits_a_native_tile_has_one_look() -> None:
    result = walk([task(2, Window(33, 40, 20, 20))], WalkSettings())[0]
    assert [wish.tile.level for wish in result.walk.looked] == [0]


def test_children_outside_the_window_are_never_looked_at() -> None:
    window = Window(100, 20, 60, 90)
    result = walk([task(4, window)], WalkSettings(keep=(9,)))[0]
    assert all(footprint(wish.tile, HALF_PX).touches(window) for wish in result.walk.looked)


def test_ground_without_a_valid_pixel_is_never_looked_at() -> None:
    pixels = random_pixels(5, (256, 256))
    validity = np.zeros((256, 256), np.uint8)
    validity[:96, 128:] = 255
    reader = MemoryReader.of(pixels, HALF_PX, validity=validity)
    site = SiteTask("half", reader, Window(0, 0, 256, 256))
    tiles = [wish.tile for wish in walk([site], WalkSettings(keep=(9,)))[0].walk.looked]
    assert len(tiles) > 20
    assert all(reader.read([tile]).validity.any() for tile in tiles)


def test_probabilities_along_the_path_add_up_in_logarithms() -> None:
    looked = walk([task(6)], WalkSettings(keep=(2, 1, 1)))[0].walk.looked
    for wish in looked[1:]:
        assert wish.parent is not None
        parent = looked[wish.parent]
        assert 1 / 9 <= wish.probability < 1 or wish.depth == 1
        assert wish.path_log_probability == pytest.approx(
            parent.path_log_probability + np.log(wish.probability)
        )


def test_dense_looks_at_every_native_tile_once_and_random_follows_its_seed() -> None:
    dense = walk([task(7)], WalkSettings(policy="dense"))[0]
    assert len(dense.walk.looked) == 64
    assert {wish.tile.level for wish in dense.walk.looked} == {0}
    first, again, other = (
        [wish.tile for wish in walk([task(7)], WalkSettings(policy="random", seed=seed))[0].walk.looked]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_site_that_cannot_be_read_fails_alone_and_in_its_place() -> None:
    sites = [task(0), task(1, broken=[Tile(3, 0, 0)]), task(2)]
    results = list(Engine(small_network(3), WalkSettings(keep=(1,))).walk(sites))
    assert isinstance(results[1], Failure)
    assert results[1].site_id == "site 1"
    assert "made so by the test" in results[1].reason
    assert [isinstance(result, WalkResult) for result in results] == [True, False, True]


def test_uint16_pixels_are_looked_at_as_they_are() -> None:
    pixels = random_pixels(8, (64, 64), dtype="uint16")
    site = SiteTask("sixteen", MemoryReader.of(pixels, HALF_PX), Window(0, 0, 64, 64))
    assert torch.isfinite(walk([site], WalkSettings(keep=(1,)))[0].output.logits).all()
