"""`explain verify` proves that answers come from their trails alone, and says so where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.enums import Resampling

from tests.networks import small_bundle
from tests.packs import images, member_of, members_of, pack_all, scattered
from tests.range_server import range_server
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import InvalidResults, RuntimeUnusable, SceneMissing
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery import Site
from tnet_geo.inference import Classifier
from tnet_geo.inference.budgets import NO_BUDGET, Budget
from tnet_geo.inference.expectations import Contradiction
from tnet_geo.model import WalkSettings
from tnet_geo.operations.evidence.explaining import WalkProof, verify_walks
from tnet_geo.pyramid import (
    ArchiveSettings,
    CogReader,
    SceneArchive,
    SceneReader,
    TileBatch,
    create_archive,
    open_scenes,
)
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.export import export_cogs
from tnet_geo.pyramid.pack_reader import PackReader
from tnet_geo.results import PredictionRow, Results, RunRecord, finish_run, write_part
from tnet_geo.trail import Answer, Failure

SHAPE = (250, 205)
SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)
WALK = WalkSettings(keep=(2, 1))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(walk=WALK).save(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same three scenes as pyramids, packed, and as COGs."""
    folder = tmp_path_factory.mktemp("places")
    sources = images(folder / "sources", 3, SHAPE, mask=scattered(2, SHAPE))
    scenes = create_archive(folder / "scenes", SETTINGS)
    for name, source in sources.items():
        build_scene(str(source), name, scenes.place, SETTINGS)
    packs = create_archive(folder / "packs", ArchiveSettings(half_px=16, store="packs"))
    pack_all(packs.store, members_of(sources, packs.settings), packs.settings)
    export_cogs(folder / "scenes", folder / "cogs")
    return {kind: str(folder / kind) for kind in ("scenes", "packs", "cogs")}


def sites_of(archive: SceneArchive) -> list[Site]:
    """Three whole scenes, and windows in two of them."""
    sources = getattr(archive, "sources", {})
    names = sorted(sources) or ["s000", "s001", "s002"]
    found = [Site(f"whole {n}", sources.get(name, ""), name) for n, name in enumerate(names)]
    windows = (Window(20, 30, 70, 90), Window(120, 100, 64, 33))
    return found + [
        replace(found[n % len(found)], site_id=f"part {n}", window=window) for n, window in enumerate(windows)
    ]


@dataclass(frozen=True)
class Answered:
    """A run that was made in this process, as `classify` would have made it."""

    results: Path
    place: str
    bundle: Path

    def verified(self, **how: Any) -> WalkProof:
        return verify_walks(self.results, archive=self.place, bundle=self.bundle, **how)


def answered(
    out: Path,
    place: str,
    bundle: Path,
    budget: Budget = NO_BUDGET,
    *,
    walk: WalkSettings = WALK,
    sites: Sequence[Site] = (),
    accept: Sequence[Contradiction] = (),
) -> Answered:
    classifier = Classifier(small_bundle(walk=WALK), walk=walk, budget=budget, accept=accept)
    archive = open_scenes(place)
    kept = [archive.adopt(site) for site in sites or sites_of(archive)]
    rows = []
    for site, answer in zip(kept, classifier.answer(archive, sites or kept), strict=True):
        assert isinstance(answer, Answer)
        spec = archive.reader(site.scene_id).spec
        window = site.window or Window(0, 0, *spec.shape)
        facts = {"crs": spec.crs, "transform": spec.transform}
        rows.append(PredictionRow(answer, site.scene_id, window, 16, **facts))
    write_part(out, "run", "a", rows)
    limits = {name: limit for name, limit in asdict(budget).items() if limit is not None}
    settings = classifier.walk.model_dump(mode="json") | {
        "runtime": classifier.runtime,
        "accept": list(accept),
        "budget": limits,
    }
    record = RunRecord(
        id="run",
        finished="2026-11-21T10:00:00Z",
        classes=classifier.classes,
        archive=place,
        bundle=str(bundle),
        manifest="sites.parquet",
        selected=len(rows),
        answered=len(rows),
        set_aside=0,
        seconds=1.0,
        settings=settings,
    )
    finish_run(out, record)
    return Answered(out, place, bundle)


@pytest.mark.parametrize("kind", ["scenes", "packs", "cogs"])
def test_noise_in_every_unread_chunk_changes_no_bit_of_any_answer(
    kind: str, places: Mapping[str, str], bundle: Path, tmp_path: Path
) -> None:
    proof = answered(tmp_path, places[kind], bundle).verified()
    assert proof.findings == ()
    assert (proof.exit_code, proof.stored, len(proof.sites), proof.left_out) == (0, True, 5, 0)
    assert proof.scenes == (1 if kind == "packs" else 3)
    assert proof.chunks_read > 0
    if kind != "cogs":  # a block of these COGs is larger than a whole scene
        assert proof.chunks_noised > 5 * proof.chunks_read


