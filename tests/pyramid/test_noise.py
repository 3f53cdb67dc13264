"""Copies in which unread chunks hold noise: what is kept is the same, bit by bit, everything else is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.shutil import copy as gdal_copy

from tests.packs import images, members_of, pack_all, scattered
from tests.range_server import range_server
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import PlaceUnusable, SceneMissing, TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid import Archive, ArchiveSettings, CogArchive, create_archive, noise, open_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.check import check_archive
from tnet_geo.pyramid.cog_noise import noised_cog
from tnet_geo.pyramid.inventory import Item
from tnet_geo.pyramid.noise import item_of, noised_item
from tnet_geo.pyramid.pack_reader import PackReader
from tnet_geo.pyramid.reader import SceneReader

HALF_PX = 16
SHAPE = (250, 205)
KEPT = [Tile(3, 0, 0), Tile(2, 1, 1), Tile(1, 3, 3), Tile(0, 7, 9)]


def chance() -> np.random.Generator:
    return np.random.default_rng(5)


def sound(copy: Archive) -> bool:
    """Whether it is an archive like any other; only a table of contents is missing."""
    return {fault.what for fault in check_archive(copy.place).faults} == {"catalogue"}


def hold(truth: SceneReader | PackReader, copy: SceneReader | PackReader) -> None:
    """Chunks of the tiles that are kept are what they were, and every other one is another."""
    half = truth.spec.half_px
    for level in range(truth.spec.levels):
        near = {(t.row + i, t.col + j) for t in KEPT if t.level == level for i in (0, 1) for j in (0, 1)}
        for before, after in zip(truth.read_level(level), copy.read_level(level), strict=True):
            if before is None or after is None:
                assert before is after
                continue
            for row in range(-(-before.shape[-2] // half)):
                for col in range(-(-before.shape[-1] // half)):
                    here = slice(row * half, row * half + half), slice(col * half, col * half + half)
                    same = np.array_equal(before[..., *here], after[..., *here])
                    assert same == ((row, col) in near), (level, row, col)


@pytest.mark.parametrize(("masked", "dtype"), [(False, "uint8"), (True, "uint16"), (True, "float32")])
def test_a_scene_keeps_what_was_read_and_is_noise_elsewhere(masked: bool, dtype: str, tmp_path: Path) -> None:
    archive = create_archive(tmp_path / "archive", ArchiveSettings(half_px=HALF_PX, shard_chunks=4))
    pixels = random_pixels(3, SHAPE).astype(dtype)
    mask = {"mask": scattered(1, SHAPE)} if masked else {}
    source = write_raster(tmp_path / "scene.tif", pixels, **mask)
    build_scene(str(source), "scene", archive.place, archive.settings)
    item = item_of(archive, "scene")
    (tmp_path / "noise").mkdir()
    copy, count = noised_item(
        archive, item, {"scene": KEPT}, HALF_PX, folder=tmp_path / "noise", chance=chance()
    )
    assert item == Item("scene", "scene")
    chunks = sum(
        -(-rows // HALF_PX) * -(-cols // HALF_PX) for rows, cols in archive.reader("scene").spec.shapes
    )
    assert (count.kept, count.kept + count.noised) == (16, chunks)
    assert sound(copy)
    hold(archive.reader("scene"), copy.reader("scene"))


def test_a_coarser_lattice_keeps_the_chunks_below_its_tiles(tmp_path: Path) -> None:
    archive = create_archive(tmp_path / "archive", ArchiveSettings(half_px=8, shard_chunks=4))
    source = write_raster(tmp_path / "scene.tif", random_pixels(3, SHAPE))
    build_scene(str(source), "scene", archive.place, archive.settings)
    (tmp_path / "noise").mkdir()
    copy, count = noised_item(
        archive, Item("scene", "scene"), {"scene": KEPT}, HALF_PX, folder=tmp_path / "noise", chance=chance()
    )
    assert count.kept == 16 * 4
    hold(archive.reader("scene", HALF_PX), copy.reader("scene", HALF_PX))


@pytest.mark.parametrize("masked", [False, True])
def test_a_pack_keeps_the_chunks_of_the_sites_that_were_read(masked: bool, tmp_path: Path) -> None:
    archive = create_archive(tmp_path / "archive", ArchiveSettings(half_px=HALF_PX, store="packs"))
    mask = {"mask": scattered(1, SHAPE)} if masked else {}
    sources = images(tmp_path / "sources", 3, SHAPE, **mask)
    pack_all(archive.store, members_of(sources, archive.settings), archive.settings)
    item = item_of(archive, "s001")
    (tmp_path / "noise").mkdir()
    copy, count = noised_item(
        archive, item, {"s001": KEPT, "s002": KEPT[:1]}, HALF_PX, folder=tmp_path / "noise", chance=chance()
    )
    assert item.kind == "pack"
    assert count.kept == 20
    assert sound(copy)
    hold(archive.reader("s001"), copy.reader("s001"))
    root = [KEPT[0]]
    same = [
        np.array_equal(archive.reader(name).read(root).pixels, copy.reader(name).read(root).pixels)
        for name in ("s000", "s001", "s002")
    ]
    assert same == [False, True, True]


def cog(folder: Path, *, masked: bool = False, dtype: str = "uint8", **options: Any) -> Path:
    """A COG of 500 x 410 random pixels in blocks of 128."""
    mask = {"mask": scattered(1, (500, 410))} if masked else {}
    pixels = random_pixels(3, (500, 410)).astype(dtype)
    source = write_raster(folder / "plain" / "scene.tif", pixels, photometric="RGB", **mask)
    (folder / "cogs").mkdir()
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        gdal_copy(source, folder / "cogs" / "scene.tif", driver="COG", blocksize=128, **options)
    return folder / "cogs"


@pytest.mark.parametrize(
    ("masked", "options"),
    [
        (False, {"compress": "DEFLATE"}),
        (False, {"compress": "JPEG"}),
        (False, {"compress": "ZSTD", "dtype": "uint16", "predictor": "YES"}),
        (True, {"compress": "DEFLATE"}),
        (True, {"compress": "JPEG"}),
    ],
)
def test_a_cog_keeps_its_blocks_and_is_noise_elsewhere_at_every_overview(
    masked: bool, options: dict[str, Any], tmp_path: Path
) -> None:
    archive = open_archive(cog(tmp_path, masked=masked, **options))
    assert isinstance(archive, CogArchive)
    (tmp_path / "noise").mkdir()
    tiles = [Tile(0, 15, 17), Tile(1, 7, 3)]
    (name,) = archive.scene_ids()
    copy, count = noised_cog(archive, name, tiles, HALF_PX, folder=tmp_path / "noise", chance=chance())
    truth, noised = archive.reader(name, HALF_PX), copy.reader(name, HALF_PX)
    assert [level.shape for level in truth.stored] == [(500, 410), (250, 205), (125, 102)]
    assert (count.kept, count.noised) == (4, 16 + 4 + 1 - 4)
    ours, theirs = truth.read(tiles), noised.read(tiles)
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_array_equal(ours.validity, theirs.validity)
    for tile in (Tile(0, 0, 0), Tile(0, 29, 23), Tile(1, 9, 9), Tile(1, 0, 9), Tile(2, 2, 2), Tile(4, 0, 0)):
        before, after = truth.read([tile]), noised.read([tile])
        assert (before.pixels != after.pixels).mean() > 0.2
        if masked:
            assert (before.validity != after.validity).any()


def test_a_cog_is_fetched_from_its_server_and_the_copy_is_read_without_it(tmp_path: Path) -> None:
    folder = cog(tmp_path, masked=True, compress="DEFLATE")
    (tmp_path / "noise").mkdir()
    tiles = [Tile(0, 15, 17)]
    with range_server(folder) as server:
        archive = open_archive(f"{server.url}/scene.tif")
        assert isinstance(archive, CogArchive)
        (name,) = archive.scene_ids()
        copy, count = noised_cog(archive, name, tiles, HALF_PX, folder=tmp_path / "noise", chance=chance())
        before = archive.reader(name, HALF_PX).read(tiles)
    after = copy.reader(name, HALF_PX).read(tiles)
    assert (count.kept, count.noised) == (2, 19)
    np.testing.assert_array_equal(before.pixels, after.pixels)


def test_masks_and_overviews_beside_a_file_are_noised_too(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "cogs" / "scene.tif", random_pixels(3, (500, 410)))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False, TIFF_USE_OVR=True):
        with rasterio.open(source, "r+") as target:
            target.write_mask(scattered(1, (500, 410)))
        with rasterio.open(source, "r+") as target:
            target.build_overviews([2, 4], Resampling.average)
    beside = {path.name for path in source.parent.iterdir()}
    assert beside > {"scene.tif", "scene.tif.msk", "scene.tif.ovr"}
    archive = open_archive(tmp_path / "cogs")
    assert isinstance(archive, CogArchive)
    (tmp_path / "noise").mkdir()
    (name,) = archive.scene_ids()
    tiles = [Tile(0, 15, 17), Tile(1, 7, 3)]
    copy, _ = noised_cog(archive, name, tiles, HALF_PX, folder=tmp_path / "noise", chance=chance())
    truth, noised = archive.reader(name, HALF_PX), copy.reader(name, HALF_PX)
    before, after = truth.read(tiles), noised.read(tiles)
    np.testing.assert_array_equal(before.pixels, after.pixels)
    np.testing.assert_array_equal(before.validity, after.validity)
    for tile in (Tile(0, 0, 0), Tile(1, 0, 9), Tile(2, 0, 0)):
        before, after = truth.read([tile]), noised.read([tile])
        assert (before.pixels != after.pixels).mean() > 0.2
        assert (before.validity != after.validity).any()


def test_what_cannot_be_copied_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = create_archive(tmp_path / "archive", ArchiveSettings(half_px=HALF_PX))
    source = write_raster(tmp_path / "scene.tif", random_pixels(3, SHAPE))
    build_scene(str(source), "scene", archive.place, archive.settings)
    item, folder = Item("scene", "scene"), tmp_path / "noise"
    folder.mkdir()
    with pytest.raises(SceneMissing):
        noised_item(archive, Item("scene", "other"), {}, HALF_PX, folder=folder, chance=chance())
    with monkeypatch.context() as patch:
        patch.setattr(noise.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
        with pytest.raises(PlaceUnusable, match="set TMPDIR to a folder"):
            noised_item(archive, item, {"scene": KEPT}, HALF_PX, folder=folder, chance=chance())
    assert not any(folder.iterdir())
    shard = next((archive.scenes / "scene" / "0" / "data").rglob("c/0/0/0"))
    shard.write_bytes(shard.read_bytes()[:-99])
    with pytest.raises(TileUnreadable):
        noised_item(archive, item, {"scene": KEPT}, HALF_PX, folder=folder, chance=chance())


def test_a_level_that_is_made_in_memory_keeps_the_whole_overview_that_it_is_made_of(tmp_path: Path) -> None:
    archive = open_archive(cog(tmp_path, compress="DEFLATE"))
    assert isinstance(archive, CogArchive)
    (tmp_path / "noise").mkdir()
    (name,) = archive.scene_ids()
    root = [Tile(4, 0, 0)]
    copy, count = noised_cog(archive, name, root, HALF_PX, folder=tmp_path / "noise", chance=chance())
    truth, noised = archive.reader(name, HALF_PX), copy.reader(name, HALF_PX)
    assert (count.kept, count.noised) == (1, 16 + 4)
    np.testing.assert_array_equal(truth.read(root).pixels, noised.read(root).pixels)
    other = [Tile(1, 0, 0)]
    assert (truth.read(other).pixels != noised.read(other).pixels).mean() > 0.9
