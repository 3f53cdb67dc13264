"""Building one scene: what is written, what is left alone, what is decoded, and when it is seen."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery.raster import RasterSource
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, create_archive
from tnet_geo.pyramid.assembler import Block
from tnet_geo.pyramid.build import Drafted, build_scene, draft_scene, seal_scenes
from tnet_geo.pyramid.sealing import begin, sweep_drafts
from tnet_geo.pyramid.store import open_store

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)


def tree_digest(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty archive."""
    return create_archive(tmp_path / "archive", SETTINGS).path


def test_a_scene_is_built_once(folder: Path, tmp_path: Path) -> None:
    scene = str(write_raster(tmp_path / "a.tif", random_pixels(1, (100, 130))))
    first = build_scene(scene, "a", folder, SETTINGS)
    seal = (folder / "scenes" / "a" / "zarr.json").stat().st_mtime_ns
    again = build_scene(scene, "a", folder, SETTINGS)
    assert (first.skipped, again.skipped) == (False, True)
    assert first.digest == again.digest
    assert first.bytes_written == sum(
        path.stat().st_size for path in (folder / "scenes").rglob("*") if path.is_file()
    )
    assert (folder / "scenes" / "a" / "zarr.json").stat().st_mtime_ns == seal


def test_a_source_that_changed_is_built_again(folder: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "a.tif", random_pixels(1, (100, 130)))
    first = build_scene(str(scene), "a", folder, SETTINGS)
    pixels = random_pixels(2, (90, 70))
    write_raster(scene, pixels)
    second = build_scene(str(scene), "a", folder, SETTINGS)
    assert not second.skipped
    assert second.digest != first.digest
    stored, _ = create_archive(folder, SETTINGS).reader("a").read_level(0)
    np.testing.assert_array_equal(stored, pixels)
    assert [path.name for path in (folder / "scenes").iterdir()] == ["a"]


def test_other_settings_give_another_digest(folder: Path, tmp_path: Path) -> None:
    scene = str(write_raster(tmp_path / "a.tif", random_pixels(1, (60, 60))))
    other = ArchiveSettings(half_px=16, shard_chunks=2)
    second = create_archive(tmp_path / "other", other).path
    assert build_scene(scene, "a", folder, SETTINGS).digest != build_scene(scene, "a", second, other).digest


def test_two_builds_of_one_scene_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    mask = np.where(np.random.default_rng(3).random((100, 130)) < 0.9, 255, 0).astype(np.uint8)
    scene = str(write_raster(tmp_path / "a.tif", random_pixels(1, (100, 130)), mask))
    second = create_archive(tmp_path / "second", SETTINGS).path
    build_scene(scene, "a", folder, SETTINGS)
    build_scene(scene, "a", second, SETTINGS)
    assert tree_digest(folder) == tree_digest(second)


def test_a_draft_is_not_seen_before_it_is_sealed(folder: Path, tmp_path: Path) -> None:
    archive = create_archive(folder, SETTINGS)
    scene = str(write_raster(tmp_path / "a.tif", random_pixels(1, (100, 130))))
    draft = draft_scene(scene, "a", folder, SETTINGS)
    assert isinstance(draft, Drafted)
    assert not archive.has("a")
    assert list(archive.scene_ids()) == []
    seal_scenes([draft])
    assert list(archive.scene_ids()) == ["a"]


def test_of_two_builds_at_once_one_is_kept_and_nothing_is_left_over(folder: Path, tmp_path: Path) -> None:
    scene = str(write_raster(tmp_path / "a.tif", random_pixels(1, (100, 130))))
    drafts = [draft_scene(scene, "a", folder, SETTINGS) for _ in range(2)]
    seal_scenes([draft for draft in drafts if isinstance(draft, Drafted)])
    assert [path.name for path in (folder / "scenes").iterdir()] == ["a"]


def test_an_unreadable_source_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    whole = write_raster(tmp_path / "a.tif", random_pixels(1, (400, 400))).read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceUnreadable, match=r"a\.tif cannot be read"):
        build_scene(str(tmp_path / "a.tif"), "a", folder, SETTINGS)
    assert list((folder / "scenes").iterdir()) == []


@pytest.mark.parametrize("scene_id", ["../a", "a/b", "", ".", "..", ".a"])
def test_a_scene_id_never_leads_out_of_the_archive(folder: Path, tmp_path: Path, scene_id: str) -> None:
    scene = str(write_raster(tmp_path / "a.tif", random_pixels(1, (20, 20))))
    with pytest.raises(ValueError, match="plain name"):
        build_scene(scene, scene_id, folder, SETTINGS)


def test_a_mask_under_which_all_is_valid_is_not_stored(folder: Path, tmp_path: Path) -> None:
    pixels = random_pixels(1, (100, 130))
    scene = str(write_raster(tmp_path / "a.tif", pixels, np.full((100, 130), 255, np.uint8)))
    build_scene(scene, "a", folder, SETTINGS)
    reader = create_archive(folder, SETTINGS).reader("a")
    assert reader.spec.all_valid
    assert not list((folder / "scenes").rglob("valid"))
    assert (reader.read([Tile(0, 0, 0)]).validity == 255).all()


