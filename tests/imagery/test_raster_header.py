"""What is known of a raster before it is read: alpha that is none, inner blocks, bombs, no rasters."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.imagery.test_raster import seam, whole, write_picture
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery import open_raster
from tnet_geo.imagery.gdal import told
from tnet_geo.imagery.raster import source_digest, source_state


def with_alpha(path: Path, alpha: NDArray[Any], **profile: Any) -> Path:
    """Red, green, blue and a band that is labelled alpha."""
    pixels = random_pixels(1, alpha.shape, 3, alpha.dtype.name)
    settings: dict[str, Any] = {"photometric": "RGB", "alpha": "YES"} | profile
    return write_raster(path, np.concatenate([pixels, alpha[None]]), **settings)


def bands_of(path: Path) -> int:
    with open_raster(str(path)) as raster:
        return raster.info.bands


def near_infrared(lowest: int, highest: int, shape: tuple[int, int] = (500, 400)) -> NDArray[np.uint8]:
    values = np.random.default_rng(0).normal((lowest + highest) / 2, (highest - lowest) / 6, shape)
    return np.clip(values, lowest, highest).astype(np.uint8)


@pytest.mark.parametrize(("lowest", "highest"), [(10, 255), (5, 30), (60, 120)])
def test_near_infrared_under_the_label_of_alpha_is_a_band(tmp_path: Path, lowest: int, highest: int) -> None:
    alpha = near_infrared(lowest, highest)
    alpha[:200, :150] = 0  # a corner without imagery
    path = with_alpha(tmp_path / "scene.tif", alpha)
    with open_raster(str(path)) as raster:
        assert (raster.info.bands, raster.info.all_valid) == (4, True)
        found, valid = raster.read(whole(raster))
    np.testing.assert_array_equal(found[3], alpha)
    assert valid is None


@pytest.mark.parametrize(
    "alpha",
    [
        np.zeros((300, 300), np.uint8),
        np.full((300, 300), 255, np.uint8),
        np.full((300, 300), 128, np.uint8),
        np.full((300, 300), 1, np.uint8),
        np.ascontiguousarray(seam((300, 300))).astype(np.uint8),
        np.full((300, 300), 65535, np.uint16),
        np.where(np.eye(300) > 0, 0, 255).astype(np.uint16),
        np.ones((300, 300), np.float32),
    ],
    ids=["empty", "full", "half", "ones", "soft edge", "16 bit", "16 bit up to 255", "float"],
)
def test_what_is_0_or_full_nearly_everywhere_is_a_mask(tmp_path: Path, alpha: NDArray[Any]) -> None:
    assert bands_of(with_alpha(tmp_path / "scene.tif", alpha)) == 3


def test_a_mask_stays_a_mask_after_lossy_compression(tmp_path: Path) -> None:
    alpha = np.ascontiguousarray(seam((300, 300))).astype(np.uint8)
    alpha[::40] = 0
    for quality in (10, 50, 90):
        path = tmp_path / f"{quality}.tif"
        assert bands_of(with_alpha(path, alpha, compress="jpeg", jpeg_quality=quality)) == 3


def test_alpha_by_the_definition_of_a_format_is_believed(tmp_path: Path) -> None:
    alpha = near_infrared(10, 240, (64, 64))
    write_picture(tmp_path / "scene.png", np.stack([alpha] * 4), driver="PNG")
    assert bands_of(tmp_path / "scene.png") == 3


def blocks(path: Path) -> tuple[tuple[int, int], bool, int]:
    with open_raster(str(path)) as raster:
        return raster.info.block_shape, raster.info.tiled, raster.info.decoded_block_bytes


def test_a_block_is_decoded_with_all_bands_that_lie_in_it(tmp_path: Path) -> None:
    pixels = random_pixels(2, (100, 130), 4, "uint16")
    for interleave, size in (("pixel", 64 * 64 * 4 * 2), ("band", 64 * 64 * 2)):
        path = write_raster(tmp_path / f"{interleave}.tif", pixels, interleave=interleave)
        assert blocks(path) == ((64, 64), True, size)
    write_picture(tmp_path / "strips.tif", pixels, driver="GTiff", blockysize=8, interleave="pixel")
    assert blocks(tmp_path / "strips.tif") == ((8, 130), False, 8 * 130 * 4 * 2)


def test_pictures_that_come_in_passes_are_held_whole(tmp_path: Path) -> None:
    pixels = random_pixels(3, (100, 130))
    write_picture(tmp_path / "line.jpg", pixels, driver="JPEG")
    write_picture(tmp_path / "passes.jpg", pixels, driver="JPEG", progressive=True)
    write_picture(tmp_path / "whole.webp", pixels, driver="WEBP")
    assert blocks(tmp_path / "line.jpg") == ((1, 130), False, 130 * 3)
    assert blocks(tmp_path / "passes.jpg") == ((1, 130), False, 2 * 100 * 130 * 3)
    assert blocks(tmp_path / "whole.webp") == ((1, 130), False, 100 * 130 * 3)


def vrt(path: Path, source: Path, shape: tuple[int, int]) -> Path:
    path.write_text(
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">'
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source.name}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_vrt_is_no_better_than_what_it_is_made_of(tmp_path: Path) -> None:
    shape = (300, 2000)
    tiled = write_raster(tmp_path / "tiled.tif", random_pixels(4, shape, 1))
    write_picture(tmp_path / "strips.png", random_pixels(4, shape, 1), driver="PNG")
    assert blocks(vrt(tmp_path / "a.vrt", tiled, shape)) == ((128, 128), True, 128 * 128 + 64 * 64)
    assert blocks(vrt(tmp_path / "b.vrt", tmp_path / "strips.png", shape))[1:] == (False, 128 * 128 + 2000)


def test_a_vrt_without_its_source_is_refused_with_the_name_that_is_missing(tmp_path: Path) -> None:
    path = vrt(tmp_path / "scene.vrt", tmp_path / "absent.tif", (10, 10))
    with pytest.raises(SourceUnreadable, match=r"its source .*absent\.tif is missing"):
        open_raster(str(path))


def test_a_file_that_declares_far_more_than_it_can_hold_is_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    side = {"width": 400_000, "height": 400_000, "count": 1, "dtype": "uint8", "crs": "EPSG:3857"}
    layout = {"tiled": True, "blockxsize": 16384, "blockysize": 16384, "sparse_ok": True, "bigtiff": "yes"}
    with rasterio.open(path, "w", "GTiff", transform=rasterio.Affine(2, 0, 0, 0, -2, 0), **side, **layout):
        pass
    assert path.stat().st_size < 100_000
    with pytest.raises(SourceUnreadable, match=r"bomb: \d+ bytes that declare 149\.0 GiB"):
        open_raster(str(path))


def test_one_block_of_more_than_two_gigabytes_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "block.tif"
    side = {"width": 100, "height": 100, "count": 3, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(
        path,
        "w",
        "GTiff",
        tiled=True,
        blockxsize=32768,
        blockysize=32768,
        sparse_ok=True,
        crs="EPSG:3857",
        transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
        interleave="pixel",
        **side,
    ):
        pass  # fmt: skip
    with pytest.raises(SourceUnreadable, match=r"one block of it decodes to 3\.0 GiB"):
        open_raster(str(path))


def test_what_is_no_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    os.mkfifo(tmp_path / "pipe.tif")  # whoever opened it would wait for a writer
    (tmp_path / "empty.tif").touch()
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    (tmp_path / "dangling.tif").symlink_to(tmp_path / "nothing.tif")
    causes = {
        "folder": "a folder",
        "pipe": "no plain file",
        "empty": "is empty",
        "loop": "symbolic links",
        "dangling": "No such",
    }
    for name, cause in causes.items():
        for ask in (open_raster, source_digest, source_state):
            with pytest.raises(SourceUnreadable, match=cause):
                ask(str(tmp_path / f"{name}.tif"))


def test_a_container_of_rasters_names_them(tmp_path: Path) -> None:
    path = tmp_path / "scenes.tif"
    for n in range(2):
        pixels = random_pixels(n, (16, 16), 1)
        write_raster(path, pixels, append_subdataset="yes" if n else "no")
    with open_raster(str(path)) as raster:  # the first page stands for a file of pages
        np.testing.assert_array_equal(raster.read(whole(raster))[0], random_pixels(0, (16, 16), 1))


GDAL_LOG = logging.getLogger("rasterio._env")


def test_a_name_that_sounds_like_damage_is_a_name(caplog: pytest.LogCaptureFixture) -> None:
    source = "corrupt/truncated.tif"
    told(source, lambda: GDAL_LOG.warning("CPLE_AppDefined in %s: nothing to worry about", source))
    told(source, lambda: GDAL_LOG.warning("truncated.tif, band 1: nothing to worry about"))
    assert caplog.text.count("nothing to worry about") == 2
    with pytest.raises(SourceUnreadable, match=r"truncated\.tif, band 1: is truncated"):
        told(source, lambda: GDAL_LOG.warning("truncated.tif, band 1: is truncated"))


@pytest.mark.parametrize("level", [logging.ERROR, logging.CRITICAL])
def test_damage_is_heard_although_the_log_is_silenced(level: int) -> None:
    parent = logging.getLogger("rasterio")
    levels = parent.level, GDAL_LOG.level
    parent.setLevel(level)
    try:
        with pytest.raises(SourceUnreadable, match="Premature end"):
            told("scene.tif", lambda: GDAL_LOG.warning("Premature end of data"))
    finally:
        parent.setLevel(levels[0])
        GDAL_LOG.setLevel(levels[1])


def test_damage_of_one_thread_is_not_that_of_another(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    write_picture(good, random_pixels(6, (256, 256)), driver="JPEG")
    bad.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    outcomes: dict[str, list[bool]] = {"good": [], "bad": []}

    def reads(path: Path) -> None:
        for _ in range(40):
            try:
                with open_raster(str(path)) as raster:
                    raster.read(Window(0, 0, 256, 256))
                outcomes[path.stem].append(True)
            except SourceUnreadable:
                outcomes[path.stem].append(False)

    threads = [threading.Thread(target=reads, args=(path,)) for path in (good, bad, good, bad)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"good": [True] * 80, "bad": [False] * 80}
