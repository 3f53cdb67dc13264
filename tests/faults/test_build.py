"""Builds and archives that are damaged on purpose: killed, flipped, deleted, unreadable."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, SceneReader, create_archive, open_archive
from tnet_geo.pyramid.build import build_scene

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)

BUILD = """
import sys
from tnet_geo.operations import build_archive

if __name__ == "__main__":
    sys.exit(build_archive(sys.argv[1], sys.argv[2], half_px=16, workers=2).exit_code)
"""


def write_sites(folder: Path, scenes: list[Path]) -> Path:
    """A manifest of one site per scene."""
    manifest = folder / "sites.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("site_id", "scene"))
        rows.writerows((scene.stem, scene.relative_to(folder).as_posix()) for scene in scenes)
    return manifest


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def start_build(folder: Path, manifest: Path, out: Path) -> subprocess.Popen[bytes]:
    """The build as a process of its own, with workers of its own."""
    script = folder / "build.py"
    script.write_text(BUILD)
    return subprocess.Popen([sys.executable, "-W", "error", str(script), str(manifest), str(out)])


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """The folder of a sealed scene of 200 x 200 pixels without a black one."""
    pixels = np.maximum(random_pixels(1, (200, 200)), 1)
    source = write_raster(tmp_path / "a.tif", pixels)
    archive = create_archive(tmp_path / "archive", SETTINGS)
    build_scene(str(source), "a", archive.path, SETTINGS)
    return archive.scenes / "a"


def test_a_killed_build_started_again_ends_in_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    scenes = [write_raster(tmp_path / f"{k}.tif", random_pixels(k, (180, 140))) for k in range(120)]
    manifest, killed, whole = write_sites(tmp_path, scenes), tmp_path / "killed", tmp_path / "whole"
    sealed_when_killed = int(np.random.default_rng(2026).integers(5, 50))

    build = start_build(tmp_path, manifest, killed)
    while len(list(killed.glob("scenes/[!.]*/zarr.json"))) < sealed_when_killed:
        assert build.poll() is None, "the build ended before it was killed"
        time.sleep(0.001)
    os.kill(build.pid, signal.SIGKILL)
    assert build.wait() == -signal.SIGKILL
    sealed = {path.parent.name: path.stat().st_mtime_ns for path in killed.glob("scenes/[!.]*/zarr.json")}
    assert 0 < len(sealed) < len(scenes)

    assert start_build(tmp_path, manifest, killed).wait() == 0
    assert start_build(tmp_path, manifest, whole).wait() == 0
    assert contents(killed) == contents(whole)
    for scene_id, when in sealed.items():  # what was sealed was not done again
        assert (killed / "scenes" / scene_id / "zarr.json").stat().st_mtime_ns == when


@pytest.mark.parametrize("level", [0, 1])
def test_a_flipped_byte_in_a_shard_is_an_error_for_the_tiles_that_need_it(scene: Path, level: int) -> None:
    tiles = [Tile(level, row, col) for row in range(3) for col in range(3)]
    expected = dict(zip(tiles, SceneReader(scene).read(tiles).pixels, strict=True))
    shard = scene / str(level) / "data" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 0x10  # in the first chunk's pixels, far from the index at the end
    shard.write_bytes(content)
    # Chunk (0, 0) belongs to tile (0, 0) alone.
    with pytest.raises(TileUnreadable, match=rf"Scene a, tile \(level {level}, row 0, column 0\)"):
        SceneReader(scene).read([tiles[0]])
    for tile in tiles[1:]:
        np.testing.assert_array_equal(SceneReader(scene).read([tile]).pixels[0], expected[tile])


def test_a_flipped_byte_anywhere_in_a_shard_is_never_answered_with_other_pixels(scene: Path) -> None:
    shard = scene / "2" / "data" / "c" / "0" / "0" / "0"
    whole = shard.read_bytes()
    expected = SceneReader(scene).read([Tile(2, 0, 0)]).pixels
    random = np.random.default_rng(3)
    for place in random.integers(0, len(whole), 40):
        content = bytearray(whole)
        content[place] ^= 1 << int(random.integers(8))
        shard.write_bytes(content)
        try:
            pixels = SceneReader(scene).read([Tile(2, 0, 0)]).pixels
        except TileUnreadable:
            continue
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("damage", ["deleted", "truncated", "empty"])
def test_a_lost_shard_is_an_error_and_never_black(scene: Path, damage: str) -> None:
    shard = scene / "0" / "data" / "c" / "0" / "0" / "1"
    if damage == "deleted":
        shard.unlink()
    else:
        content = shard.read_bytes()
        shard.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    reader = SceneReader(scene)
    with pytest.raises(TileUnreadable, match=r"Scene a, tile \(level 0, row 0, column 4\) cannot be read"):
        reader.read([Tile(0, 0, 0), Tile(0, 0, 4)])
    with pytest.raises(TileUnreadable):
        reader.submit([Tile(0, 0, 4)]).result(timeout=60)
    with pytest.raises(TileUnreadable):
        MemoryReader.load(reader)
    assert reader.read([Tile(0, 0, 0)]).pixels.all()


def test_a_scene_without_its_seal_is_rebuilt(scene: Path) -> None:
    archive = open_archive(scene.parent.parent)
    before = contents(scene)
    (scene / "zarr.json").unlink()
    assert list(archive.scene_ids()) == []
    build_scene(str(archive.path.parent / "a.tif"), "a", archive.path, SETTINGS)
    assert contents(scene) == before


def test_what_cannot_be_read_is_set_aside_and_the_rest_is_built(tmp_path: Path) -> None:
    good = [write_raster(tmp_path / f"good{k}.tif", random_pixels(k, (90, 90))) for k in range(4)]
    cut = write_raster(tmp_path / "cut.tif", random_pixels(9, (400, 400)))
    cut.write_bytes(cut.read_bytes()[:200_000])
    (tmp_path / "text.tif").write_text("no raster at all")
    (tmp_path / "empty.tif").touch()
    shutil.copy(good[0], tmp_path / "twin.tif")
    bad = [cut, tmp_path / "text.tif", tmp_path / "empty.tif", tmp_path / "gone.tif"]
    manifest = write_sites(tmp_path, [*good, *bad, tmp_path / "twin.tif"])

    assert start_build(tmp_path, manifest, tmp_path / "out").wait() == 3
    archive = open_archive(tmp_path / "out")
    assert sorted(name.rsplit("-", 1)[0] for name in archive.scene_ids()) == [
        *(f"good{k}" for k in range(4)),
        "twin",
    ]
    with (archive.path / "failed.csv").open(newline="") as file:
        failures = {row["item"].rsplit("-", 1)[0]: row["reason"] for row in csv.DictReader(file)}
    assert sorted(failures) == ["cut", "empty", "gone", "text"]
    assert all(f"{name}.tif cannot be read" in reason for name, reason in failures.items())
    assert all(not path.name.startswith(".") for path in archive.scenes.iterdir())
