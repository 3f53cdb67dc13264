"""`estimate`: what `classify` would take, found out by workers that walk, with nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.archives import SETTINGS, TinyArchive, tiny_archive
from tests.jobs import haunted, pyramid_work
from tests.networks import small_bundle
from tests.object_store import ObjectServer
from tests.rasters import random_pixels, write_raster
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.errors import UsageError
from tnet_geo.grid import Tile
from tnet_geo.imagery import Manifest, Site
from tnet_geo.inference import Budget, Classifier
from tnet_geo.model import WalkSettings
from tnet_geo.operations import Prices, classify, estimate
from tnet_geo.operations.classifying.tasks import Job
from tnet_geo.operations.cluster import cluster
from tnet_geo.operations.estimating.probe import walk_some
from tnet_geo.operations.forecasting.forecast import Cost, MeteredArchive, cost_of, forecast
from tnet_geo.pyramid import SceneReader, TileBatch, create_archive, open_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.results import Results

COMMAND = "from tnet_geo.cli import main; main()"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """One worker that the tests of this file share."""
    with cluster(1, None) as client:
        yield client.scheduler.address


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle that looks at up to four tiles of 32 px."""
    return small_bundle(walk=WalkSettings(keep=(2, 1))).save(tmp_path_factory.mktemp("bundle") / "bundle")


def job_of(archive: str | Path, bundle: Path) -> Job:
    """What a worker is told."""
    return Job(str(archive), bundle, Path(), frozenset(), "folded", "float32")


def test_an_archive_that_is_walked_whole_is_estimated_as_it_is_classified(
    tiny: TinyArchive, bundle: Path, tmp_path: Path, address: str
) -> None:
    given: dict[str, Any] = {"archive": tiny.archive.path, "manifest": tiny.manifest, "bundle": bundle}
    found = estimate(**given, scheduler=address, probe=30, prices=Prices(hour=0.5, gb=0.1))
    report = classify(**given, scheduler=address, out=tmp_path / "results")
    assert (found.sites, found.looked_up, found.walked, found.set_aside) == (36, 36, 36, 0)
    assert (found.tiles, found.bytes_decoded) == (108, round(36 * report.bytes_per_site))
    assert (found.tiles_error, found.bytes_error, found.requests, found.exit_code) == (0, 0, 0, 0)
    assert found.tiles == round(36 * report.tiles_per_site)
    assert found.tiles_per_second is not None
    assert found.seconds == pytest.approx(found.tiles / found.tiles_per_second)
    machines = pytest.approx(0.5 * 1_000_000 / 36 * found.tiles / found.tiles_per_second / 3600, abs=1e-3)
    assert found.money_per_million_sites == {"machines": machines, "traffic": 0, "total": machines}
    record = Results.open(tmp_path / "results").record
    for fact in ("tiles", "bytes_decoded", "decisions", "macs", "sites"):
        assert record.predicted[fact] == record.measured[fact]
    assert (record.measured["tiles"], record.measured["macs"]) == (found.tiles, found.macs)


