"""COGs over HTTP: what is counted is what the server saw; failures pass, or are named."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from tests.contract.tile_reader import lattice
from tests.packs import scattered
from tests.range_server import RangeServer, range_server
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import OverviewsMissing, SourceUnreadable, TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid import ranges
from tnet_geo.pyramid.cog import CogReader
from tnet_geo.pyramid.decoded import BLOCKS
from tnet_geo.pyramid.ranges import PAGE, Pieces, RangedFile, joined
from tnet_geo.pyramid.tiff_directories import read_directories

SHAPE = (1100, 900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain.tif` and `masked.tif`: COGs of 1100 x 900 pixels, larger than a page."""
    found = tmp_path_factory.mktemp("served")
    for name, mask in (("plain", None), ("masked", scattered(3, SHAPE))):
        source = write_raster(found / "sources" / f"{name}.tif", random_pixels(4, SHAPE), mask)
        copy(source, found / f"{name}.tif", driver="COG", compress="DEFLATE", blocksize=128)
    return found


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    BLOCKS.clear()
    with range_server(folder) as found:
        yield found


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "FIRST_PAUSE_S", 0.001)


def agrees(reader: CogReader, server: RangeServer) -> bool:
    """Whether the meter has counted what the server has seen."""
    return (reader.meter.requests, reader.meter.bytes_fetched) == (server.requests, server.sent)


@pytest.mark.parametrize("name", ["plain", "masked"])
def test_requests_and_bytes_are_those_that_the_server_saw(name: str, server: RangeServer) -> None:
    reader = CogReader(f"{server.url}/{name}.tif", half_px=32)
    assert agrees(reader, server)
    tiles = lattice(reader)
    for start in range(0, len(tiles), 50):
        reader.read(tiles[start : start + 50])
        assert agrees(reader, server)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda tile: reader.read([tile]), tiles[::7]))
    assert agrees(reader, server)


@pytest.mark.parametrize("name", ["plain", "masked"])
def test_remote_tiles_are_the_local_ones(name: str, folder: Path, server: RangeServer) -> None:
    here, there = CogReader(folder / f"{name}.tif", 32), CogReader(f"{server.url}/{name}.tif", 32)
    ours, theirs = there.read(lattice(there)), here.read(lattice(here))
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_array_equal(ours.validity, theirs.validity)


