"""Tiles of stored scenes: damage is named by tile and never black, clean pixels, one read for many tiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid import Archive, ArchiveSettings, SceneReader, batches, create_archive
from tnet_geo.pyramid.build import build_scene

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)


@pytest.fixture
def scene(archive: Archive, tmp_path: Path) -> Path:
    """A copy of `plain`, 150 x 203 pixels in shards of 64, that may be damaged."""
    return Path(shutil.copytree(archive.scene_store("plain").url, tmp_path / "scenes" / "plain"))


def test_a_deleted_shard_is_named_by_the_first_tile_that_needs_it(scene: Path) -> None:
    (scene / "0/data/c/0/0/1").unlink()
    reader = SceneReader(scene)
    with pytest.raises(TileUnreadable, match=r"Scene plain, tile \(level 0, row 1, column 3\)") as damage:
        reader.read([Tile(0, 0, 0), Tile(0, 1, 3), Tile(0, 2, 4), Tile(2, 0, 0)])
    assert "c/0/0/1" in damage.value.cause
    assert "source locations" not in damage.value.cause
    sound = [Tile(0, 0, 0), Tile(0, 1, 1), Tile(0, 5, 5), Tile(2, 0, 0)]
    np.testing.assert_array_equal(reader.read(sound).pixels[1].any(axis=(1, 2)), [True] * 3)


def test_every_tile_that_touches_a_flipped_byte_fails_and_no_other(scene: Path) -> None:
    shard = scene / "0/data/c/0/1/1"
    content = bytearray(shard.read_bytes())
    content[10] ^= 4  # in the shard's first chunk, at row 4 and column 4 of the lattice
    shard.write_bytes(content)
    reader = SceneReader(scene)
    tiles = [Tile(0, row, col) for row in range(9) for col in range(12)]
    failed = {tile for tile in tiles if reader.submit([tile]).exception() is not None}
    assert failed == {Tile(0, row, col) for row in (3, 4) for col in (3, 4)}
    assert isinstance(reader.submit(tiles).exception(), TileUnreadable)


def test_a_truncated_shard_is_an_error(scene: Path) -> None:
    shard = scene / "0/data/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(TileUnreadable, match="row 0, column 0"):
        SceneReader(scene).read([Tile(0, 0, 0)])


def test_opening_a_scene_and_reading_it_reads_no_metadata_but_the_seal(scene: Path) -> None:
    expected = SceneReader(scene).read([Tile(0, 1, 1), Tile(1, 0, 0)])
    for path in scene.glob("*/**/zarr.json"):
        path.unlink()
    found = SceneReader(scene).read([Tile(0, 1, 1), Tile(1, 0, 0)])
    np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_tiles_of_one_level_are_one_read(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    stacks: list[int] = []
    stack = ts.stack

    def counted(views: list[ts.TensorStore]) -> ts.TensorStore:
        stacks.append(len(views))
        return stack(views)

    monkeypatch.setattr(batches.ts, "stack", counted)
    reader = archive.reader("plain")
    inner = [Tile(0, row, col) for row in range(4) for col in range(4)]
    reader.read([*inner, *inner, Tile(0, 8, 12), Tile(1, 0, 0)])
    assert sorted(stacks) == [1, 1, 16]


def test_a_batch_is_the_callers_to_change(archive: Archive) -> None:
    for scene_id in ("plain", "masked"):
        reader = archive.reader(scene_id)
        first = reader.read([Tile(0, 1, 1), Tile(0, 2, 2)])
        before = first.pixels.copy(), first.validity.copy()
        first.pixels[:] = 7
        first.validity[:] = 7
        again = reader.read([Tile(0, 1, 1), Tile(0, 2, 2)])
        np.testing.assert_array_equal(again.pixels, before[0])
        np.testing.assert_array_equal(again.validity, before[1])


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", -9999.0), ("uint8", 255.0), ("float32", float("nan")), ("float64", float("-inf"))],
)
def test_nodata_is_kept_as_stored_and_never_in_a_tile(tmp_path: Path, dtype: str, nodata: float) -> None:
    pixels = random_pixels(3, (100, 130), dtype=dtype)
    pixels[:, :40, :50] = nodata
    pixels[0, 60, 60] = nodata
    source = write_raster(tmp_path / "a.tif", pixels, nodata=nodata)
    archive = create_archive(tmp_path / "archive", SETTINGS)
    build_scene(str(source), "a", archive.store, SETTINGS)
    reader = archive.reader("a")
    assert repr(reader.spec.nodata) == repr(nodata)
    np.testing.assert_array_equal(reader.read_level(0)[0], pixels)
    tile = reader.read([Tile(0, 0, 0), Tile(0, 3, 3)])
    assert not tile.pixels[0].any()
    assert not tile.validity[0].any()
    assert tile.pixels[1, 0, 12, 12] == 0
    assert tile.validity[1, 12, 12] == 255  # two of its three values count
    other = pixels[1, 48:80, 48:80]
    np.testing.assert_array_equal(tile.pixels[1, 1], np.where(other == nodata, 0, other))
