"""Every odd file of the catalogue: read as rasterio reads it, placed where it lies, or refused by name."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import RPCTransformer

from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.raster import NO_VALID_PIXELS, RasterSource, open_raster, source_digest, source_state
from tnet_geo.pyramid import ArchiveSettings, create_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.results.geography import Footprint, Globe

ODD = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "odd"
Row = dict[str, str]


def rows() -> list[Row]:
    if not ODD.is_dir():
        return []  # the tests below are then skipped
    with (ODD / "catalogue.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def each(expected: str, without: str | None = None) -> Any:
    chosen = [row for row in rows() if row["expected"].startswith(expected) and row["driver"] != without]
    return pytest.mark.parametrize("row", chosen, ids=[row["file"] for row in chosen])


LOSSY = ("jpeg", "webp", "JPEG", "WEBP", "JP2OpenJPEG", "OJPEG")
NOT_ALPHA = "m_4208701_ne_16_060_20200902.tif"
"""Near infrared that is labelled alpha."""
UNKNOWN_ALPHA = "sample_warped.tif"
"""Alpha of int16, which GDAL does not take for a mask: its catalogue counts what lies below 0 as valid."""
CAUSES = {
    "refuse:unreadable": r"not recognized|Failed to read directory|is empty",
    "refuse:corrupt_pixels": r"IReadBlock failed|Premature end|IO error",
    "refuse:missing_source": r"its source .*1965_1024\.jpg is missing",
    "refuse:no_valid_pixels": NO_VALID_PIXELS,
    "refuse:complex": r"complex64 \(complex numbers\)",
    "refuse:dtype": r"its pixels are u?int64",
    "refuse:colour_space": r"CMYK of uint16",
    "refuse:too_many_bands": r"65535 bands",
}


@contextmanager
def rivals(row: Row) -> Iterator[Any]:
    """The file as rasterio alone opens it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(ODD / row["file"]) as dataset:
            yield dataset


def read_all(source: RasterSource) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    pixels, valid = source.read(Window(0, 0, *source.info.shape))
    return pixels, np.ones(pixels.shape[1:], bool) if valid is None else valid > 0


def colours_of(dataset: Any) -> tuple[ColorInterp, ...]:
    try:
        return dataset.colorinterp
    except Exception:  # noqa: BLE001
        return dataset.colorinterp  # GDAL's complaint about the file is told once


def expected_bands(row: Row, dataset: Any) -> list[int]:
    colours = colours_of(dataset)
    keep = row["file"] == NOT_ALPHA
    return [n for n in dataset.indexes if keep or colours[n - 1] != ColorInterp.alpha]


def expected_pixels(row: Row, dataset: Any) -> NDArray[Any]:
    pixels = dataset.read(expected_bands(row, dataset))
    if colours_of(dataset)[0] != ColorInterp.palette:
        return pixels
    table = np.zeros((256, 3), np.uint8)
    for index, colour in dataset.colormap(1).items():
        table[index] = colour[:3]
    return np.stack([table[:, channel][pixels[0]] for channel in range(3)])


def expected_valid(row: Row, dataset: Any) -> NDArray[np.bool_]:
    """Where a band has a value, by rasterio's own masks."""
    bands = expected_bands(row, dataset)
    if row["file"] == NOT_ALPHA:
        return np.ones(dataset.shape, bool)
    if row["file"] == UNKNOWN_ALPHA:
        return dataset.read(2) > 0
    return (np.isfinite(dataset.read(bands)) & (dataset.read_masks(bands) > 0)).any(axis=0)


@each("build")
def test_pixels_are_those_of_rasterio(row: Row) -> None:
    with open_raster(str(ODD / row["file"])) as source, rivals(row) as rival:
        pixels, valid = read_all(source)
        expected = expected_pixels(row, rival)
        assert (source.info.dtype, source.info.bands) == (expected.dtype, len(expected))
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(valid, expected_valid(row, rival))
        assert valid.any()


