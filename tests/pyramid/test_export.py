"""A COG of a stored scene has the stored pixels at every level, in the right place, and nothing else."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from tests.damage import SETTINGS, Undamaged, flip, packed_archive, scenes_archive, tree
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import OutputExists
from tnet_geo.grid import Window
from tnet_geo.pyramid import cog_writer, create_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.export import export_cogs
from tnet_geo.pyramid.inventory import Item, read_inventory
from tnet_geo.pyramid.levels import StoredLevels
from tnet_geo.pyramid.pack_layout import read_pack
from tnet_geo.pyramid.store import open_store


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Undamaged:
    return scenes_archive(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(autouse=True)
def no_georeference() -> Iterator[None]:
    """These tests open files without georeference, of which rasterio warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def stored(archive: Path, scene_id: str) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8] | None]]:
    """Pixels and validity of all levels of a scene."""
    store, item = open_store(archive), Item("scene", scene_id)
    inventory = read_inventory(store, item)
    assert inventory is not None
    levels = StoredLevels(store.at("scenes", scene_id), inventory.layout)
    for level, shape in enumerate(inventory.layout.shapes):
        yield levels.read(level, Window(0, 0, *shape))


def assert_is_what_is_stored(cog: Path, levels: Iterator[Any]) -> None:
    for level, (pixels, validity) in enumerate(levels):
        with rasterio.open(cog, **({"overview_level": level - 1} if level else {})) as dataset:
            found = dataset.read()
            np.testing.assert_array_equal(found, pixels)
            assert found.dtype == pixels.dtype
            if validity is not None:
                np.testing.assert_array_equal(dataset.dataset_mask(), np.where(validity > 0, 255, 0))
    with rasterio.open(cog) as dataset:
        assert len(dataset.overviews(1)) == level
    valid, errors, _ = cog_validate(cog, quiet=True)
    assert (valid, errors) == (True, [])


@pytest.mark.parametrize("scene_id", ["plain", "masked", "bare", "gaps"])
def test_levels_become_overviews_as_they_are(scenes: Undamaged, tmp_path: Path, scene_id: str) -> None:
    report = export_cogs(scenes.path, tmp_path, scenes=[scene_id])
    assert (report.written, report.exit_code) == (1, 0)
    assert [path.name for path in tmp_path.iterdir()] == [f"{scene_id}.tif"]
    assert_is_what_is_stored(tmp_path / f"{scene_id}.tif", stored(scenes.path, scene_id))
    source = next(site.scene for site in scenes.manifest.sites if site.site_id == scene_id)
    with rasterio.open(tmp_path / f"{scene_id}.tif") as cog, rasterio.open(source) as original:
        assert (cog.crs, cog.transform, cog.shape) == (original.crs, original.transform, original.shape)
        assert cog.nodata == original.nodata
        np.testing.assert_array_equal(cog.read(), original.read())


@pytest.mark.parametrize(
    ("bands", "dtype", "profile"),
    [
        (4, "uint8", {}),  # the fourth is not alpha
        (1, "int8", {}),
        (13, "uint16", {}),
        (2, "int16", {"nodata": -32768}),
        (1, "int32", {}),
        (1, "uint32", {"nodata": 7}),
        (1, "float64", {"nodata": float("nan")}),
    ],
)
def test_every_kind_of_pixel_is_kept(tmp_path: Path, bands: int, dtype: str, profile: dict[str, Any]) -> None:
    pixels = random_pixels(1, (90, 130), bands, dtype)
    if profile:
        pixels[:, 10:30, 20:90] = profile["nodata"]
    create_archive(tmp_path / "archive", SETTINGS)
    build_scene(str(write_raster(tmp_path / "a.tif", pixels, **profile)), "a", tmp_path / "archive", SETTINGS)
    assert export_cogs(tmp_path / "archive", tmp_path / "cogs").exit_code == 0
    assert_is_what_is_stored(tmp_path / "cogs/a.tif", stored(tmp_path / "archive", "a"))
    with rasterio.open(tmp_path / "cogs/a.tif") as cog:
        np.testing.assert_equal(cog.nodata, profile.get("nodata"))


def test_scale_and_offset_are_kept(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "a.tif", random_pixels(1, (60, 60), 2, "int16"))
    with rasterio.open(source, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.1, 0.2), (-5.0, 3.0)
    create_archive(tmp_path / "archive", SETTINGS)
    build_scene(str(source), "a", tmp_path / "archive", SETTINGS)
    export_cogs(tmp_path / "archive", tmp_path / "cogs")
    with rasterio.open(tmp_path / "cogs/a.tif") as cog:
        assert (cog.scales, cog.offsets) == ((0.1, 0.2), (-5.0, 3.0))


