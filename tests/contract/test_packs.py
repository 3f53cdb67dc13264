"""Packed sites meet the contract of TileReader: in a folder, in a bucket, and on a canvas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.contract.tile_reader import TileReaderContract, lattice
from tests.object_store import BUCKET, object_server
from tests.packs import SETTINGS, member_of, pack_all, scattered
from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Window
from tnet_geo.pyramid import ArchiveSettings, MemoryReader
from tnet_geo.pyramid.pack_reader import PackReader, find_packed
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.store import open_store

SHAPE = (150, 203)
CANVAS = ArchiveSettings(half_px=16, canvas="fit:96")


def packed(folder: Path, store: Store, *, masked: bool, chosen: ArchiveSettings = SETTINGS) -> PackReader:
    """The second of three sites of a pack."""
    members = [
        member_of(
            f"s{n}",
            write_raster(
                folder / f"s{n}.tif",
                random_pixels(n, SHAPE, dtype="uint16"),
                scattered(n, SHAPE) if masked else None,
            ),
            chosen,
            Window(20, 30, 70, 50) if chosen.canvas_px else None,
        )
        for n in range(3)
    ]
    pack_all(store, members, chosen)
    reader = find_packed(store, "s1")
    assert reader is not None
    return reader


@pytest.fixture(scope="module", params=[False, True], ids=["all valid", "masked"])
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PackReader:
    folder = tmp_path_factory.mktemp("packed")
    return packed(folder, open_store(folder / "archive"), masked=request.param)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackReader]:
    folder = tmp_path_factory.mktemp("bucket")
    with object_server(folder / "log") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield packed(folder, open_store(f"s3://{BUCKET}/packed"), masked=True)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> PackReader:
    folder = tmp_path_factory.mktemp("fitted")
    return packed(folder, open_store(folder / "archive"), masked=True, chosen=CANVAS)


class TestPackReader(TileReaderContract):
    @pytest.fixture
    def reader(self, local: PackReader) -> PackReader:
        return local


class TestPackReaderOnACoarserLattice(TileReaderContract):
    @pytest.fixture
    def reader(self, local: PackReader) -> PackReader:
        return PackReader(local.store, "s1", local.pack_id, local.slot, half_px=32)


class TestPackReaderOnACanvas(TileReaderContract):
    @pytest.fixture
    def reader(self, fitted: PackReader) -> PackReader:
        return fitted


class TestPackReaderOfABucket(TileReaderContract):
    @pytest.fixture
    def reader(self, remote: PackReader) -> PackReader:
        return remote

    def test_the_meter_counts_what_is_fetched(self, remote: PackReader, tmp_path: Path) -> None:
        cold = packed(tmp_path, open_store(f"s3://{BUCKET}/cold"), masked=True)
        assert cold.meter.requests == 0
        tiles = lattice(cold)
        cold.read(tiles[:1])
        assert cold.meter.requests >= 2  # pixels and validity
        assert cold.meter.bytes_fetched > 0
        before = cold.meter.requests
        cold.read(tiles[:1])
        assert cold.meter.requests == before  # kept in memory


def test_memory_and_pack_answer_and_charge_alike(local: PackReader) -> None:
    loaded = MemoryReader.load(local)
    tiles = lattice(local)
    local.meter.reset()
    ours, theirs = local.read(tiles), loaded.read(tiles)
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_array_equal(ours.validity, theirs.validity)
    assert local.meter.snapshot() == loaded.meter.snapshot()