@each("build")
def test_windows_fit_together(row: Row) -> None:
    with open_raster(str(ODD / row["file"])) as source:
        pixels, valid = read_all(source)
        rows_, cols = source.info.shape
        top, left = rows_ // 3, cols // 2
        window = Window(top, left, min(200, rows_ - top), min(300, cols - left))
        part, part_valid = source.read(window)
    there = slice(top, window.bottom), slice(left, window.right)
    np.testing.assert_array_equal(part, pixels[:, *there])
    np.testing.assert_array_equal(valid[there], True if part_valid is None else part_valid > 0)


@each("build")
def test_values_that_count_are_those_of_the_catalogue(row: Row) -> None:
    with open_raster(str(ODD / row["file"])) as source:
        info, (pixels, valid) = source.info, read_all(source)
    if "palette" in row["colorinterp"] or row["file"] == UNKNOWN_ALPHA:
        assert row["valid"] == str(valid.size)  # its figures are those of indices, or of all pixels
        return
    counts = [int(count) for count in row["valid"].split("|")]
    figures = {name: [float(value) for value in row[name].split("|")] for name in ("mean", "min", "max")}
    tolerance = {"atol": 1.0} if row["compression"] in LOSSY or row["driver"] in LOSSY else {"rtol": 1e-6}
    for n, band in enumerate(pixels):
        counting = band[valid & np.isfinite(band) & (band != info.nodata)]
        assert counting.size == counts[n if len(counts) > 1 else 0]
        found = {"mean": counting.mean(dtype="f8"), "min": counting.min(), "max": counting.max()}
        for name, values in figures.items():
            np.testing.assert_allclose(found[name], values[n], **tolerance, err_msg=name)


@each("build")
def test_crs_and_transform_are_those_of_the_file(row: Row) -> None:
    with open_raster(str(ODD / row["file"])) as source, rivals(row) as rival:
        info = source.info
        if row["georef"]:
            np.testing.assert_allclose(
                info.transform, [float(x) for x in row["georef"].split(",")], rtol=1e-9
            )
            assert info.transform == tuple(rival.transform)[:6]
            assert info.georeference == "transform"
            assert (info.crs is None) == (row["crs"] == "none")
            if row["crs"].startswith("EPSG"):
                assert info.crs == row["crs"]
            if info.crs is not None:
                assert rasterio.crs.CRS.from_user_input(info.crs) == rival.crs
        elif "gcps" in row["transform"]:
            points, crs = rival.gcps
            assert (info.georeference, info.crs) == ("gcps", crs.to_string())
            assert_within(info, [(p.col, p.row, p.x, p.y) for p in points])
        elif "rpc" in row["transform"]:
            assert (info.georeference, info.crs) == ("rpcs", "EPSG:4326")
            with RPCTransformer(rival.rpcs) as model:
                places = [(0, 0), (rival.width, 0), (rival.width, rival.height), (0, rival.height)]
                ground = [model.xy([y], [x], zs=[rival.rpcs.height_off], offset="ul") for x, y in places]
            assert_within(info, [(*place, *np.ravel(at)) for place, at in zip(places, ground, strict=True)])
        else:
            assert (info.transform, info.georeference) == (None, None)


def assert_within(info: Any, points: list[tuple[float, float, float, float]]) -> None:
    """No point lies farther from its place than the raster says."""
    back = ~rasterio.Affine(*info.transform)
    off = [np.hypot(*(np.array(back @ (x, y)) - (col, row))) for col, row, x, y in points]
    assert max(off) <= info.georeference_error_px * (1 + 1e-6)


ON_NO_GLOBE = {
    "cog_hirise_mars.tif": "on Mars",
    "goes.tif": "the corners of the frame look past the Earth",
}


