"""Builds into buckets and packs, on several workers, and what is said of them beforehand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from typer.testing import CliRunner

from tests.object_store import BUCKET, ObjectServer, object_server
from tests.rasters import random_pixels, write_raster
from tnet_geo.cli.app import app
from tnet_geo.errors import UsageError
from tnet_geo.grid import Window
from tnet_geo.imagery import Site, write_manifest
from tnet_geo.operations import build_archive, cluster, plan_archive
from tnet_geo.operations.building import build, rate
from tnet_geo.operations.cluster import cluster as started
from tnet_geo.pyramid import open_archive
from tnet_geo.pyramid.canvas import canvas_site
from tnet_geo.pyramid.sealing import begin
from tnet_geo.pyramid.store import open_store

SIZES = {"large": (2300, 1900), "a": (130, 90), "b": (77, 300), "c": (64, 64)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with (
        object_server(tmp_path_factory.mktemp("server") / "log") as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def client(server: ObjectServer) -> Iterator[Client]:
    """Two workers that have the server's address and credentials in their environment."""
    with started(2, None) as client:
        yield client


@pytest.fixture(autouse=True)
def _rates_are_measured_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "SECONDS", 0.2)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    scenes = {
        name: write_raster(tmp_path / f"{name}.tif", random_pixels(k, shape))
        for k, (name, shape) in enumerate(SIZES.items())
    }
    write_manifest([Site(name, str(path), name) for name, path in scenes.items()], tmp_path / "sites.csv")
    return tmp_path / "sites.csv"


def contents(place: str) -> dict[str, bytes | None]:
    store = open_store(place)
    return {key: store.read(key) for key, _ in store.sizes() if not key.startswith("catalogue/")}


def test_an_archive_in_a_bucket_has_the_bytes_of_one_in_a_folder_and_is_resumed_there(
    manifest: Path, tmp_path: Path, client: Client
) -> None:
    place, address = f"s3://{BUCKET}/built", client.scheduler.address
    local = build_archive(manifest, tmp_path / "local", half_px=16, scheduler=address)
    remote = build_archive(manifest, place, half_px=16, scheduler=address)
    assert (remote.built, remote.archive, remote.exit_code) == (4, place, 0)
    assert remote.bytes_written == local.bytes_written
    whole = contents(place)
    assert whole == contents(str(tmp_path / "local"))
    stored, _ = open_archive(place).reader("large").read_level(0)
    np.testing.assert_array_equal(stored, random_pixels(0, SIZES["large"]))

    # What a killed build leaves there: shards without a seal, and shards that are not ours.
    open_store(place).at("scenes", "large").remove("zarr.json")
    open_store(place).at("scenes", "b").remove("zarr.json")
    draft = begin(open_store(place).at("scenes"), "b", "of another source")
    draft.store.write("9/data/c/0/0/0", b"left behind")
    again = build_archive(manifest, place, half_px=16, scheduler=address)
    assert (again.built, again.skipped) == (2, 2)
    assert contents(place) == whole


@pytest.mark.slow
def test_one_and_four_workers_write_the_same_bytes(manifest: Path, tmp_path: Path) -> None:
    for workers in (1, 4):
        report = build_archive(manifest, tmp_path / str(workers), half_px=16, workers=workers)
        assert report.built == 4
        assert 0 < report.memory_peak <= report.memory_planned
    assert contents(str(tmp_path / "1")) == contents(str(tmp_path / "4"))