BUDGETS = [Budget(tiles=6), Budget(stop_at=0.6), Budget(bytes=4 * 4 * 16 * 16 * 3), Budget(deadline=100.0)]
ALL = Budget(tiles=9, stop_at=0.9, bytes=10**6, deadline=100.0)


@pytest.mark.parametrize(
    "budget", [*(pytest.param(one, marks=pytest.mark.slow) for one in BUDGETS), ALL], ids=str
)
def test_walks_of_any_budget_are_repeated_with_it(
    budget: Budget, places: Mapping[str, str], bundle: Path, tmp_path: Path
) -> None:
    proof = answered(tmp_path, places["scenes"], bundle, budget).verified()
    assert (proof.findings, proof.stored) == ((), True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "walk",
    [WalkSettings(policy="dense"), WalkSettings(policy="random", seed=3), WalkSettings(keep=())],
    ids=str,
)
def test_walks_of_any_policy_are_repeated(
    walk: WalkSettings, places: Mapping[str, str], bundle: Path, tmp_path: Path
) -> None:
    proof = answered(tmp_path, places["scenes"], bundle, walk=walk).verified()
    assert (proof.findings, proof.stored) == ((), True)


@pytest.mark.slow
def test_sites_on_a_canvas_are_found_in_their_packs(
    places: Mapping[str, str], bundle: Path, tmp_path: Path
) -> None:
    archive = create_archive(tmp_path / "archive", ArchiveSettings(half_px=16, canvas="fit:128"))
    source = write_raster(tmp_path / "scene.tif", random_pixels(1, SHAPE))
    windows = [Window(20, 30, 70, 90), Window(120, 100, 64, 33)]
    sites = [Site(f"yard/{n}", str(source), "scene", window) for n, window in enumerate(windows)]
    kept = [archive.adopt(site) for site in sites]
    members = [
        member_of(own.scene_id, source, archive.settings, site.window)
        for own, site in zip(kept, sites, strict=True)
    ]
    pack_all(archive.store, members, archive.settings)
    proof = answered(
        tmp_path / "results", archive.place, bundle, sites=sites, accept=["canvas", "gsd"]
    ).verified()
    assert (proof.findings, proof.stored, proof.sites) == ((), True, ("yard/0", "yard/1"))
    assert (proof.scenes, proof.exit_code) == (1, 0)


def test_walks_that_the_clock_ended_are_left_out(
    places: Mapping[str, str], bundle: Path, tmp_path: Path
) -> None:
    late = answered(tmp_path / "late", places["scenes"], bundle, Budget(deadline=0.0))
    with pytest.raises(InvalidResults, match="has no walk in run run that can be repeated"):
        late.verified()


