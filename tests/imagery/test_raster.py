"""Rasters as the world gives them: what is read, what is valid, and what is refused in one sentence."""

from __future__ import annotations

import pickle
import warnings
import zlib
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
from tnet_geo.imagery import RasterSource, open_raster


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


DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
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


def test_pixels_under_a_mask_are_as_rasterio_gives_them(tmp_path: Path) -> None:
    pixels, mask = random_pixels(3, (64, 64)), np.zeros((64, 64), np.uint8)
    mask[:, 20:] = 255
    with open_raster(str(write_raster(tmp_path / "scene.tif", pixels, mask))) as raster:
        found, valid = raster.read(whole(raster))
    np.testing.assert_array_equal(valid, mask)
    np.testing.assert_array_equal(found, pixels)


def seam(shape: tuple[int, int] = (64, 64), full: int = 255) -> NDArray[Any]:
    """A mask with a soft edge: 0, a few values between, and full."""
    ramp = np.clip(np.arange(shape[1]) - 20, 0, 4) * (full / 4)
    return np.broadcast_to(ramp, shape)


def test_alpha_is_validity_and_no_band(tmp_path: Path) -> None:
    pixels = random_pixels(4, (64, 64), 4)
    pixels[3] = seam()
    path = write_raster(tmp_path / "scene.tif", pixels, photometric="RGB", alpha="YES")
    with open_raster(str(path)) as raster:
        assert raster.info.bands == 3
        found, valid = raster.read(whole(raster))
    assert valid is not None
    np.testing.assert_array_equal(valid, np.where(pixels[3] > 0, 255, 0))
    np.testing.assert_array_equal(found, pixels[:3])


def test_alpha_of_any_place_among_the_bands_is_dropped(tmp_path: Path) -> None:
    pixels = random_pixels(24, (64, 64), 3, "uint16")
    pixels[1] = seam(full=65535)
    path = write_raster(tmp_path / "scene.tif", pixels, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as target:
        target.colorinterp = [ColorInterp.gray, ColorInterp.alpha, ColorInterp.undefined]
    with open_raster(str(path)) as raster:
        found, valid = raster.read(whole(raster))
    np.testing.assert_array_equal(found, pixels[[0, 2]])
    np.testing.assert_array_equal(valid, np.where(pixels[1] > 0, 255, 0))


def test_nodata_and_what_is_no_number_are_not_valid(tmp_path: Path) -> None:
    pixels = random_pixels(5, (64, 64), 2, "float32")
    pixels[:, 0] = -9999
    pixels[:, 1], pixels[:, 2] = np.nan, np.inf
    with open_raster(str(write_raster(tmp_path / "scene.tif", pixels, nodata=-9999))) as raster:
        assert raster.info.nodata == -9999
        found, valid = raster.read(whole(raster))
    assert valid is not None
    assert not valid[:3].any()
    assert (valid[3:] == 255).all()
    np.testing.assert_array_equal(found, pixels)


def test_one_band_with_a_value_makes_a_pixel_valid(tmp_path: Path) -> None:
    pixels = random_pixels(5, (64, 64), 3, "float32")
    pixels[:2, 0], pixels[0, 1], pixels[1:, 1] = -9999, np.nan, -9999
    pixels[0, 2], pixels[2, 2] = np.nan, np.inf
    with open_raster(str(write_raster(tmp_path / "scene.tif", pixels, nodata=-9999))) as raster:
        _, valid = raster.read(whole(raster))
    np.testing.assert_array_equal(valid[:, 0], [255, 0, 255] + [255] * 61)


def test_nodata_counts_beside_a_mask_and_beside_alpha(tmp_path: Path) -> None:
    """GDAL looks at one of them alone: the mask before nodata, and nodata before alpha."""
    pixels, mask = random_pixels(20, (64, 64), 4), np.full((64, 64), 255, np.uint8)
    pixels[:3][pixels[:3] == 7] = 8
    pixels[:3, 10] = 7
    mask[20] = 0
    pixels[3] = mask
    masked = write_raster(tmp_path / "masked.tif", pixels[:3], mask, nodata=7)
    alpha = write_raster(tmp_path / "alpha.tif", pixels, nodata=7, photometric="RGB", alpha="YES")
    for path in (masked, alpha):
        with open_raster(str(path)) as raster:
            assert raster.info.bands == 3
            found, valid = raster.read(whole(raster))
        np.testing.assert_array_equal(found, pixels[:3])
        np.testing.assert_array_equal(np.flatnonzero((valid == 0).all(axis=1)), [10, 20])
        assert (valid == 0).sum() == 128


@pytest.mark.parametrize(
    ("dtype", "declared", "has"),
    [
        ("uint8", -9999, None),
        ("uint8", 0.5, None),
        ("uint16", float("nan"), None),
        ("int16", -9999, -9999.0),
        ("float32", 0.1, float(np.float32(0.1))),
    ],
)
def test_nodata_is_a_value_that_pixels_can_have(
    tmp_path: Path, dtype: str, declared: float, has: float | None
) -> None:
    path = tmp_path / "scene.vrt"
    source = write_raster(tmp_path / "scene.tif", np.full((1, 8, 8), 9, dtype))
    band = f"<SimpleSource><SourceFilename>{source}</SourceFilename></SimpleSource>"
    kind = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32"}[dtype]
    path.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="{kind}" band="1">'
        f"<NoDataValue>{declared}</NoDataValue>{band}</VRTRasterBand></VRTDataset>"
    )
    with open_raster(str(path)) as raster:
        assert raster.info.nodata == has
        _, valid = raster.read(whole(raster))
    assert valid is None or valid.all()