def test_small_scenes_are_packed_beside_large_ones_and_never_twice(
    manifest: Path, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, address = tmp_path / "out", client.scheduler.address
    planned = plan_archive(manifest, out, half_px=16, scheduler=address, packs=True)
    assert (planned.packs, planned.skipped) == (3, 0)
    report = build_archive(manifest, out, half_px=16, scheduler=address, packs=True)
    assert (report.scenes, report.built, report.exit_code) == (4, 4, 0)
    archive = open_archive(out)
    assert sorted(archive.scene_ids()) == sorted(SIZES)
    assert [path.name for path in (out / "scenes").iterdir()] == ["large"]
    written = sum(
        1
        for path in out.rglob("*")
        if path.is_file() and {"scenes", "packs"} & {*path.relative_to(out).parts}
    )
    assert written <= planned.files
    monkeypatch.setattr(build, "cluster", lambda *_: pytest.fail("a cluster was asked for"))
    again = build_archive(manifest, out, half_px=16, packs=True)
    assert (again.built, again.skipped) == (0, 4)


def test_on_a_canvas_every_site_is_a_scene_of_its_own(tmp_path: Path, client: Client) -> None:
    source = write_raster(tmp_path / "a.tif", random_pixels(1, (400, 500)))
    sites = [Site(f"site {k}", str(source), "a", Window(60 * k, 80 * k, 90, 70)) for k in range(5)]
    table = write_manifest(sites, tmp_path / "sites.csv")
    address = client.scheduler.address
    report = build_archive(table, tmp_path / "out", half_px=16, scheduler=address, canvas="fit:64")
    assert (report.scenes, report.built, report.exit_code) == (5, 5, 0)
    archive = open_archive(tmp_path / "out")
    for site in sites:
        assert archive.adopt(site) == canvas_site(site)
        assert archive.reader(archive.adopt(site).scene_id).spec.shape == (64, 64)
    again = build_archive(table, tmp_path / "out", half_px=16, scheduler=address, canvas="fit:64")
    assert (again.built, again.skipped) == (0, 5)


def test_a_plan_says_what_the_build_then_does_and_writes_nothing(
    manifest: Path, tmp_path: Path, client: Client
) -> None:
    (tmp_path / "empty.tif").touch()
    line = manifest.read_text().splitlines()[-1]  # that of scene c
    with manifest.open("a") as file:
        file.write(re.sub(r"\bc\b", "empty", line) + "\n")
    out, address = tmp_path / "out", client.scheduler.address
    plan = plan_archive(manifest, out, half_px=16, scheduler=address)
    assert not out.exists()
    report = build_archive(manifest, out, half_px=16, scheduler=address)
    scenes = list((out / "scenes").rglob("*"))
    assert (plan.scenes, len(plan.set_aside), plan.exit_code) == (5, 1, 3)
    assert plan.set_aside == report.set_aside
    assert plan.split_scenes == 1
    assert plan.tasks > 16
    assert plan.files == sum(path.is_file() for path in scenes)
    assert 0.5 < plan.bytes_written / report.bytes_written < 2
    assert plan.memory_peak == report.memory_planned >= report.memory_peak
    assert plan.seconds
    done = plan_archive(manifest, out, half_px=16, scheduler=address)
    assert (done.skipped, done.tasks, done.files, done.seconds) == (4, 0, 0, None)


def test_the_command_prints_the_plan(manifest: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["pyramid", "plan", str(manifest), "-o", str(tmp_path / "out"), "--json"])
    assert told.exit_code == 0
    facts = json.loads(told.stdout)
    assert facts["scenes"] == 4
    assert facts["memory_peak"] < facts["memory_limit"]
    told = CliRunner().invoke(app, ["pyramid", "plan", str(manifest), "-o", str(tmp_path / "out")])
    assert "4, of them 0 sealed already" in told.stdout


def test_a_cluster_of_other_versions_is_refused(
    manifest: Path, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differ(self: Client, check: bool = False) -> None:
        raise ValueError("Mismatched versions found\n\nmsgpack  1.0  2.0")

    monkeypatch.setattr(cluster.Client, "get_versions", differ)
    with pytest.raises(UsageError, match=r"Mismatched versions found msgpack .* install the same versions"):
        build_archive(manifest, tmp_path / "out", scheduler=client.scheduler.address)
    assert not (tmp_path / "out").exists()


def test_an_impossible_amount_of_memory_is_a_usage_error(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'much' is no amount of memory"):
        build_archive(manifest, tmp_path / "out", memory="much")
