"""The build job: what it counts, what it leaves alone, what it refuses before it starts."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from distributed import Client

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import ArchiveMismatch, InvalidManifest, OutputExists, UsageError
from tnet_geo.operations import build_archive
from tnet_geo.operations.building import build, plan
from tnet_geo.operations.cluster import cluster, run_tasks
from tnet_geo.pyramid import open_archive
from tnet_geo.pyramid.plan import SceneHeader


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster that all tests of this file share, as one on other machines would be."""
    with cluster(2, None) as client:
        yield client.scheduler.address


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twelve scenes of different sizes, one of them shared by two sites."""
    rows = []
    for k in range(12):
        write_raster(tmp_path / "images" / f"{k}.tif", random_pixels(k, (40 + 17 * k, 60 + 11 * k)))
        rows.append((f"site{k}", f"images/{k}.tif", f"scene{k}"))
    rows.append(("another", "images/3.tif", "scene3"))
    return write_table(tmp_path / "sites.csv", rows)


def write_table(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("site_id", "scene", "scene_id"))
        table.writerows(rows)
    return path


def forbid_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a cluster was asked for")

    monkeypatch.setattr(build, "cluster", refuse)


def test_every_scene_is_built_once_and_then_never_again(
    manifest: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "archive"
    report = build_archive(
        manifest, out, half_px=16, scheduler=address, progress=lambda *done: seen.append(done)
    )
    assert (report.scenes, report.built, report.skipped, report.set_aside) == (12, 12, 0, ())
    assert report.exit_code == 0
    assert seen == [(k + 1, 12) for k in range(12)]
    assert report.bytes_written == sum(
        path.stat().st_size for path in (out / "scenes").rglob("*") if path.is_file()
    )
    archive = open_archive(out)
    assert sorted(archive.scene_ids()) == sorted(f"scene{k}" for k in range(12))
    np.testing.assert_array_equal(archive.reader("scene5").read_level(0)[0], random_pixels(5, (125, 115)))
    assert pq.read_table(out / "catalogue").num_rows == 12
    assert not (out / "failed.csv").exists()

    forbid_cluster(monkeypatch)
    again = build_archive(manifest, out, half_px=16)
    assert (again.scenes, again.built, again.skipped, again.bytes_written) == (12, 0, 12, 0)
    assert pq.read_table(out / "catalogue").num_rows == 12


def test_only_what_changed_or_is_new_is_built(manifest: Path, tmp_path: Path, address: str) -> None:
    out = tmp_path / "archive"
    build_archive(manifest, out, half_px=16, scheduler=address)
    changed = random_pixels(99, (70, 80))
    write_raster(tmp_path / "images" / "4.tif", changed)
    write_raster(tmp_path / "images" / "new.tif", random_pixels(98, (70, 80)))
    with manifest.open("a") as file:
        file.write("new,images/new.tif,fresh\n")
    report = build_archive(manifest, out, half_px=16, scheduler=address)
    assert (report.scenes, report.built, report.skipped) == (13, 2, 11)
    np.testing.assert_array_equal(open_archive(out).reader("scene4").read_level(0)[0], changed)


def test_failures_are_listed_until_they_are_mended(manifest: Path, tmp_path: Path, address: str) -> None:
    broken, out = tmp_path / "images" / "7.tif", tmp_path / "archive"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    report = build_archive(manifest, out, half_px=16, scheduler=address)
    assert (report.built, len(report.set_aside), report.exit_code) == (11, 1, 3)
    assert report.set_aside[0].item == "scene7"
    assert (out / "failed.csv").read_text().startswith("item,reason\nscene7,")
    broken.write_bytes(whole)
    mended = build_archive(manifest, out, half_px=16, scheduler=address)
    assert (mended.built, mended.skipped, mended.exit_code) == (1, 11, 0)
    assert not (out / "failed.csv").exists()


def test_bad_input_is_refused_before_anything_is_written(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_cluster(monkeypatch)
    out = tmp_path / "archive"
    with pytest.raises(InvalidManifest):
        build_archive(tmp_path / "absent.csv", out)
    with pytest.raises(InvalidManifest, match=r"scene_id '\.\./up'"):
        build_archive(write_table(tmp_path / "odd.csv", [("a", "images/1.tif", "../up")]), out)
    with pytest.raises(UsageError, match="half_px"):
        build_archive(manifest, out, half_px=0)
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists):
        build_archive(manifest, out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_an_archive_of_other_settings_is_refused_and_left_as_it_is(
    manifest: Path, tmp_path: Path, address: str
) -> None:
    out = tmp_path / "archive"
    build_archive(manifest, out, half_px=16, scheduler=address)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for other in ({"half_px": 32}, {"half_px": 16, "codec": "interop"}):
        with pytest.raises(ArchiveMismatch):
            build_archive(manifest, out, scheduler=address, **other)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_address_where_nobody_answers_is_a_usage_error(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No Dask scheduler answers at nowhere:"):
        build_archive(manifest, tmp_path / "archive", half_px=16, scheduler="nowhere://nobody:1")


def header(scene_id: str, pixels: int, side: int = 1, **facts: object) -> SceneHeader:
    known = {"bands": 1, "itemsize": 1, "tiled": True, "all_valid": True, "decoded_block_bytes": 0}
    return SceneHeader(scene_id, f"{scene_id}.tif", (side, pixels), **known | facts)  # type: ignore[arg-type]


def test_scenes_are_grouped_by_their_pixels_the_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [header("a", 50), header("b", 5), header("c", 5), header("d", 20), header("e", 0)]
    monkeypatch.setattr(plan, "TASK_VALUES", 20)
    groups = plan._groups(scenes, workers=0.1)
    assert [[scene.scene_id for scene in group] for group in groups] == [["a"], ["d"], ["b", "c", "e"]]


def doubled_or_fail(item: int) -> int:
    if item == 3:
        raise ValueError("three")
    return 2 * item


def test_a_failed_task_gives_its_exception_and_the_others_their_results(address: str) -> None:
    done: dict[int, object] = {}
    with Client(address, set_as_default=False) as client:
        run_tasks(client, doubled_or_fail, range(40), on_done=done.__setitem__)
    assert isinstance(done.pop(3), ValueError)
    assert done == {item: 2 * item for item in range(40) if item != 3}


def worker_environment(_: int) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in ("OMP_NUM_THREADS", "NO_ALBUMENTATIONS_UPDATE"))


def begun_with(_: int) -> list[str]:
    """What the environment of a worker was when its process began: glibc looks at no later one."""
    return Path("/proc/self/environ").read_text(encoding="utf-8").split("\0")


def test_workers_keep_to_one_thread_and_stay_at_home(address: str) -> None:
    seen: list[Any] = []
    with Client(address, set_as_default=False) as client:
        run_tasks(client, worker_environment, [0], on_done=lambda _, result: seen.append(result))
        run_tasks(client, begun_with, [0], on_done=lambda _, result: seen.append(result))
    environment, begun = seen
    assert environment == ("1", "1")
    assert "MALLOC_ARENA_MAX=1" in begun