def test_a_sample_is_drawn_by_its_seed(places: Mapping[str, str], bundle: Path, tmp_path: Path) -> None:
    run = answered(tmp_path, places["scenes"], bundle)
    first, again, other = (run.verified(sites=1, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (len(first.sites), first.scenes) == (1, 1)
    assert other.sites != first.sites


Read = Callable[[Any, Sequence[Tile]], Future[TileBatch]]


CORNER = Tile(0, 14, 11)


def cheating(honest: Read, more: Tile = CORNER) -> Read:
    """A reader that beside what it is asked for reads the first chunk of one more tile, and uses it."""

    def submit(self: Any, tiles: Sequence[Tile]) -> Future[TileBatch]:
        batch = honest(self, tiles).result()
        chunk = honest(self, [more]).result().pixels[0, :, :16, :16].astype(np.int64)
        found: Future[TileBatch] = Future()
        shifted = batch.pixels.astype(np.int64) + int(chunk.sum() % 251)
        found.set_result(replace(batch, pixels=(shifted % 256).astype(np.uint8)))
        return found

    return submit


READERS: dict[str, Any] = {"scenes": SceneReader, "packs": PackReader, "cogs": CogReader}


@pytest.mark.parametrize("kind", ["scenes", "cogs", pytest.param("packs", marks=pytest.mark.slow)])
def test_a_walk_that_uses_one_chunk_more_is_found(
    kind: str, places: Mapping[str, str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, place = READERS[kind], places[kind]
    if kind == "cogs":  # of blocks that are smaller than a scene
        place = with_overviews(tmp_path)
    monkeypatch.setattr(reader, "submit", cheating(reader.submit))
    proof = answered(tmp_path / "results", place, bundle).verified()
    assert proof.exit_code == 5
    assert {finding.reason.split(":")[0] for finding in proof.findings} == {
        "noise outside its trail changes its answer"
    }
    assert any(line.startswith("site whole 0: noise outside") for line in proof.lines())


def with_overviews(folder: Path) -> str:
    """A folder with one GeoTIFF in blocks of 64 pixels."""
    source = write_raster(folder / "cogs" / "s000.tif", random_pixels(1, SHAPE))
    with rasterio.open(source, "r+") as target:
        target.build_overviews([2, 4, 8], Resampling.average)
    return str(source.parent)


def test_a_tile_that_is_read_and_not_told_is_found_even_where_it_changes_nothing(
    places: Mapping[str, str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = answered(tmp_path, places["scenes"], bundle)
    honest = Classifier.answer

    def curious(
        self: Classifier, archive: SceneArchive, sites: Sequence[Site], **how: Any
    ) -> Iterator[Answer | Failure]:
        with suppress(SceneMissing):  # in copies that do not have it
            archive.reader("s001", 16).read([Tile(0, 3, 3)])
        return honest(self, archive, sites, **how)

    monkeypatch.setattr(Classifier, "answer", curious)
    proof = run.verified()
    assert proof.exit_code == 5
    assert {finding.site_id for finding in proof.findings} == {"whole 1", "part 1"}
    assert {finding.reason for finding in proof.findings} == {
        "1 tiles were read that no trail names (level 0, row 3, column 3)"
    }


def test_results_that_are_not_those_of_the_archive_are_found(
    places: Mapping[str, str], bundle: Path, tmp_path: Path
) -> None:
    run = answered(tmp_path, places["scenes"], bundle)
    other = small_bundle(7, walk=WALK).save(tmp_path / "other")
    proof = verify_walks(run.results, bundle=other)
    assert len(proof.findings) == 5
    assert all("its stored answer is not the one given here" in found.reason for found in proof.findings)


def test_what_another_runtime_computed_is_not_compared_with_what_is_stored(
    places: Mapping[str, str], bundle: Path, tmp_path: Path
) -> None:
    run = answered(tmp_path, places["scenes"], bundle)
    file = run.results / "runs" / "run.json"
    file.write_text(file.read_text().replace("torch-", "torch-1"))
    proof = run.verified(sites=2)
    assert (proof.stored, proof.findings) == (False, ())
    assert "none that are stored: another runtime gave those" in "\n".join(proof.lines())


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_run_of_a_gpu_is_repeated_without_one_where_that_is_asked_for(
    places: Mapping[str, str], bundle: Path, tmp_path: Path
) -> None:
    run = answered(tmp_path, places["scenes"], bundle)
    file = run.results / "runs" / "run.json"
    file.write_text(file.read_text().replace("cpu batch 32", "cuda batch 256 NVIDIA H200"))
    with pytest.raises(RuntimeUnusable, match="0 CUDA devices"):
        run.verified(sites=1)
    for device in ("cpu", "auto"):
        proof = run.verified(sites=1, device=device)
        assert (proof.findings, proof.stored, proof.runtime[-12:]) == ((), False, "cpu batch 32")


def test_cogs_of_a_server_are_verified_from_copies(bundle: Path, tmp_path: Path) -> None:
    with range_server(Path(with_overviews(tmp_path))) as server:
        (tmp_path / "list.txt").write_text(f"{server.url}/s000.tif\n")
        proof = answered(tmp_path / "results", str(tmp_path / "list.txt"), bundle).verified(sites=2)
    assert (proof.findings, proof.stored, proof.scenes) == ((), True, 1)
    assert proof.chunks_noised > proof.chunks_read


@pytest.mark.slow
@pytest.mark.parametrize("store", ["scenes", "packs"])
def test_an_archive_in_a_bucket_is_verified_from_copies(
    store: str, s3: str, bundle: Path, tmp_path: Path
) -> None:
    sources = images(tmp_path / "sources", 3, SHAPE, mask=scattered(2, SHAPE))
    archive = create_archive(s3, ArchiveSettings(half_px=16, shard_chunks=4, store=store))
    if store == "packs":
        pack_all(archive.store, members_of(sources, archive.settings), archive.settings)
    for name, source in sources.items() if store == "scenes" else ():
        build_scene(str(source), name, archive.store, archive.settings)
    proof = answered(tmp_path / "results", s3, bundle).verified()
    assert (proof.findings, proof.stored, len(proof.sites)) == ((), True, 5)
    assert proof.chunks_noised > 5 * proof.chunks_read


@pytest.mark.slow
def test_one_chunk_more_is_found_wherever_it_lies(
    places: Mapping[str, str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, chance = SceneReader.submit, np.random.default_rng(6)
    seen = set()
    for trial in range(8):
        level = int(chance.integers(0, 3))
        rows, cols = (-(-side >> level) // 16 for side in SHAPE)
        more = Tile(level, int(chance.integers(0, rows)), int(chance.integers(0, cols)))
        monkeypatch.setattr(SceneReader, "submit", cheating(honest, more))
        run = answered(tmp_path / str(trial), places["scenes"], bundle)
        proof = run.verified()
        told: dict[str, set[Tile]] = {}
        for walk in Results.open(run.results).walks(list(proof.sites)):
            told.setdefault(walk.scene_id, set()).update(
                replace(look.tile, row=look.tile.row + i, col=look.tile.col + j)
                for look in walk.looks
                for i in (0, 1)
                for j in (0, 1)
            )
        guilty = {name[-1] for name, chunks in told.items() if more not in chunks}
        assert {finding.site_id[-1] for finding in proof.findings} == guilty
        seen.add(len(guilty))
    assert len(seen) > 1  # now and then an honest walk has read it anyway