@pytest.mark.parametrize("name", ["plain", "masked"])
def test_every_block_and_its_mask_is_fetched_before_it_is_decoded(
    name: str, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL never has to ask for a byte by itself: its reads would come one after the other."""
    reader = CogReader(f"{server.url}/{name}.tif", half_px=32)
    reader.read([Tile(0, 0, 0)])  # tables of native blocks
    server.reset()
    batch = [Tile(0, 3, 3), Tile(0, 12, 20), Tile(0, 30, 9)]
    paged: list[object] = []
    page_in = RangedFile.page_in
    monkeypatch.setattr(RangedFile, "page_in", lambda file, spans: paged.append(1) or page_in(file, spans))
    before = len([line for line in server.paths if line.startswith("GET")])
    reader.read(batch)
    fetched = [line for line in server.paths if line.startswith("GET")][before:]
    starts = [int(line.rsplit("=", 1)[1].split("-")[0]) for line in fetched]
    assert fetched
    assert not any(start % PAGE == 0 for start in starts)  # ranges of blocks, no page on demand


def test_two_batches_at_once_fetch_a_block_once(server: RangeServer) -> None:
    server.latency_s = 0.05
    reader = CogReader(f"{server.url}/plain.tif", half_px=32)
    reader.read([Tile(0, 0, 0)])
    server.reset()
    futures = [reader.submit([Tile(0, 20, 20)]) for _ in range(6)]
    pixels = [future.result().pixels for future in futures]
    assert all(np.array_equal(pixels[0], other) for other in pixels)
    assert len(server.paths) == len(set(server.paths))


def test_failures_that_pass_are_asked_again_and_counted(server: RangeServer) -> None:
    server.fail_every = 3
    reader = CogReader(f"{server.url}/plain.tif", half_px=32)
    tiles = lattice(reader)
    found = reader.read(tiles)
    assert agrees(reader, server)
    np.testing.assert_array_equal(found.pixels, CogReader(server.folder / "plain.tif", 32).read(tiles).pixels)


def test_a_server_that_fails_for_good_is_named(server: RangeServer) -> None:
    reader = CogReader(f"{server.url}/plain.tif", half_px=32)
    server.fail_every = 1
    with pytest.raises(TileUnreadable, match="its server answers with status 503, also when asked again"):
        reader.read([Tile(0, 20, 20)])
    server.fail_every = 0
    assert reader.read([Tile(0, 20, 20)]).pixels.any()
    assert agrees(reader, server)


def test_a_file_that_is_not_there_and_a_server_without_ranges_are_named(server: RangeServer) -> None:
    with pytest.raises(SourceUnreadable, match="there is no such file"):
        CogReader(f"{server.url}/absent.tif")
    server.ranges = False
    with pytest.raises(SourceUnreadable, match="sends whole files only"):
        CogReader(f"{server.url}/plain.tif")


def test_a_file_that_is_replaced_on_the_server_is_not_read_on(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        source = write_raster(tmp_path / f"s{name}.tif", random_pixels(seed, (600, 600)))
        copy(source, tmp_path / f"{name}.tif", driver="COG", blocksize=128)
    with range_server(tmp_path) as server:
        reader = CogReader(f"{server.url}/a.tif", half_px=32)
        reader.read([Tile(0, 0, 0)])
        (tmp_path / "b.tif").replace(tmp_path / "a.tif")
        with pytest.raises(TileUnreadable, match="it changed while it was read"):
            reader.read([Tile(0, 15, 15)])


def test_sidecars_that_would_change_what_is_read_are_refused(tmp_path: Path, shared_data: Path) -> None:
    for name in ("hro_extmask.tif", "hro_extmask.tif.msk"):
        (tmp_path / name).write_bytes((shared_data / "odd" / name).read_bytes())
    with (
        range_server(tmp_path) as server,
        pytest.raises(OverviewsMissing, match="its mask or its overviews in a file beside it"),
    ):
        CogReader(f"{server.url}/hro_extmask.tif")


def test_what_gdal_knows_from_an_aux_file_is_known_remotely_too(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", random_pixels(1, (300, 300), bands=1))
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>9</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    with range_server(tmp_path) as server:
        reader = CogReader(f"{server.url}/a.tif", half_px=32)
        assert reader.spec.nodata == CogReader(path, half_px=32).spec.nodata == 9
        assert agrees(reader, server)


@pytest.mark.parametrize("bigtiff", ["YES", "NO"])
@pytest.mark.parametrize("profile", [{"interleave": "band"}, {"interleave": "pixel"}, {"endianness": "BIG"}])
def test_the_directories_say_where_gdal_says_that_blocks_lie(
    bigtiff: str, profile: dict[str, str], tmp_path: Path
) -> None:
    path = write_raster(tmp_path / "a.tif", random_pixels(1, (200, 300)), bigtiff=bigtiff, **profile)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    with range_server(tmp_path) as server, rasterio.open(path) as dataset:
        file = RangedFile(f"{server.url}/a.tif", lambda *_: None)
        found = read_directories(file)
        assert [(one.rows, one.cols) for one in found] == [(200, 300), (100, 150), (50, 75)]
        cells = [(row, col) for row in range(4) for col in range(5)]
        for (row, col), spans in zip(cells, found[0].spans(file, cells), strict=True):
            bands = (1, 2, 3) if profile.get("interleave") == "band" else (1,)
            for band, (start, stop) in zip(bands, spans, strict=True):
                key = f"{col}_{row}"
                assert start == int(dataset.get_tag_item(f"BLOCK_OFFSET_{key}", "TIFF", bidx=band))
                assert stop - start == int(dataset.get_tag_item(f"BLOCK_SIZE_{key}", "TIFF", bidx=band))


def test_ranges_that_are_near_are_one() -> None:
    assert joined([]) == []
    assert joined([(5, 9), (0, 4)], gap=0) == [(0, 4), (5, 9)]
    assert joined([(5, 9), (0, 4)], gap=1) == [(0, 9)]
    assert joined([(0, 100), (20, 30)], gap=0) == [(0, 100)]


def test_pieces_give_what_one_of_them_has() -> None:
    pieces = Pieces([(100, b"abcdef"), (10, b"xyz")])
    assert pieces.get(101, 103) == b"bc"
    assert pieces.get(10, 13) == b"xyz"
    assert pieces.get(9, 12) is pieces.get(12, 14) is pieces.get(105, 107) is None
