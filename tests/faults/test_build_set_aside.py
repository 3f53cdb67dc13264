"""What one bad source, a full disk or a worker that dies does to a build: it costs the item, nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, WorkerPlugin

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import TooLittleMemory
from tnet_geo.grid import Window
from tnet_geo.imagery import Site, write_manifest
from tnet_geo.imagery.raster import RasterSource
from tnet_geo.operations import BuildReport, build_archive
from tnet_geo.operations.cluster import cluster
from tnet_geo.pyramid import open_archive
from tnet_geo.pyramid.assembler import Block


class Disturb(WorkerPlugin):
    """In every worker, also one that is started later: reading `cursed` sources does what a test says."""

    name = "disturb"

    def __init__(self, how: str) -> None:
        self.how = how

    def setup(self, worker: object) -> None:
        self.read = read = RasterSource.read
        how = self.how

        def disturbed(source: RasterSource, window: Window) -> Block:
            if "cursed" in source.info.source and (how != "late" or window.row >= 1024):
                if how == "crash":
                    os.abort()
                if how == "late":
                    raise RuntimeError("the cable was pulled out")
                with Path(source.info.source).open("ab") as file:
                    file.write(b"!")
            return read(source, window)

        RasterSource.read = disturbed  # type: ignore[method-assign]

    def teardown(self, worker: object) -> None:
        RasterSource.read = self.read  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with cluster(2, None) as client:
        yield client


@pytest.fixture
def disturbed(client: Client) -> Iterator[Client]:
    """A cluster whose workers are undisturbed again afterwards."""
    yield client
    client.unregister_worker_plugin("disturb")


def build(client: Client, folder: Path, scenes: list[Path], out: Path | None = None) -> BuildReport:
    manifest = folder / "sites.csv"
    manifest.unlink(missing_ok=True)
    write_manifest([Site(path.name, str(path), path.name) for path in scenes], manifest)
    return build_archive(manifest, out or folder / "out", half_px=16, scheduler=client.scheduler.address)


def good(folder: Path, count: int = 4, side: int = 90) -> list[Path]:
    return [write_raster(folder / f"good{k}.tif", random_pixels(k, (side, side))) for k in range(count)]


def reasons(report: BuildReport) -> dict[str, str]:
    return {failure.item: failure.reason for failure in report.set_aside}


def assert_nothing_is_half_written(out: Path) -> None:
    assert not [path for path in (out / "scenes").iterdir() if path.name.startswith(".")]
    assert all((path / "zarr.json").exists() for path in (out / "scenes").iterdir())


def test_what_cannot_be_read_is_set_aside_and_the_rest_is_built(client: Client, tmp_path: Path) -> None:
    scenes = good(tmp_path)
    cut = write_raster(tmp_path / "cut.tif", random_pixels(9, (400, 400)))
    cut.write_bytes(cut.read_bytes()[:200_000])
    plain = {"tiled": None, "blockxsize": None, "blockysize": None}
    jpeg = write_raster(tmp_path / "cut.jpg", random_pixels(9, (400, 400)), driver="JPEG", **plain)
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    (tmp_path / "text.tif").write_text("no raster at all")
    (tmp_path / "empty.tif").touch()
    (tmp_path / "folder.tif").mkdir()
    black = np.zeros((60, 60), np.uint8)
    hidden = write_raster(tmp_path / "hidden.tif", random_pixels(3, (60, 60)), black)
    bad = [
        cut,
        jpeg,
        hidden,
        *(tmp_path / name for name in ("text.tif", "empty.tif", "folder.tif", "gone.tif")),
    ]
    shutil.copy(scenes[0], tmp_path / "twin.tif")

    report = build(client, tmp_path, [*scenes, *bad, tmp_path / "twin.tif"])
    assert (report.built, report.exit_code) == (5, 3)
    found = reasons(report)
    assert sorted(found) == sorted(path.name for path in bad)
    assert all(f"{name} cannot be read" in reason for name, reason in found.items())
    assert "it is a folder" in found["folder.tif"]
    assert "the file is empty" in found["empty.tif"]
    assert "not one of its pixels is valid" in found["hidden.tif"]
    assert (tmp_path / "out" / "failed.csv").read_text().count("\n") == len(bad) + 1
    assert_nothing_is_half_written(tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_what_does_not_fit_on_the_disk_is_set_aside_and_what_fits_is_built(
    client: Client, tmp_path: Path, small_disk: Path
) -> None:
    large = write_raster(tmp_path / "large.tif", random_pixels(1, (2200, 2200)))  # 14 MB, of many tasks
    wide = write_raster(tmp_path / "wide.tif", random_pixels(2, (1500, 1500)), tiled=False)  # one task
    report = build(client, tmp_path, [*good(tmp_path, 12, 200), large, wide], small_disk / "out")
    assert (report.built, report.exit_code) == (12, 3)
    found = reasons(report)
    assert sorted(found) == ["large.tif", "wide.tif"]
    assert all("cannot be written to" in reason and "No space left" in reason for reason in found.values())
    assert_nothing_is_half_written(small_disk / "out")
    archive = open_archive(small_disk / "out")
    for k in range(12):
        pixels, _ = archive.reader(f"good{k}.tif").read_level(0)
        np.testing.assert_array_equal(pixels, random_pixels(k, (200, 200)))


def test_a_file_that_changes_while_it_is_read_is_set_aside(disturbed: Client, tmp_path: Path) -> None:
    disturbed.register_plugin(Disturb("write"))
    cursed = write_raster(tmp_path / "cursed.tif", random_pixels(1, (120, 120)))
    many = write_raster(tmp_path / "cursed-large.tif", random_pixels(1, (2000, 1500)))
    report = build(disturbed, tmp_path, [*good(tmp_path), cursed, many])
    assert (report.built, report.exit_code) == (4, 3)
    assert all("it changed while it was read" in reason for reason in reasons(report).values())
    assert_nothing_is_half_written(tmp_path / "out")


def test_one_subtree_that_fails_costs_its_scene_and_no_other(disturbed: Client, tmp_path: Path) -> None:
    disturbed.register_plugin(Disturb("late"))
    cursed = write_raster(tmp_path / "cursed.tif", random_pixels(1, (2300, 1900)))
    other = write_raster(tmp_path / "other.tif", random_pixels(2, (2300, 1900)))
    report = build(disturbed, tmp_path, [cursed, other, *good(tmp_path)])
    assert (report.built, report.exit_code) == (5, 3)
    assert reasons(report) == {"cursed.tif": "RuntimeError: the cable was pulled out"}
    assert_nothing_is_half_written(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_source_that_kills_its_reader_costs_itself_alone(tmp_path: Path) -> None:
    with cluster(2, None) as client:
        client.register_plugin(Disturb("crash"))
        cursed = write_raster(tmp_path / "cursed.tif", random_pixels(1, (120, 120)))
        report = build(client, tmp_path, [*good(tmp_path, 6), cursed])
    # A scene that was sealed when its worker died, before anybody heard of it, is found there and skipped.
    assert (report.built + report.skipped, report.exit_code) == (6, 3)
    assert "KilledWorker" in reasons(report)["cursed.tif"]
    assert_nothing_is_half_written(tmp_path / "out")


def test_a_block_that_no_worker_can_hold_is_set_aside_before_it_is_read(
    client: Client, tmp_path: Path
) -> None:
    zeros = np.zeros((1, 8192, 8192), np.uint8)
    bomb = write_raster(
        tmp_path / "bomb.tif", zeros, compress="deflate", blockxsize=8192, blockysize=8192, zlevel=9
    )
    manifest = tmp_path / "sites.csv"
    sites = [Site(path.stem, str(path), path.stem) for path in [*good(tmp_path), bomb]]
    write_manifest(sites, manifest)
    report = build_archive(manifest, tmp_path / "out", half_px=16, workers=1, memory="512MiB")
    assert (report.built, report.exit_code) == (4, 3)
    assert "one block of it decodes to 64.0 MiB, more than a worker" in reasons(report)["bomb"]


def test_what_does_not_fit_into_a_worker_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    wide = write_raster(tmp_path / "wide.tif", np.ones((3, 300, 9000), np.uint8), tiled=False)
    manifest = tmp_path / "sites.csv"
    write_manifest([Site("a", str(wide), "a")], manifest)
    with pytest.raises(TooLittleMemory, match=r"wide\.tif needs .* in one worker.*: allow --memory"):
        build_archive(manifest, tmp_path / "out", half_px=16, workers=1, memory="400MiB")
    with pytest.raises(TooLittleMemory, match=r"lower --workers to \d+"):
        build_archive(manifest, tmp_path / "out", half_px=16, workers=10_000)
    assert not (tmp_path / "out").exists()
