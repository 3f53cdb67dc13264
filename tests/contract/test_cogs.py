"""COGs meet the contract of TileReader, local, over HTTP and in a bucket; all readers agree on one source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rasterio.shutil import copy

from tests.contract.tile_reader import TileReaderContract, lattice
from tests.object_store import BUCKET, object_server
from tests.packs import SETTINGS as PACKED
from tests.packs import member_of, pack_all, scattered
from tests.range_server import RangeServer, range_server
from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery.raster import open_raster
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, create_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.cog import CogReader
from tnet_geo.pyramid.export import export_cogs
from tnet_geo.pyramid.pack_reader import find_packed
from tnet_geo.pyramid.store import open_store
from tnet_geo.pyramid.tiles import ReadCount, TileReader

HALF_PX = 16
SHAPE = (150, 203)
SETTINGS = ArchiveSettings(half_px=HALF_PX, shard_chunks=4)


@dataclass(frozen=True)
class Source:
    """One raster, as it is and as a COG."""

    folder: Path
    plain: Path
    cog: Path


def made(folder: Path, *, masked: bool) -> Source:
    """150 x 203 pixels with nodata 7, as a tiled TIFF and as a COG in blocks of 64 made by GDAL."""
    pixels = random_pixels(seed=5, shape=SHAPE, dtype="uint16")
    pixels[:, 20:30, 40:90] = 7
    mask = scattered(6, SHAPE) if masked else None
    profile = {} if masked else {"nodata": 7}
    plain = write_raster(folder / "plain.tif", pixels, mask, **profile)
    copy(plain, folder / "cog.tif", driver="COG", compress="DEFLATE", blocksize=64)
    return Source(folder, plain, folder / "cog.tif")


@pytest.fixture(scope="module", params=[False, True], ids=["nodata", "masked"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return made(tmp_path_factory.mktemp("source"), masked=request.param)


@pytest.fixture(scope="module")
def server(source: Source) -> Iterator[RangeServer]:
    with range_server(source.folder) as found:
        yield found


@pytest.fixture(scope="module")
def bucket(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("moto") / "log"
    with object_server(log) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        open_store(f"s3://{BUCKET}/cogs").write("cog.tif", source.cog.read_bytes())
        yield f"s3://{BUCKET}/cogs"


class TestCogReader(TileReaderContract):
    @pytest.fixture
    def reader(self, source: Source) -> CogReader:
        return CogReader(source.cog, HALF_PX)


class TestCogReaderOnALatticeThatIsNotThatOfItsBlocks(TileReaderContract):
    @pytest.fixture
    def reader(self, source: Source) -> CogReader:
        return CogReader(source.cog, half_px=25)


class TestCogReaderOverHttp(TileReaderContract):
    @pytest.fixture
    def reader(self, server: RangeServer) -> CogReader:
        return CogReader(f"{server.url}/cog.tif", HALF_PX)


class TestCogReaderOfABucket(TileReaderContract):
    @pytest.fixture
    def reader(self, bucket: str) -> CogReader:
        return CogReader(f"{bucket}/cog.tif", HALF_PX)


def test_all_readers_give_the_same_native_pixels_of_one_source(
    source: Source, server: RangeServer, bucket: str
) -> None:
    archive = create_archive(source.folder / "archive", SETTINGS)
    build_scene(str(source.plain), "scene", archive.place, SETTINGS)
    packs = open_store(source.folder / "packs")
    pack_all(packs, [member_of("scene", source.plain, PACKED)], PACKED)
    packed = find_packed(packs, "scene")
    assert packed is not None
    with open_raster(str(source.plain)) as raster:
        pixels, valid = raster.read(Window(0, 0, *SHAPE))
        memory = MemoryReader.of(pixels, HALF_PX, valid, nodata=raster.info.nodata)
    readers: list[TileReader] = [
        archive.reader("scene"),
        packed,
        CogReader(source.cog, HALF_PX),
        CogReader(f"{server.url}/cog.tif", HALF_PX),
        CogReader(f"{bucket}/cog.tif", HALF_PX),
    ]
    tiles = [tile for tile in lattice(memory) if tile.level == 0]
    expected = memory.read(tiles)
    for reader in readers:
        found = reader.read(tiles)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        np.testing.assert_array_equal(found.validity, expected.validity)


def test_a_scene_exported_as_a_cog_reads_as_the_scene_at_every_level(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", random_pixels(seed=9, shape=SHAPE))
    archive = create_archive(tmp_path / "archive", SETTINGS)
    build_scene(str(source), "scene", archive.place, SETTINGS)
    export_cogs(tmp_path / "archive", tmp_path / "cogs")
    stored, cog = archive.reader("scene"), CogReader(tmp_path / "cogs" / "scene.tif", HALF_PX)
    assert cog.spec.shapes == stored.spec.shapes
    ours, theirs = cog.read(lattice(cog)), stored.read(lattice(cog))
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_array_equal(ours.validity, theirs.validity)


def test_a_local_file_needs_no_network(source: Source) -> None:
    reader = CogReader(source.cog, HALF_PX)
    reader.read(lattice(reader))
    assert (reader.meter.requests, reader.meter.bytes_fetched) == (0, 0)


def test_the_cost_of_a_tile_is_that_of_the_blocks_that_it_touches(source: Source) -> None:
    reader = CogReader(source.cog, HALF_PX)
    per_pixel = 3 * 2 + 1
    assert reader.spec.tile_chunks(Tile(0, 0, 0)) == 1
    assert reader.spec.tile_bytes(Tile(0, 3, 3)) == 4 * 64 * 64 * per_pixel


def test_a_level_that_the_file_does_not_have_is_read_once_and_counted(source: Source) -> None:
    reader = CogReader(source.cog, half_px=4)
    last = reader.spec.levels - 1
    assert max(reader.spec.shapes[last]) <= 8
    reader.read([Tile(last, 0, 0)])
    first = reader.meter.reset()
    reader.read([Tile(last, 0, 0)])
    assert first.bytes_decoded > reader.meter.bytes_decoded == reader.spec.tile_bytes(Tile(last, 0, 0))
    assert reader.meter.snapshot() == ReadCount(
        tiles=1, chunks=1, bytes_decoded=reader.spec.tile_bytes(Tile(last, 0, 0))
    )
