"""What walks are expected to take: arithmetic beside walks that were made, and samples beside wholes."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasterio.shutil import copy

from tests.archives import TinyArchive
from tests.networks import small_bundle
from tests.range_server import range_server
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SceneMissing
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery import Site
from tnet_geo.inference import Budget, Classifier, most_looks
from tnet_geo.inference.budgets import NO_BUDGET
from tnet_geo.model import WalkSettings
from tnet_geo.model.counting import walk_macs
from tnet_geo.operations.estimating.correction import Probed, corrected
from tnet_geo.operations.estimating.probe import Walked
from tnet_geo.operations.forecasting.expected import Expected, expected_cost, looks_by_level
from tnet_geo.operations.forecasting.forecast import (
    Cost,
    MeteredArchive,
    beside,
    cost_of,
    forecast,
    in_time,
    look_seconds,
    macs_of,
)
from tnet_geo.operations.forecasting.survey import Known, Survey, survey
from tnet_geo.pyramid import MemoryReader, TileReader, open_cogs
from tnet_geo.trail import Answer

HALF = 16


class MemoryScenes:
    """An archive of scenes in memory."""

    place, canvas = "memory", "native"

    def __init__(self, readers: dict[str, MemoryReader]) -> None:
        self.readers = readers

    def check_lattice(self, half_px: int) -> None:
        """Any."""

    def adopt(self, site: Site) -> Site:
        """As it is."""
        return site

    def reader(self, scene_id: str, half_px: int | None = None) -> TileReader:
        """Raises: SceneMissing."""
        if scene_id not in self.readers:
            raise SceneMissing(scene_id, self.place)
        return self.readers[scene_id]

    def digest(self, scene_id: str) -> str | None:
        """Nobody asks."""
        return scene_id


def scenes(sides: Sequence[int], seed: int = 0, *, holes: bool = False) -> tuple[MemoryScenes, list[Site]]:
    """Scenes of random pixels, each a site; with `holes` the right half of some has no valid pixel."""
    readers = {}
    for n, side in enumerate(sides):
        valid = np.full((side, side), 255, np.uint8)
        if holes and n % 3 == 0:
            valid[:, side // 4 :] = 0
        pixels = random_pixels(seed + n, (side, side))
        readers[f"s{n}"] = MemoryReader.of(pixels, HALF, valid if holes else None, scene_id=f"s{n}")
    return MemoryScenes(readers), [Site(f"site{n}", f"s{n}", f"s{n}") for n in range(len(sides))]


def classifier_of(seed: int = 0, budget: Budget = NO_BUDGET, **walk: object) -> Classifier:
    """A small network that walks as told."""
    return Classifier(small_bundle(seed, walk=WalkSettings.model_validate(walk)), budget=budget)


def fact_of(classifier: Classifier, archive: MemoryScenes, sites: Sequence[Site]) -> list[Cost]:
    """What walking each of the sites takes."""
    return [cost_of([outcome]) for outcome in classifier.answer(archive, sites)]


@pytest.mark.parametrize("seed", range(4))
def test_tiles_and_bytes_are_exact_where_every_tile_is_whole_and_no_two_parents_share_a_child(
    seed: int,
) -> None:
    archive, sites = scenes([32, 64, 128, 256, 512], seed)
    classifier = classifier_of(seed, keep=(2, 1))
    exact = 0
    for answer, site in zip(classifier.answer(archive, sites), sites, strict=True):
        assert isinstance(answer, Answer)
        spec = archive.readers[site.scene_id].spec
        expected = expected_cost(spec, Window(0, 0, *spec.shape), classifier.walk, Budget())
        walks = [look.parent for look in answer.trail.looks if look.depth > 1]
        distinct = len(walks) == len(set(walks))  # each of two branches went on alone
        most = most_looks(Window(0, 0, *spec.shape), HALF, classifier.walk)
        assert len(answer.trail) <= expected.tiles == most
        if distinct and len(answer.trail) == most:
            assert answer.bytes_decoded == expected.bytes_decoded
            assert sum(look.tile.level > 0 for look in answer.trail.looks) == expected.decisions
            exact += 1
    assert exact >= 3  # one, three and more looks


def test_arithmetic_is_never_below_what_walks_take_whatever_their_window_and_budget() -> None:
    archive, _ = scenes([200, 333], holes=True)
    chance = np.random.default_rng(5)
    for n in range(12):
        scene = f"s{n % 2}"
        rows, cols = archive.readers[scene].spec.shape
        row, col = (int(chance.integers(0, side - 20)) for side in (rows, cols))
        window = Window(row, col, int(chance.integers(1, rows - row)), int(chance.integers(1, cols - col)))
        budget = Budget(tiles=int(chance.integers(1, 20))) if n % 3 == 0 else Budget()
        if n % 3 == 1:
            budget = Budget(bytes=int(chance.integers(3_000, 40_000)))
        walk = {"keep": [(2, 1), (1,), (3, 2), (9,)][n // 3 % 4]}
        classifier = classifier_of(n, budget, **walk)
        (fact,) = fact_of(classifier, archive, [Site("one", scene, scene, window)])
        expected = expected_cost(
            archive.readers[scene].spec, window, classifier.walk, Budget(tiles=budget.tiles)
        )
        assert 1 <= fact.tiles <= expected.tiles <= most_looks(window, HALF, classifier.walk, budget)


def test_dense_walks_take_what_arithmetic_says() -> None:
    archive, sites = scenes([200, 64, 90])
    classifier = classifier_of(policy="dense", keep=())
    for site, fact in zip(sites, fact_of(classifier, archive, sites), strict=True):
        spec = archive.readers[site.scene_id].spec
        expected = expected_cost(spec, Window(0, 0, *spec.shape), classifier.walk, Budget())
        assert (fact.tiles, fact.decisions) == (expected.tiles, 0)
        assert fact.bytes_decoded == pytest.approx(expected.bytes_decoded)


def test_a_budget_of_bytes_leaves_whole_tiles_and_the_first_look() -> None:
    spec = scenes([512])[0].readers["s0"].spec
    walk, window = WalkSettings(keep=(2, 1)), Window(0, 0, 512, 512)
    tile = 4 * spec.chunk_bytes
    for limit, tiles in ((1, 1), (tile, 1), (5 * tile + 1, 5), (1000 * tile, 9)):
        found = expected_cost(spec, window, walk, Budget(bytes=limit))
        assert (found.tiles, found.bytes_decoded) == (tiles, tiles * tile)


def test_a_best_first_walk_has_as_many_looks_as_its_budget_while_there_are_tiles() -> None:
    window, walk = Window(0, 0, 512, 512), WalkSettings()
    assert sum(looks_by_level(window, HALF, walk, Budget(tiles=40)).values()) == 40
    assert looks_by_level(Window(0, 0, 64, 64), HALF, walk, Budget(tiles=40)) == {1: 1, 0: 9}


def test_forecast_beside_fact_of_an_archive_on_disk(tiny: TinyArchive) -> None:
    classifier = classifier_of(keep=(2, 1))
    predicted = forecast(classifier, tiny.archive, tiny.manifest.sites, workers=2, look_seconds=0.5)
    archive = MeteredArchive(tiny.archive)
    outcomes = list(classifier.answer(archive, tiny.manifest.sites))
    measured = cost_of(outcomes, archive.lap())
    network = classifier.bundle.network
    assert predicted.seconds is not None
    assert predicted.seconds > 0
    assert replace(predicted, seconds=None) == replace(measured, macs=macs_of(network, measured))
    assert measured.macs == 0
    assert predicted.macs == 36 * walk_macs(network, classifier.walk, 2).total
    fields = beside(predicted, replace(measured, seconds=1.23456), network)
    assert fields["predicted"]["tiles"] == fields["measured"]["tiles"] == 108
    assert fields["measured"]["seconds"] == 1.235
    assert fields["measured"]["macs"] == predicted.macs


def test_multiply_accumulates_are_those_of_a_walk_for_every_aggregation() -> None:
    walk = WalkSettings(keep=(2, 1))
    for aggregation in ("mean", "gated_attention", "feature_weighting", "ltpa"):
        network = small_bundle().network
        settings = network.settings.model_copy(update={"aggregation": aggregation})
        network = type(network)(settings).eval()
        whole = walk_macs(network, walk, 3)
        assert macs_of(network, Cost(sites=1, tiles=whole.looks, decisions=whole.decisions)) == whole.total


def test_a_survey_without_time_looks_up_few_sites_and_speaks_for_all() -> None:
    archive, _ = scenes([64, 256])
    sites = [Site(f"site{n}", "s", f"s{n % 2}") for n in range(2000)]
    walk = WalkSettings(keep=(2, 1))
    short = survey(archive, sites, HALF, walk, Budget(), seconds=0.0)
    whole = survey(archive, sites, HALF, walk, Budget(), seconds=1e9)
    assert short.drawn < 100 < whole.drawn == 2000
    assert short.known == whole.known[: short.drawn]
    totals = [each.total([known.expected.tiles for known in each.known]) for each in (short, whole)]
    error = short.error([known.expected.tiles for known in short.known])
    assert totals[1] == 1000 * 3 + 1000 * 7
    assert 0 < abs(totals[0] / totals[1] - 1) < 3 * error
    assert whole.error([known.expected.tiles for known in whole.known]) == 0
    few = survey(archive, sites, HALF, walk, Budget(), seconds=1e9, most=5)
    assert few.known == whole.known[:5]


def test_sites_without_a_scene_or_beyond_it_are_counted_and_cost_nothing() -> None:
    archive, sites = scenes([64, 64])
    strange = [Site("gone", "gone", "gone"), Site("beyond", "s0", "s0", Window(60, 0, 8, 8))]
    found = survey(archive, [*sites, *strange], HALF, WalkSettings(keep=(2, 1)), Budget(), seconds=1e9)
    assert (found.drawn, found.refused, len(found.known)) == (4, 2, 2)
    assert found.total([known.expected.tiles for known in found.known]) == 6


def drawn(seed: int, *, drawn: int, walked: int, sites: int = 4000) -> tuple[Survey, Walked, float]:
    """A population whose walks take between half and all of what is expected, and a sample of it."""
    chance = np.random.default_rng(seed)
    expected = chance.integers(1, 30, sites)
    took = np.ceil(expected * chance.uniform(0.5, 1, sites)).astype(int)
    known = tuple(
        Known(Site(str(n), "", ""), Expected(float(x), 0.0, 3.0 * x, ()), 0.0, 0.0)
        for n, x in enumerate(expected[:drawn])
    )
    costs = tuple(Cost(1, int(y), 0, 3 * int(y)) for y in took[:walked])
    return Survey(known, 0, sites), Walked(each=costs), float(took.sum())


def test_the_standard_error_that_is_stated_is_the_one_that_is_made() -> None:
    ratios = []
    for seed in range(150):
        found, walked, truth = drawn(seed, drawn=200, walked=40)
        cost, (error, _) = corrected(found, [Probed(found.known, walked)])
        ratios.append((cost.tiles / truth - 1) / error)
    assert np.mean(ratios) == pytest.approx(0, abs=0.25)
    assert np.std(ratios) == pytest.approx(1, abs=0.2)


def test_an_estimate_is_the_fact_where_all_sites_were_walked_by_whichever_worker() -> None:
    found, walked, truth = drawn(1, drawn=4000, walked=4000)
    halves = [Probed(found.known[n::2], replace(walked, each=walked.each[n::2])) for n in range(2)]
    cost, errors = corrected(found, halves)
    assert (cost.tiles, cost.bytes_decoded, errors) == (truth, 3 * truth, (0.0, 0.0))


def test_without_a_single_walk_it_is_arithmetic_and_nobody_knows_how_good() -> None:
    found, _, _ = drawn(1, drawn=4000, walked=0)
    cost, errors = corrected(found, [Probed(found.known, Walked())])
    assert cost.tiles == sum(known.expected.tiles for known in found.known)
    assert np.isnan(errors).all()


def test_shared_children_missing_pixels_and_early_stops_are_corrected_within_the_stated_error() -> None:
    archive, _ = scenes([200, 256, 333], holes=True)
    chance = np.random.default_rng(3)
    sites = []
    for n in range(120):
        side, row, col = (int(each) for each in chance.integers((40, 0, 0), (160, 40, 40)))
        sites.append(Site(f"site{n}", "", f"s{n % 3}", Window(row, col, side, side)))
    for budget in (Budget(), Budget(stop_at=0.4)):
        classifier = classifier_of(2, budget, keep=(4, 2))
        found = survey(archive, sites, HALF, classifier.walk, budget, seconds=1e9)
        facts = fact_of(classifier, archive, [known.site for known in found.known])
        truth = sum(facts, Cost())
        plain = sum(known.expected.tiles for known in found.known)
        cost, errors = corrected(found, [Probed(found.known, Walked(each=tuple(facts[:40])))])
        assert truth.tiles < 0.9 * plain  # there is something to correct
        assert abs(cost.tiles / truth.tiles - 1) < 3 * errors[0] < 0.3
        assert abs(cost.bytes_decoded / truth.bytes_decoded - 1) < 3 * errors[1] < 0.3


def test_a_deadline_leaves_every_site_its_first_look() -> None:
    cost = Cost(sites=100, tiles=1000, decisions=600, bytes_decoded=10_000, seconds=50.0)
    assert in_time(cost, Budget()) == in_time(cost, Budget(deadline=60)) == cost
    half = in_time(cost, Budget(deadline=25))
    assert (half.tiles, half.bytes_decoded, half.seconds) == (500, 5_000, 25)
    least = in_time(cost, Budget(deadline=0))
    assert (least.tiles, least.seconds) == (100, 5)


def test_looks_are_timed_without_an_archive_whatever_the_budget() -> None:
    assert look_seconds(classifier_of(budget=Budget(deadline=0.0), keep=(2, 1)), seconds=0.01) > 0


def test_a_metered_archive_counts_what_a_server_counts_and_a_forecast_asks_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        source = write_raster(tmp_path / "sources" / f"s{n}.tif", random_pixels(n, (300, 170)))
        copy(source, tmp_path / f"s{n}.tif", driver="COG", blocksize=128)
    with range_server(tmp_path) as server:
        (tmp_path / "all.txt").write_text("\n".join(f"{server.url}/s{n}.tif" for n in range(3)))
        plain = open_cogs(tmp_path / "all.txt")
        sites = [Site(scene_id, source, scene_id) for scene_id, source in plain.sources.items()]
        server.reset()
        archive = MeteredArchive(plain)
        outcomes = list(classifier_of(keep=(2, 1)).answer(archive, sites))
        read = archive.lap()
        assert (read.requests, read.bytes_fetched) == (server.requests, server.sent)
        assert read.requests > 3
        assert read.bytes_decoded > 0
        assert archive.lap().requests == 0
        cost = cost_of(outcomes, read)
        assert (cost.sites, cost.requests, cost.bytes_fetched) == (3, server.requests, server.sent)
        monkeypatch.setattr("tnet_geo.operations.forecasting.forecast.MOST_FAR_COGS", 2)
        server.reset()
        predicted = forecast(classifier_of(keep=(2, 1)), open_cogs(tmp_path / "all.txt"), sites)
        opened = {line.split()[1] for line in server.paths if ".tif" in line and line.startswith("GET")}
        assert len(opened) == 2  # headers of far files are not read for nothing
        assert 0.5 < predicted.requests / cost.requests < 2


def test_counts_of_readers_that_are_gone_are_kept_in_little_memory(
    tiny: TinyArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tnet_geo.operations.forecasting.forecast.SWEEP_AT", 8)
    archive = MeteredArchive(tiny.archive)
    for _ in range(3):
        for site in tiny.manifest.sites:
            reader = archive.reader(site.scene_id)
            reader.read([Tile(reader.spec.levels - 1, 0, 0)])
            del reader
    gc.collect()
    assert len(archive._readers) <= 16
    assert archive.lap().tiles == 3 * 36
