"""COGs as they are found: read by the rules of rasters, through their own levels; gaps are refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from tests.contract.tile_reader import lattice
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import OverviewsMissing, SourceUnreadable, TileUnreadable
from tnet_geo.grid import Tile, Window, last_level, level_shape
from tnet_geo.imagery.raster import RasterSource, open_raster
from tnet_geo.pyramid.cog import CogReader
from tnet_geo.pyramid.decoded import BLOCKS
from tnet_geo.pyramid.reduce import halve
from tnet_geo.pyramid.tiles import cleaned

REAL = (
    "scenes/sentinel2_tci_1098.tif",  # nodata 0, its last overview is a 31st of it
    "scenes/landsat8_b7_memphis_963.tif",  # uint16, blocks of 256 and overviews in blocks of 128
    "scenes/landcover_palette_8704.tif",
    "scenes/river_town_1000.tif",  # no overviews, small enough to be halved in memory
    "odd/cogeo.tif",  # JPEG YCbCr with an internal mask
    "odd/cog_rgb_mask.tif",
    "odd/cog_uint8_rgb_mask.tif",
    "odd/cog_uint8_rgba.tif",
    "odd/cog_gcps_ovr.tif",  # halves of odd sides rounded down
    "odd/cog_with_nan.tif",
    "odd/cog_scale.tif",
    "odd/cog_hirise_mars.tif",
    "odd/cog_fullearth.tif",
    "odd/above_cog.tif",  # 31 bands
    "odd/hro_extmask.tif",  # its mask lies in a file beside it
    "odd/red.tif",
)


def tiles_in(reader: CogReader, level: int, most: int = 40) -> list[Tile]:
    """Some tiles of a level, from a seed."""
    found = [tile for tile in lattice(reader) if tile.level == level]
    chosen = np.random.default_rng(level).permutation(len(found))[:most]
    return [found[n] for n in chosen]


def level_of(source: Path, reader: CogReader, level: int) -> tuple[np.ndarray, np.ndarray]:
    """A level as rasterio has it, whole and clean, by the rules of `open_raster`."""
    shape = reader.spec.shapes[level]
    with open_raster(str(source)) as native:
        info, bands = native.info, native.bands
        if level == 0:
            pixels, valid = native.read(Window(0, 0, *shape))
        else:
            with rasterio.open(source) as dataset:
                sizes = {}
                for n in range(len(dataset.overviews(1))):
                    with rasterio.open(source, overview_level=n) as overview:
                        sizes[overview.shape] = n
            overview = rasterio.open(source, overview_level=sizes[shape])
            with RasterSource(overview, info, bands) as raster:
                pixels, valid = raster.read(Window(0, 0, *shape))
    valid = np.full(shape, 255, np.uint8) if valid is None else valid
    return cleaned(pixels, valid, info.nodata), valid


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", REAL)
def test_every_level_of_a_real_file_is_its_overview_by_the_rules_of_rasters(
    name: str, shared_data: Path
) -> None:
    source = shared_data / name
    reader = CogReader(source, half_px=32)
    assert reader.spec.levels == last_level(reader.spec.shape, 32) + 1
    for level in range(len(reader._file.levels)):
        if max(reader.spec.shapes[level]) > 4500:
            continue
        pixels, valid = level_of(source, reader, level)
        tiles = tiles_in(reader, level)
        found = reader.read(tiles)
        for n, tile in enumerate(tiles):
            overlap = reader.spec.overlap(tile)
            assert overlap is not None
            np.testing.assert_array_equal(found.pixels[n, :, *overlap[0]], pixels[:, *overlap[1]])
            np.testing.assert_array_equal(found.validity[n, *overlap[0]], valid[overlap[1]])


def test_a_huge_map_is_read_through_its_overviews(shared_data: Path) -> None:
    source = shared_data / "scenes" / "landmask_36000.tif"
    reader = CogReader(source, half_px=112)
    assert reader.spec.shape == (18_000, 36_000)
    assert reader.spec.shapes[7] == level_shape((18_000, 36_000), 7) == (141, 282)
    tile = Tile(2, 20, 30)
    with rasterio.open(source, overview_level=1) as overview:
        place = ((20 * 112, 20 * 112 + 224), (30 * 112, 30 * 112 + 224))
        expected = overview.read(window=place)
    np.testing.assert_array_equal(reader.read([tile]).pixels[0], expected)


def test_levels_beyond_the_smallest_overview_are_halved_from_it(shared_data: Path) -> None:
    source = shared_data / "odd" / "cog_with_nan.tif"
    reader = CogReader(source, half_px=32)
    stored = len(reader._file.levels)
    assert reader.spec.levels > stored
    with open_raster(str(source)) as native, rasterio.open(source, overview_level=stored - 2) as overview:
        pixels = overview.read()
        nodata = native.info.nodata
    level = halve(pixels, np.where(np.isfinite(pixels[0]), 255, 0).astype(np.uint8), nodata)
    assert level[1] is not None
    expected = cleaned(level[0], level[1], nodata)
    found = reader.read([Tile(stored, 0, 0)])
    rows, cols = (min(64, side) for side in reader.spec.shapes[stored])
    np.testing.assert_array_equal(found.pixels[0, :, :rows, :cols], expected[:, :rows, :cols])
    np.testing.assert_array_equal(found.validity[0, :rows, :cols], level[1][:rows, :cols])


def large(folder: Path, factors: list[int], name: str = "large.tif") -> Path:
    """4200 x 4100 pixels with the overviews that are asked for, and no others."""
    path = folder / name
    pixels = np.zeros((1, 4200, 4100), np.uint8)
    pixels[0, ::7] = 200
    write_raster(path, pixels, blockxsize=512, blockysize=512, compress="DEFLATE")
    if factors:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews(factors)
    return path


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ([], "has no overview at 1/2 of its 4200 x 4100 pixels"),
        ([4, 8], "has no overview at 1/2 of its 4200 x 4100 pixels, but one of 1050 x 1025"),
        ([2, 6], "has no overview at 1/4 of its 4200 x 4100 pixels, but one of 700 x 684"),
    ],
)
def test_a_gap_between_levels_is_refused_with_the_way_out(
    factors: list[int], says: str, tmp_path: Path
) -> None:
    with pytest.raises(OverviewsMissing) as refusal:
        CogReader(large(tmp_path, factors), half_px=112)
    assert says in str(refusal.value)
    assert "gdaladdo -r average FILE 2 4 8 16 32" in str(refusal.value)
    assert "tnet-geo pyramid build" in str(refusal.value)
    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)


def test_the_way_out_leads_out(tmp_path: Path) -> None:
    path = large(tmp_path, [2, 4, 8, 16, 32])
    assert CogReader(path, half_px=112).spec.levels == 6


def test_what_is_no_geotiff_is_refused(tmp_path: Path) -> None:
    picture = write_raster(tmp_path / "a.png", random_pixels(1, (64, 64)), driver="PNG")
    with pytest.raises(OverviewsMissing, match=r"is a PNG, not a Cloud-Optimised GeoTIFF: build a pyramid"):
        CogReader(picture)
    with pytest.raises(SourceUnreadable, match="No such file"):
        CogReader(tmp_path / "absent.tif")


def cog(folder: Path, name: str = "cog.tif", seed: int = 1, shape: tuple[int, int] = (300, 400)) -> Path:
    plain = write_raster(folder / f"plain-{name}", random_pixels(seed, shape))
    copy(plain, folder / name, driver="COG", compress="DEFLATE", blocksize=128)
    return folder / name


def test_a_damaged_block_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = cog(tmp_path)
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
        size = int(dataset.get_tag_item("BLOCK_SIZE_1_0", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    reader = CogReader(path, half_px=16)
    with pytest.raises(TileUnreadable, match=r"tile \(level 0, row 0, column 9\) cannot be read .*: replace"):
        reader.read([Tile(0, 0, 0), Tile(0, 0, 9), Tile(0, 1, 9)])
    with pytest.raises(TileUnreadable):
        reader.submit([Tile(0, 0, 9)]).result()
    assert reader.read([Tile(0, 0, 0), Tile(0, 10, 0)]).pixels.any()


def test_a_file_that_is_replaced_is_not_read_on(tmp_path: Path) -> None:
    path, other = cog(tmp_path), cog(tmp_path, "other.tif", seed=2)
    reader = CogReader(path, half_px=16)
    before = reader.read([Tile(0, 0, 0)])
    other.replace(path)
    with pytest.raises(TileUnreadable, match=r"whole scene cannot be read .it changed while it was read"):
        reader.read([Tile(0, 0, 0)])
    again = CogReader(path, half_px=16)
    assert again.spec.digest != reader.spec.digest
    assert (again.read([Tile(0, 0, 0)]).pixels != before.pixels).any()


def test_blocks_are_decoded_once_for_all_tiles_that_share_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = CogReader(cog(tmp_path), half_px=16)
    decoded: list[Window] = []
    raw = reader._raw
    monkeypatch.setattr(reader, "_raw", lambda *given: decoded.extend(given[1]) or raw(*given))
    BLOCKS.clear()
    reader.read([Tile(0, row, col) for row in range(8) for col in range(8)] * 2)
    assert len(decoded) == len(set(decoded))
    # 9 halves of 16 touch two blocks of 128 a side
    assert sum(window.height * window.width for window in decoded) == 4 * 128 * 128


def test_a_bound_of_bytes_holds_for_the_blocks_that_are_kept(tmp_path: Path) -> None:
    reader = CogReader(cog(tmp_path), half_px=16)
    limit, BLOCKS._limit = BLOCKS._limit, 200_000
    try:
        reader.read(lattice(reader))
        assert BLOCKS._held <= 200_000
        np.testing.assert_array_equal(
            reader.read(lattice(reader)).pixels, CogReader(reader.source, 16).read(lattice(reader)).pixels
        )
    finally:
        BLOCKS._limit = limit


def test_python_ends_well_with_handles_that_are_open(tmp_path: Path) -> None:
    path = cog(tmp_path)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.range_server import range_server\n"
        "from tnet_geo.grid import Tile\n"
        "from tnet_geo.pyramid.cog import CogReader\n"
        "with range_server(Path(sys.argv[1])) as server:\n"
        "    reader = CogReader(server.url + '/cog.tif', 16)\n"
        "    print(int(reader.submit([Tile(0, 0, 0)]).result().validity.sum()))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(path.parent)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(32 * 32 * 255), "")
