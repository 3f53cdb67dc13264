"""What is mended is what it was, byte for byte; what cannot be is named and left alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rasterio

from tests.damage import WAYS, Undamaged, cut, flip, packed_archive, scenes_archive, tree
from tests.rasters import random_pixels, write_raster
from tnet_geo.imagery.manifest import Manifest
from tnet_geo.pyramid.check import check_archive
from tnet_geo.pyramid.repair import repair_archive


@pytest.fixture(scope="module", params=["scenes", "packs", "canvas"])
def any_archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undamaged]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "scenes":
        yield scenes_archive(folder)
    else:
        yield packed_archive(folder, "native" if request.param == "packs" else "fit:40")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Undamaged:
    return scenes_archive(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def copy(scenes: Undamaged, tmp_path: Path) -> Path:
    """An archive that may be damaged."""
    return Path(shutil.copytree(scenes.path, tmp_path / "archive"))


@pytest.mark.parametrize(
    ("way", "step"),
    [*((way, 7) for way in WAYS), *(pytest.param(way, 1, marks=pytest.mark.slow) for way in WAYS)],
)
def test_every_shard_can_be_mended_alone(
    any_archive: Undamaged, way: Callable[[Path, random.Random], None], step: int
) -> None:
    """Each shard in turn, here every so many, is flipped, cut off or lost, and nothing else is written."""
    rng = random.Random(0)
    for name in any_archive.shards[::step]:
        times = {path: path.stat().st_mtime_ns for path in any_archive.path.rglob("*") if path.is_file()}
        way(any_archive.path / name, rng)
        report = repair_archive(any_archive.path, any_archive.manifest)
        assert (report.exit_code, report.shards, report.faults) == (0, 1, 1), (name, report)
        assert tree(any_archive.path) == any_archive.files
        times.pop(any_archive.path / name)
        assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_all_shards_can_be_mended_together(any_archive: Undamaged) -> None:
    rng = random.Random(1)
    for name in any_archive.shards:
        rng.choice(WAYS)(any_archive.path / name, rng)
    report = repair_archive(any_archive.path, any_archive.manifest)
    assert (report.exit_code, report.shards) == (0, len(any_archive.shards))
    assert tree(any_archive.path) == any_archive.files
    assert check_archive(any_archive.path).exit_code == 0


def test_every_document_can_be_mended(any_archive: Undamaged) -> None:
    """Seals and the indexes of packs too."""
    rng = random.Random(2)
    for name in [name for name in any_archive.files if name.endswith(("zarr.json", "index.parquet"))]:
        rng.choice(WAYS)(any_archive.path / name, rng)
        report = repair_archive(any_archive.path, any_archive.manifest)
        assert report.exit_code == 0, (name, report)
        assert report.documents + report.rebuilt == 1
        assert tree(any_archive.path) == any_archive.files


def test_a_seal_and_what_lies_below_it_are_mended_in_one_go(any_archive: Undamaged) -> None:
    seal = next(name for name in any_archive.files if name.count("/") == 2 and name.endswith("zarr.json"))
    folder = seal.removesuffix("zarr.json")
    shards = [name for name in any_archive.shards if name.startswith(folder)]
    rng = random.Random(3)
    for name in (seal, *shards[::3]):
        flip(any_archive.path / name, rng)
    assert repair_archive(any_archive.path, any_archive.manifest).exit_code == 0
    assert tree(any_archive.path) == any_archive.files


def test_a_pack_that_lost_both_seal_and_index_is_named(tmp_path: Path) -> None:
    archive = packed_archive(tmp_path)
    pack = next(archive.path.glob("packs/*"))
    (pack / "zarr.json").unlink()
    (pack / "index.parquet").unlink()
    report = repair_archive(archive.path, archive.manifest)
    assert report.exit_code == 3
    assert f"remove packs/{pack.name} and run `tnet-geo pyramid build`" in report.set_aside[0].reason


def test_an_index_is_never_taken_from_another_source(tmp_path: Path) -> None:
    archive = packed_archive(tmp_path)
    index = next(archive.path.glob("packs/*/index.parquet"))
    index.write_bytes(b"")
    with rasterio.open(archive.manifest.sites[0].scene, "r+") as source:
        source.crs = "EPSG:32633"
    with rasterio.open(archive.manifest.sites[5].scene, "r+") as source:
        source.crs = "EPSG:32633"
    report = repair_archive(archive.path, archive.manifest)
    assert report.exit_code == 3
    assert "give another index than was sealed" in report.set_aside[0].reason
    assert index.read_bytes() == b""


def test_a_lost_scene_is_built_again(scenes: Undamaged, copy: Path) -> None:
    shutil.rmtree(copy / "scenes/masked")
    report = repair_archive(copy, scenes.manifest)
    assert (report.rebuilt, report.exit_code) == (1, 0)
    assert tree(copy) == scenes.files


def test_the_catalogue_is_completed(scenes: Undamaged, copy: Path) -> None:
    (part,) = (copy / "catalogue").iterdir()
    cut(part, random.Random(0))
    report = repair_archive(copy)
    assert (report.catalogued, report.exit_code) == (4, 0)
    assert tree(copy) == scenes.files


def test_strays_are_removed_and_nothing_else_is_touched(scenes: Undamaged, copy: Path) -> None:
    (copy / "scenes/plain/0/data/c/0/0/0.__lock").write_bytes(b"")
    (copy / "scenes/plain/notes.txt").write_text("mine")
    report = repair_archive(copy)
    assert (report.removed, report.exit_code) == (2, 0)
    assert tree(copy) == scenes.files


def test_without_a_manifest_coarser_levels_are_mended_and_native_shards_named(
    scenes: Undamaged, copy: Path
) -> None:
    native, coarse = "scenes/plain/0/data/c/0/0/0", "scenes/masked/1/valid/c/0/0"
    for name in (native, coarse):
        flip(copy / name, random.Random(0))
    report = repair_archive(copy)
    assert (report.shards, report.exit_code) == (1, 3)
    assert [(failure.item, failure.reason) for failure in report.set_aside] == [
        (native, "its source is not in the manifest")
    ]
    assert (copy / coarse).read_bytes() == scenes.files[coarse]
    assert repair_archive(copy, scenes.manifest).exit_code == 0
    assert tree(copy) == scenes.files


def test_a_shard_whose_finer_level_cannot_be_mended_is_named_too(scenes: Undamaged, copy: Path) -> None:
    rng = random.Random(0)
    for name in ("scenes/plain/0/data/c/0/0/0", "scenes/plain/1/data/c/0/0/0"):
        flip(copy / name, rng)
    report = repair_archive(copy)
    assert report.exit_code == 3
    assert "level 0, of which it is made, cannot be read" in report.set_aside[1].reason


def test_another_source_is_never_taken_for_the_scenes_own(tmp_path: Path) -> None:
    archive = scenes_archive(tmp_path)
    shard = archive.path / "scenes/plain/0/data/c/0/0/0"
    flip(shard, random.Random(0))
    damaged = shard.read_bytes()
    write_raster(tmp_path / "plain.tif", random_pixels(99, (75, 103)))
    report = repair_archive(archive.path, archive.manifest)
    assert report.exit_code == 3
    assert "is not what it was built from: run `tnet-geo pyramid build`" in report.set_aside[0].reason
    assert shard.read_bytes() == damaged


def test_a_source_that_is_gone_is_named_and_a_damaged_seal_kept(tmp_path: Path) -> None:
    archive = scenes_archive(tmp_path)
    (tmp_path / "plain.tif").unlink()
    seal = archive.path / "scenes/plain/zarr.json"
    seal.write_bytes(seal.read_bytes()[:-9])
    kept = seal.read_bytes()
    report = repair_archive(archive.path, archive.manifest)
    assert [failure.item for failure in report.set_aside] == ["scenes/plain/zarr.json"]
    assert "plain.tif cannot be read" in report.set_aside[0].reason
    assert seal.read_bytes() == kept
    nothing = repair_archive(archive.path, Manifest([], "none"))
    assert "its source is not in the manifest" in nothing.set_aside[0].reason


def test_in_a_pack_only_the_damaged_site_needs_its_source(tmp_path: Path) -> None:
    archive = packed_archive(tmp_path)
    name = next(name for name in archive.shards if "/0/data/" in name)
    flip(archive.path / name, random.Random(5))
    needed = []
    for site in archive.manifest.sites:
        alone = Manifest([site], "one.parquet")
        report = repair_archive(archive.path, alone)
        if report.exit_code == 0:
            needed.append(site)
            assert tree(archive.path) == archive.files
            flip(archive.path / name, random.Random(5))
        else:
            assert report.set_aside[0].reason == "its source is not in the manifest"
    assert len(needed) == 1