def test_bands_with_different_nodata_values_are_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", random_pixels(1, (8, 8), 2))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><NoDataValue>{n}</NoDataValue><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"
        for n in (1, 2)
    )
    path = tmp_path / "scene.vrt"
    path.write_text(f'<VRTDataset rasterXSize="8" rasterYSize="8">{bands}</VRTDataset>')
    with pytest.raises(SourceUnreadable, match=r"different nodata values \(1, 2\)"):
        open_raster(str(path))


def test_a_transparent_colour_is_nodata_of_all_bands_together(tmp_path: Path) -> None:
    pixels = random_pixels(21, (40, 50))
    pixels[:, :5] = np.array([1, 2, 3])[:, None, None]
    pixels[:2, 6], pixels[2, 6] = np.array([1, 2])[:, None], 9  # two of three bands are not all of it
    path = write_raster(tmp_path / "scene.tif", pixels, tiled=False, blockxsize=None, blockysize=None)
    with rasterio.open(path, "r+") as target:
        target.update_tags(NODATA_VALUES="1 2 3")
    with open_raster(str(path)) as raster:
        assert (raster.info.nodata, raster.info.all_valid) == (None, False)
        found, valid = raster.read(whole(raster))
    with rasterio.open(path) as rival:
        np.testing.assert_array_equal(valid, rival.dataset_mask())
    assert valid is not None
    assert not valid[:5].any()
    assert valid[5:].all()
    np.testing.assert_array_equal(found, pixels)


def test_a_palette_is_expanded_to_its_colours(tmp_path: Path) -> None:
    indices = random_pixels(6, (40, 50), 1)
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", "GTiff", 50, 40, 1, dtype="uint8", nodata=7, **GEOREFERENCE) as target:
        target.write(indices)
        target.write_colormap(1, {n: (n, 255 - n, n // 2, 255) for n in range(256)})
    with open_raster(str(path)) as raster:
        assert (raster.info.bands, raster.info.dtype, raster.info.nodata) == (3, "uint8", None)
        found, valid = raster.read(Window(0, 0, 40, 50))
    colours = np.stack([indices[0], 255 - indices[0], indices[0] // 2])
    np.testing.assert_array_equal(found, colours)
    np.testing.assert_array_equal(valid, np.where(indices[0] == 7, 0, 255))


def test_a_transparent_entry_of_a_palette_is_not_valid(tmp_path: Path) -> None:
    indices = random_pixels(22, (40, 50), 1) % 4
    path = tmp_path / "scene.png"
    colours = {0: (9, 9, 9, 255), 1: (8, 8, 8, 0), 2: (7, 7, 7, 128), 3: (6, 6, 6, 0)}
    entries = b"".join(bytes(colour[:3]) for colour in colours.values())
    path.write_bytes(png(indices[0], entries, bytes(colour[3] for colour in colours.values())))
    with open_raster(str(path)) as raster:
        assert not raster.info.all_valid
        found, valid = raster.read(whole(raster))
    np.testing.assert_array_equal(found[0], 9 - indices[0])
    np.testing.assert_array_equal(valid, np.where(indices[0] % 2, 0, 255))


def png(indices: NDArray[np.uint8], colours: bytes, alphas: bytes) -> bytes:
    """A PNG with a palette and the alpha of its entries: rasterio writes none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    rows, cols = indices.shape
    header = cols.to_bytes(4, "big") + rows.to_bytes(4, "big") + bytes([8, 3, 0, 0, 0])
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in indices))
    parts = [(b"IHDR", header), (b"PLTE", colours), (b"tRNS", alphas), (b"IDAT", lines), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_scale_and_offset_are_told_and_not_applied(tmp_path: Path) -> None:
    pixels = random_pixels(23, (8, 8), 2, "int16")
    path = write_raster(tmp_path / "scene.tif", pixels)
    with open_raster(str(path)) as raster:
        assert (raster.info.scale, raster.info.offset) == (None, None)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (0.5, 2), (0, -3)
    with open_raster(str(path)) as raster:
        assert (raster.info.scale, raster.info.offset) == ((0.5, 2), (0, -3))
        np.testing.assert_array_equal(raster.read(whole(raster))[0], pixels)


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


@pytest.mark.parametrize("dtype", ["int64", "uint64", "complex64", "complex128"])
def test_numbers_that_no_pyramid_holds_are_refused_by_name(tmp_path: Path, dtype: str) -> None:
    path = write_raster(tmp_path / "scene.tif", np.ones((1, 8, 8), dtype))
    with pytest.raises(SourceUnreadable, match=dtype):
        open_raster(str(path))


def test_alpha_alone_is_no_picture(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", np.full((1, 8, 8), 255, np.uint8))
    with rasterio.open(path, "r+") as target:
        target.colorinterp = [ColorInterp.alpha]
    with pytest.raises(SourceUnreadable, match="alpha alone"):
        open_raster(str(path))
