"""Archives that are damaged on purpose: flipped, deleted, cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, SceneReader, create_archive, open_archive
from tnet_geo.pyramid.build import build_scene

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """The folder of a sealed scene of 200 x 200 pixels without a black one."""
    pixels = np.maximum(random_pixels(1, (200, 200)), 1)
    source = write_raster(tmp_path / "a.tif", pixels)
    archive = create_archive(tmp_path / "archive", SETTINGS)
    build_scene(str(source), "a", archive.path, SETTINGS)
    return archive.scenes / "a"


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