def test_the_command_prints_an_estimate_and_writes_nothing(
    tmp_path: Path, bundle: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = tiny_archive(tmp_path / "in", sites=6)
    shutil.rmtree(tiny.archive.scenes / "s001")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    typed = ["estimate", "--archive", str(tiny.archive.path), "--manifest", tiny.manifest.path]
    typed += ["--bundle", str(bundle), "--scheduler", address, "--keep", "1", "--price-hour", "0.4"]
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert run(app, [*typed, "--json"]) == 3
        found = json.loads(capsys.readouterr().out)
        assert run(app, typed) == 3
    finally:
        os.chdir(here)
    assert (found["sites"], found["set_aside"], found["tiles"]) == (6, 1, 10)
    assert found["money_per_million_sites"]["total"] > 0
    assert "about 1" in capsys.readouterr().out
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_what_cannot_be_is_refused_in_one_sentence(
    tiny: TinyArchive, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["estimate", "--archive", str(tiny.archive.path), "--bundle", str(bundle)]
    for wrong, code, words in (
        ([], 2, "name its sites with --manifest"),
        (["--manifest", tiny.manifest.path, "--probe", "0"], 2, "measures nothing"),
        (["--manifest", tiny.manifest.path, "--split", "seq"], 4, "has no site in split"),
        (["--manifest", tiny.manifest.path, "--keep", "2", "--tiles", "9"], 2, "budget of tiles"),
    ):
        assert run(app, [*typed, *wrong]) == code
        assert words in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UsageError, match="price"):
        Prices(gb=-1)


def test_a_probe_walks_sites_to_their_end_in_groups_that_grow(tiny: TinyArchive, bundle: Path) -> None:
    job, sites = job_of(tiny.archive.path, bundle), tiny.manifest.sites
    everything = walk_some(job, sites, seconds=60)
    classifier = Classifier(small_bundle(walk=WalkSettings(keep=(2, 1))))
    alone = [cost_of([outcome]) for outcome in classifier.answer(tiny.archive, sites)]
    assert everything.each == tuple(alone)
    assert everything.refused == 0
    assert 0 < everything.tiles < sum(cost.tiles for cost in alone)  # the first site only warms up
    assert everything.seconds > 0
    hasty = walk_some(job, sites, seconds=0.0)
    assert hasty.each == tuple(alone[:5])  # the first site, and a first group


def test_a_site_that_breaks_its_walk_ends_the_probe_of_its_worker(
    tiny: TinyArchive, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = SceneReader.submit

    def broken(self: SceneReader, tiles: Sequence[Tile]) -> Future[TileBatch]:
        if self.spec.scene_id == "s020":
            raise RuntimeError("a defect")
        return submit(self, tiles)

    monkeypatch.setattr(SceneReader, "submit", broken)
    walked = walk_some(job_of(tiny.archive.path, bundle), tiny.manifest.sites, seconds=60)
    assert 1 <= len(walked.each) <= 20
    assert all(cost.tiles == 3 for cost in walked.each)


def test_money_is_of_what_has_a_price() -> None:
    cost = Cost(sites=500, bytes_fetched=2_000_000_000, requests=4000, seconds=1800.0)
    assert Prices().of(cost, 1) is None
    assert Prices(hour=0.4, requests=0.0004, gb=0.09).of(cost, 2) == {
        "machines": 800.0,
        "requests": 3.2,
        "traffic": 360.0,
        "total": 1163.2,
    }


def test_a_deadline_ends_in_time(tiny: TinyArchive, bundle: Path, address: str) -> None:
    found = estimate(
        archive=tiny.archive.path,
        manifest=tiny.manifest,
        bundle=bundle,
        scheduler=address,
        budget=Budget(deadline=1e-6),
        probe=0.2,
    )
    assert found.tiles == found.sites == 36


@pytest.mark.slow
def test_requests_to_a_bucket_are_those_that_the_server_counts_and_the_forecast_is_near(
    s3: str, s3_server: ObjectServer, tmp_path: Path
) -> None:
    archive = create_archive(s3, SETTINGS)
    sites = []
    for n in range(8):
        source = write_raster(tmp_path / f"s{n}.tif", random_pixels(n, (700, 700)))
        build_scene(str(source), f"s{n}", s3, SETTINGS)
        sites.append(Site(f"site{n}", str(source), f"s{n}"))
    classifier = Classifier(small_bundle(walk=WalkSettings(keep=(2, 1))))
    before = s3_server.requests()
    metered = MeteredArchive(archive)
    outcomes = list(classifier.answer(metered, sites))
    fact = cost_of(outcomes, metered.lap())
    assert fact.requests == s3_server.requests() - before
    predicted = forecast(classifier, open_archive(s3), sites)
    assert 0.5 < predicted.requests / fact.requests < 2
    assert 0.5 < predicted.bytes_fetched / fact.bytes_fetched < 2


@pytest.mark.slow
def test_sites_that_kill_their_workers_leave_an_estimate_by_arithmetic(tmp_path: Path) -> None:
    work = pyramid_work(tmp_path, scenes=1, windows=6)
    command = [sys.executable, "-c", COMMAND, "estimate", "--archive", work.archive, "--workers", "1"]
    command += ["--manifest", work.manifest, "--bundle", str(work.bundle), "--json"]
    environment = os.environ | haunted(tmp_path / "haunted", "s000", "os.kill(os.getpid(), signal.SIGKILL)")
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    found = json.loads(ended.stdout)
    assert (found["sites"], found["walked"], found["seconds"], found["tiles_error"]) == (6, 0, None, None)
    assert found["tiles"] >= 6


@pytest.mark.slow
def test_a_million_sites_are_estimated_from_some_of_them(tmp_path: Path, bundle: Path, address: str) -> None:
    archive = create_archive(tmp_path / "archive", SETTINGS)
    for n in range(2):
        source = write_raster(tmp_path / f"s{n}.tif", random_pixels(n, (64 << 2 * n, 64 << 2 * n)))
        build_scene(str(source), f"s{n}", archive.path, SETTINGS)
    sites = [Site(str(n), "", f"s{int(n % 10 == 0)}") for n in range(1_000_000)]
    found = estimate(
        archive=archive.path, manifest=Manifest(sites, "sites"), bundle=bundle, scheduler=address, probe=5
    )
    assert found.sites == 1_000_000 > found.looked_up >= found.walked > 100
    fact = 0
    classifier = Classifier(small_bundle(walk=WalkSettings(keep=(2, 1))))
    for scene, count in (("s0", 900_000), ("s1", 100_000)):
        fact += count * cost_of(classifier.answer(archive, [Site("one", "", scene)])).tiles
    assert abs(found.tiles / fact - 1) < 4 * found.tiles_error