def test_nodata_never_mixes_into_valid_pixels(folder: Path, tmp_path: Path) -> None:
    pixels = random_pixels(1, (120, 120), bands=1, dtype="float32") % 100 + 1000
    pixels[:, :37, :37] = -9999  # an odd side, so that blocks of 2 x 2 hold both
    pixels[:, 80:, 80:] = np.nan
    scene = str(write_raster(tmp_path / "a.tif", pixels, nodata=-9999))
    build_scene(scene, "a", folder, SETTINGS)
    reader = create_archive(folder, SETTINGS).reader("a")
    for level in range(reader.spec.levels):
        stored, validity = reader.read_level(level)
        assert validity is not None
        assert not validity[: 37 >> level, : 37 >> level].any()
        assert not validity[80 >> level :, 80 >> level :].any()
        assert ((stored[0] >= 1000) & (stored[0] < 1100))[validity > 0].all()
        assert (validity > 0).sum() >= (120 * 120 - 37 * 37 - 40 * 40) >> (2 * level)


@pytest.mark.parametrize("driver", ["JPEG", "PNG", "GTiff"])
def test_a_source_without_inner_tiles_is_decoded_once_from_top_to_bottom(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    seen: list[Window] = []
    read = RasterSource.read

    def counting(self: RasterSource, window: Window) -> Block:
        seen.append(window)
        return read(self, window)

    monkeypatch.setattr(RasterSource, "read", counting)
    pixels = random_pixels(1, (200, 150))
    profile = (
        {"tiled": False} if driver == "GTiff" else {"tiled": None, "blockxsize": None, "blockysize": None}
    )
    path = write_raster(tmp_path / "a", pixels, driver=driver, **profile)
    build_scene(str(path), "a", folder, SETTINGS)
    assert seen == [
        Window(0, 0, 64, 150),
        Window(64, 0, 64, 150),
        Window(128, 0, 64, 150),
        Window(192, 0, 8, 150),
    ]
    with rasterio.open(path) as dataset:
        expected = MemoryReader.of(dataset.read(), 16)
    stored = create_archive(folder, SETTINGS).reader("a")
    for level in range(stored.spec.levels):
        np.testing.assert_array_equal(stored.read_level(level)[0], expected.level(level)[0])
    assert {path.suffix for path in (folder / "scenes").rglob("*") if path.is_file()} == {"", ".json"}


def test_a_source_with_inner_tiles_is_read_once_and_in_the_order_that_needs_least_room(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    read = RasterSource.read

    def counting(self: RasterSource, window: Window) -> Block:
        seen.append((window.row // 64, window.col // 64))
        return read(self, window)

    monkeypatch.setattr(RasterSource, "read", counting)
    build_scene(str(write_raster(tmp_path / "a.tif", random_pixels(1, (200, 180)))), "a", folder, SETTINGS)
    quarters = [(0, 0), (0, 1), (1, 0), (1, 1)]
    beside, below = [(0, 2), (1, 2)], [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert seen == [*quarters, *beside, *below, (2, 2), (3, 2)]


def test_a_source_without_one_valid_pixel_has_no_pyramid(folder: Path, tmp_path: Path) -> None:
    mask = np.zeros((100, 130), np.uint8)
    scene = write_raster(tmp_path / "a.tif", random_pixels(1, (100, 130)), mask)
    with pytest.raises(SourceUnreadable, match="not one of its pixels is valid"):
        build_scene(str(scene), "a", folder, SETTINGS)
    assert list((folder / "scenes").iterdir()) == []


def test_a_source_that_is_written_to_while_it_is_read_has_no_pyramid(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "a.tif", random_pixels(1, (100, 130)))
    read = RasterSource.read

    def disturbed(self: RasterSource, window: Window) -> Block:
        with scene.open("ab") as file:
            file.write(b"more")
        return read(self, window)

    monkeypatch.setattr(RasterSource, "read", disturbed)
    with pytest.raises(SourceUnreadable, match="it changed while it was read"):
        build_scene(str(scene), "a", folder, SETTINGS)
    assert list((folder / "scenes").iterdir()) == []


def test_every_shard_of_every_level_is_there(folder: Path, tmp_path: Path) -> None:
    pixels = np.zeros((3, 300, 200), np.uint8)  # black: the value that stores leave out by default
    build_scene(str(write_raster(tmp_path / "a.tif", pixels)), "a", folder, SETTINGS)
    spec = create_archive(folder, SETTINGS).reader("a").spec
    for level, (rows, cols) in enumerate(spec.shapes):
        shards = [
            path
            for path in (folder / "scenes" / "a" / str(level) / "data" / "c").rglob("*")
            if path.is_file()
        ]
        assert len(shards) == -(-rows // 64) * -(-cols // 64)


def test_drafts_of_the_dead_are_swept_and_those_of_the_living_are_not(folder: Path) -> None:
    scenes = folder / "scenes"
    living = Path(begin(open_store(scenes), "scene.with.dots", "").store.url)
    host, _, token = living.name.rsplit(".", 2)[1].split("-")
    dead = scenes / f".scene.{host}-{2**22 + 1}-{token}.draft"  # beyond the largest process id
    elsewhere = scenes / f".scene.another{host}-{2**22 + 1}-{token}.draft"
    for path in (dead, elsewhere):
        path.mkdir(parents=True)
    assert str(os.getpid()) in living.name
    assert sweep_drafts(open_store(scenes)) == 1
    assert {path.name for path in scenes.iterdir()} == {living.name, elsewhere.name}
