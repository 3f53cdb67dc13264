"""Rasters as the world gives them: what is read, what is valid, and what is refused in one sentence."""

from __future__ import annotations

import csv
import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from tests.rasters import GEOREFERENCE, random_pixels, write_raster
from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery import RasterSource, open_raster, source_digest


def whole(raster: RasterSource) -> Window:
    return Window(0, 0, *raster.info.shape)


def write_picture(path: Path, pixels: NDArray[Any], **profile: Any) -> None:
    """A picture without georeference; that the writer warns of it is not what is tested."""
    bands, height, width = pixels.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **shape, **profile) as target:
            target.write(pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_a_window_has_the_pixels_that_were_written(tmp_path: Path, dtype: str) -> None:
    pixels = random_pixels(1, (100, 140), 4, dtype)
    path = write_raster(tmp_path / "scene.tif", pixels, photometric="MINISBLACK", alpha="NO")
    with open_raster(str(path)) as raster:
        assert (raster.info.bands, raster.info.dtype, raster.info.shape) == (4, dtype, (100, 140))
        assert (raster.info.crs, raster.info.transform) == (
            "EPSG:32632",
            (0.5, 0, 600_000, 0, -0.5, 5_000_000),
        )
        assert (raster.info.tiled, raster.info.block_shape, raster.info.nodata) == (True, (64, 64), None)
        found, valid = raster.read(Window(30, 70, 50, 60))
    np.testing.assert_array_equal(found, pixels[:, 30:80, 70:130])
    assert found.dtype == dtype
    assert valid is None or valid.all()


def test_a_raster_without_mask_is_known_to_be_valid_and_one_of_floats_is_not(tmp_path: Path) -> None:
    for dtype, expected in (("uint8", True), ("float32", False)):
        path = write_raster(tmp_path / f"{dtype}.tif", random_pixels(2, (64, 64), 3, dtype))
        with open_raster(str(path)) as raster:
            assert raster.info.all_valid is expected
            assert (raster.read(whole(raster))[1] is None) is expected


def test_pixels_under_a_mask_are_zero(tmp_path: Path) -> None:
    pixels, mask = random_pixels(3, (64, 64)), np.zeros((64, 64), np.uint8)
    mask[:, 20:] = 255
    with open_raster(str(write_raster(tmp_path / "scene.tif", pixels, mask))) as raster:
        found, valid = raster.read(whole(raster))
    np.testing.assert_array_equal(valid, mask)
    np.testing.assert_array_equal(found, np.where(mask > 0, pixels, 0))


def test_alpha_is_validity_and_no_band(tmp_path: Path) -> None:
    pixels = random_pixels(4, (64, 64), 4)
    path = write_raster(tmp_path / "scene.tif", pixels, photometric="RGB", alpha="YES")
    with open_raster(str(path)) as raster:
        assert raster.info.bands == 3
        found, valid = raster.read(whole(raster))
    assert valid is not None
    np.testing.assert_array_equal(valid, np.where(pixels[3] > 0, 255, 0))
    np.testing.assert_array_equal(found, np.where(pixels[3] > 0, pixels[:3], 0))


def test_nodata_and_what_is_no_number_are_not_valid(tmp_path: Path) -> None:
    pixels = random_pixels(5, (64, 64), 2, "float32")
    pixels[:, 0] = -9999
    pixels[1, 1], pixels[0, 2] = np.nan, np.inf
    with open_raster(str(write_raster(tmp_path / "scene.tif", pixels, nodata=-9999))) as raster:
        assert raster.info.nodata == -9999
        found, valid = raster.read(whole(raster))
    assert valid is not None
    assert not valid[:3].any()
    assert (valid[3:] == 255).all()
    assert not found[:, :3].any()


def test_a_palette_is_expanded_to_its_colours(tmp_path: Path) -> None:
    indices = random_pixels(6, (40, 50), 1)
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", "GTiff", 50, 40, 1, dtype="uint8", nodata=7, **GEOREFERENCE) as target:
        target.write(indices)
        target.write_colormap(1, {n: (n, 255 - n, n // 2, 255) for n in range(256)})
    with open_raster(str(path)) as raster:
        assert (raster.info.bands, raster.info.dtype) == (3, "uint8")
        found, valid = raster.read(Window(0, 0, 40, 50))
    colours = np.stack([indices[0], 255 - indices[0], indices[0] // 2])
    np.testing.assert_array_equal(found, np.where(indices[0] == 7, 0, colours))
    np.testing.assert_array_equal(valid, np.where(indices[0] == 7, 0, 255))


def test_a_picture_without_georeference_says_so_and_warns_nobody(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    write_picture(path, random_pixels(7, (30, 40)), driver="GTiff")
    with open_raster(str(path)) as raster:
        assert (raster.info.crs, raster.info.transform) == (None, None)


@pytest.mark.parametrize(
    ("suffix", "profile"),
    [
        (".jpg", {"driver": "JPEG"}),
        (".png", {"driver": "PNG"}),
        (".tif", {"driver": "GTiff", "compress": "jpeg"}),
        (".tif", {"driver": "GTiff", "compress": "deflate"}),
        (".tif", {"driver": "GTiff"}),
    ],
)
def test_a_file_that_was_cut_off_is_an_error_and_never_grey_or_black(
    tmp_path: Path, suffix: str, profile: dict[str, str]
) -> None:
    path = tmp_path / f"scene{suffix}"
    write_picture(path, random_pixels(8, (150, 200)), **profile)
    with open_raster(str(path)) as raster:
        raster.read(whole(raster))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceUnreadable) as caught, open_raster(str(path)) as raster:
        raster.read(whole(raster))
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    # distributed sends what an error is chained to as well, and GDAL's errors do not survive that.
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_what_jpeg_only_warns_about_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 512, 512), np.uint8)
    write_picture(path, pixels, driver="GTiff", compress="jpeg")
    content = bytearray(path.read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable, match="JPEG"), open_raster(str(path)) as raster:
        raster.read(whole(raster))


def test_a_jpeg_whose_data_end_midway_is_an_error_where_libjpeg_would_go_on(tmp_path: Path) -> None:
    path = tmp_path / "scene.jpg"
    write_picture(path, random_pixels(12, (256, 256)), driver="JPEG")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2] = b"\xff\xd9"  # end of image
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable, match="JPEG"), open_raster(str(path)) as raster:
        raster.read(whole(raster))


def test_a_missing_file_and_a_text_are_named_with_their_causes(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match=r"absent\.tif.*No such file"):
        open_raster(str(tmp_path / "absent.tif"))
    (tmp_path / "text.tif").write_text("no picture")
    with pytest.raises(SourceUnreadable, match="not recognized"):
        open_raster(str(tmp_path / "text.tif"))


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32", "complex64"])
def test_numbers_that_no_pyramid_holds_are_refused_by_name(tmp_path: Path, dtype: str) -> None:
    path = write_raster(tmp_path / "scene.tif", np.ones((1, 8, 8), dtype))
    with pytest.raises(SourceUnreadable, match=dtype):
        open_raster(str(path))


def test_alpha_alone_is_no_picture(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", random_pixels(9, (8, 8), 1))
    with rasterio.open(path, "r+") as target:
        target.colorinterp = [ColorInterp.alpha]
    with pytest.raises(SourceUnreadable, match="alpha alone"):
        open_raster(str(path))


def test_the_digest_is_that_of_the_bytes_whatever_folder_they_lie_in(tmp_path: Path) -> None:
    pixels = random_pixels(10, (20, 20))
    one, two = (write_raster(tmp_path / name / "scene.tif", pixels) for name in ("one", "two"))
    assert source_digest(str(one)) == source_digest(str(two)) == hashlib.sha256(one.read_bytes()).hexdigest()


def test_the_digest_covers_sidecars(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    write_picture(path, random_pixels(11, (20, 20)), driver="PNG")
    before = source_digest(str(path))
    path.with_suffix(".wld").write_text("0.5\n0\n0\n-0.5\n100\n200\n")
    assert source_digest(str(path)) != before
    with open_raster(str(path)) as raster:
        assert raster.info.transform == (0.5, 0, 99.75, 0, -0.5, 200.25)


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match=r"absent\.tif"):
        source_digest(str(tmp_path / "absent.tif"))


REAL_FACTS = {
    "alpha.tif": (3, "uint8", 23188, [117.035838, 128.253407, 96.43626]),
    "RGBA.uint16.tif": (3, "uint16", 127316, [10000, 10000, 10000]),
    "cog_rgb_mask.tif": (3, "uint8", 86117, [99.6702045, 108.570294, 110.5279]),
    "hro_extmask.tif": (3, "uint8", 86117, [99.6702045, 108.570294, 110.5279]),
    "float_raster_with_nodata.tif": (1, "float32", 98, [0.00765306122]),
    "cog_with_nan.tif": (1, "float32", 79201, [54.154394]),
    "cog_scale.tif": (2, "int16", 65530, [4897.79029, 4897.79029]),
    "unsupported-srs.tif": (1, "uint8", 2947, [86.8720733]),
    "rgb-3c-16b.tiff": (3, "uint16", 23707, [38521.1185, 29763.6843, 17105.5859]),
}
"""File: bands, dtype, valid pixels, mean of the valid ones, as its catalogue says."""


@pytest.mark.parametrize("file", REAL_FACTS)
def test_real_files_are_read_as_their_catalogue_says(shared_data: Path, file: str) -> None:
    bands, dtype, count, means = REAL_FACTS[file]
    with open_raster(str(shared_data / "odd" / file)) as raster:
        assert (raster.info.bands, raster.info.dtype) == (bands, dtype)
        pixels, valid = raster.read(whole(raster))
    where = np.ones(pixels.shape[1:], bool) if valid is None else valid > 0
    assert where.sum() == count
    np.testing.assert_allclose([band[where].mean(dtype="f8") for band in pixels], means, rtol=1e-6)
    assert not pixels[:, ~where].any()


def test_a_real_palette_has_three_bands(shared_data: Path) -> None:
    with open_raster(str(shared_data / "odd" / "palette-1c-8b.tiff")) as raster:
        pixels, valid = raster.read(whole(raster))
    assert (pixels.shape, pixels.dtype, valid) == ((3, 151, 157), np.uint8, None)


def test_every_odd_file_is_read_or_refused_as_its_catalogue_says(shared_data: Path) -> None:
    folder = shared_data / "odd"
    with (folder / "catalogue.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["expected"] != "sidecar"]
    odd = {}
    for row in rows:
        read = "read"
        try:
            with open_raster(str(folder / row["file"])) as raster:
                height, width = raster.info.shape
                for top in range(0, height, 1024):
                    raster.read(Window(top, 0, min(1024, height - top), width))
        except SourceUnreadable:
            read = "refused"
        # Whether there is a valid pixel at all shows only after all have been read: the build's matter.
        if (row["expected"] in {"build", "refuse:no_valid_pixels"}) != (read == "read"):
            odd[row["file"]] = row["dtype"]
    assert set(odd.values()) == {"int8", "int32", "uint32"}  # read by rasterio, held by no pyramid