@each("build")
def test_footprints_lie_where_the_pixels_do(row: Row) -> None:
    with open_raster(str(ODD / row["file"])) as source:
        info = source.info
    (found,) = Globe().footprints([Window(0, 0, *info.shape)], info.crs, info.transform)
    if info.crs is None or info.transform is None or row["file"] in ON_NO_GLOBE:
        assert found is None
        return
    assert isinstance(found, Footprint)
    to_globe = Transformer.from_crs(info.crs, "OGC:CRS84", always_xy=True)
    frame = rasterio.Affine(*info.transform)
    corners = [(x, y) for x in (0, info.shape[1]) for y in (0, info.shape[0])]
    ground = np.array([to_globe.transform(*(frame @ corner)) for corner in corners])
    west, south, east, north = found.polygon.bounds
    # The frame's edges bend on the globe, and the whole Earth goes to both ends of it.
    assert (west, south) <= tuple(ground.min(axis=0) + 1e-6)
    assert east >= ground[:, 0].max() - 1e-6
    assert north >= ground[:, 1].max() - 1e-6
    centre = to_globe.transform(*(frame @ (info.shape[1] / 2, info.shape[0] / 2)))
    assert (found.lon, found.lat) == pytest.approx(centre)
    assert math.isfinite(found.polygon.area)


def read_to_the_end(row: Row) -> None:
    with open_raster(str(ODD / row["file"])) as source:
        _, valid = read_all(source)
    if not valid.any():  # which shows only now
        raise SourceUnreadable(row["file"], NO_VALID_PIXELS)


@each("refuse")
def test_what_cannot_be_read_is_refused_with_the_reason(row: Row) -> None:
    with pytest.raises(SourceUnreadable, match=CAUSES[row["expected"]]) as caught:
        read_to_the_end(row)
    assert row["file"] in str(caught.value)
    assert "\n" not in str(caught.value)


@each("build", without="VRT")  # half of which is text that is cut off
def test_half_of_it_is_never_taken_for_the_whole(row: Row, tmp_path: Path) -> None:
    for name in {
        row["file"],
        *(other["file"] for other in rows() if other["odd"] == f"sidecar of {row['file']}"),
    }:
        (tmp_path / name).write_bytes((ODD / name).read_bytes())
    path = tmp_path / row["file"]
    path.write_bytes(path.read_bytes()[: int(row["bytes"]) // 2])
    with pytest.raises(SourceUnreadable), open_raster(str(path)) as source:
        read_all(source)


SMALL = ArchiveSettings(half_px=128, shard_chunks=4)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("odd") / "archive"
    create_archive(place, SMALL)
    return place


@each("build")
def test_level_0_of_its_pyramid_is_what_rasterio_reads(row: Row, archive: Path) -> None:
    build_scene(str(ODD / row["file"]), "scene", archive, SMALL)
    level = zarr.open_group(archive / "scenes" / "scene" / "0", mode="r")
    with rivals(row) as rival:
        np.testing.assert_array_equal(level["data"][:], expected_pixels(row, rival))
        valid = expected_valid(row, rival)
    stored = level["valid"][:] if "valid" in level else np.full(valid.shape, 255, np.uint8)
    np.testing.assert_array_equal(stored, np.where(valid, 255, 0))


@each("refuse")
def test_no_pyramid_is_built_of_what_is_refused(row: Row, archive: Path) -> None:
    with pytest.raises(SourceUnreadable, match=CAUSES[row["expected"]]):
        build_scene(str(ODD / row["file"]), "refused", archive, SMALL)
    assert not (archive / "scenes" / "refused").exists()


@each("sidecar")
def test_sidecars_belong_to_the_digest_of_their_raster(row: Row, tmp_path: Path) -> None:
    whose = row["odd"].removeprefix("sidecar of ")
    for name in (whose, row["file"]):
        (tmp_path / name).write_bytes((ODD / name).read_bytes())
    source = str(tmp_path / whose)
    both, state = source_digest(source), source_state(source)
    (tmp_path / row["file"]).unlink()
    assert source_digest(source) != both
    assert source_state(source) != state


def test_no_row_of_the_catalogue_is_passed_over() -> None:
    if not ODD.is_dir():
        pytest.skip("real imagery is not here: no folder ../shared/data beside the project")
    listed = {row["file"] for row in rows()}
    assert {path.name for path in ODD.iterdir()} - {"catalogue.csv"} == listed
    assert {row["expected"] for row in rows()} == {"build", "sidecar", *CAUSES}