@pytest.mark.parametrize("shape", [(541, 530), pytest.param((1100, 1301), marks=pytest.mark.slow)])
def test_windows_of_any_size_give_the_same_file(
    shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger than one window a side, odd, and masked: nothing is seen of the seams."""
    pixels = random_pixels(1, shape, 1)
    mask = np.where(np.random.default_rng(2).random(shape) < 0.7, 255, 0).astype(np.uint8)
    create_archive(tmp_path / "archive", SETTINGS)
    build_scene(str(write_raster(tmp_path / "a.tif", pixels, mask)), "a", tmp_path / "archive", SETTINGS)
    monkeypatch.setattr(cog_writer, "WINDOW_BYTES", 1)
    export_cogs(tmp_path / "archive", tmp_path / "cogs")
    assert_is_what_is_stored(tmp_path / "cogs/a.tif", stored(tmp_path / "archive", "a"))


@pytest.mark.parametrize("canvas", ["native", "fit:40"])
def test_packed_sites_are_one_cog_each(tmp_path: Path, canvas: str) -> None:
    archive = packed_archive(tmp_path, canvas)
    report = export_cogs(archive.path, tmp_path / "cogs")
    assert (report.written, report.exit_code) == (10, 0)
    store = open_store(archive.path)
    seen = 0
    for pack_id in store.names("packs"):
        pack = read_pack(store.at("packs"), pack_id)
        assert pack is not None
        for slot, row in enumerate(pack.index.to_pylist()):
            levels = StoredLevels(store.at("packs", pack_id), pack.layout, slot)
            whole = [levels.read(n, Window(0, 0, *shape)) for n, shape in enumerate(pack.layout.shapes)]
            cog = tmp_path / "cogs" / f"{row['scene_id']}.tif"
            assert_is_what_is_stored(cog, iter(whole))
            with rasterio.open(cog) as dataset:
                assert tuple(dataset.transform)[:6] == tuple(row["transform"])
                assert str(dataset.crs) == row["crs"]
            seen += 1
    assert seen == 10


def test_a_second_run_adds_what_is_missing_and_overwrites_nothing(scenes: Undamaged, tmp_path: Path) -> None:
    export_cogs(scenes.path, tmp_path, scenes=["plain"])
    before = tree(tmp_path)
    (tmp_path / "bare.tif").write_text("mine")
    report = export_cogs(scenes.path, tmp_path)
    assert (report.scenes, report.written, report.skipped, report.exit_code) == (4, 2, 1, 3)
    assert "bare.tif exists already" in report.set_aside[0].reason
    after = tree(tmp_path)
    assert after["plain.tif"] == before["plain.tif"]
    assert after["bare.tif"] == b"mine"
    assert sorted(after) == ["bare.tif", "gaps.tif", "masked.tif", "plain.tif"]


def test_a_damaged_scene_is_set_aside_and_leaves_nothing(tmp_path: Path) -> None:
    archive = scenes_archive(tmp_path)
    flip(archive.path / "scenes/plain/1/data/c/0/0/0", random.Random(0))
    report = export_cogs(archive.path, tmp_path / "cogs")
    assert (report.written, report.exit_code) == (3, 3)
    assert report.set_aside[0].item == "plain"
    assert "level 1 cannot be read" in report.set_aside[0].reason
    assert sorted(path.name for path in (tmp_path / "cogs").iterdir()) == [
        "bare.tif",
        "gaps.tif",
        "masked.tif",
    ]


def test_a_scene_that_is_not_there_is_said_to_be_missing(scenes: Undamaged, tmp_path: Path) -> None:
    report = export_cogs(scenes.path, tmp_path / "cogs", scenes=["plain", "absent", "../plain"])
    assert [failure.item for failure in report.set_aside] == ["absent", "../plain"]
    assert all("has no sealed pyramid" in failure.reason for failure in report.set_aside)


def test_a_file_in_the_place_of_the_folder_is_refused(scenes: Undamaged, tmp_path: Path) -> None:
    (tmp_path / "cogs").write_text("mine")
    with pytest.raises(OutputExists):
        export_cogs(scenes.path, tmp_path / "cogs")
