"""Every reader meets the contract of TileReader, over scenes with and without invalid pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.contract.tile_reader import TileReaderContract, lattice
from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Tile
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, SceneReader, create_archive
from tnet_geo.pyramid.build import build_scene

HALF_PX = 16
SETTINGS = ArchiveSettings(half_px=HALF_PX, shard_chunks=4)


def stored(folder: Path, *, masked: bool) -> SceneReader:
    """A scene of 150 x 203 pixels in shards of 64, stored in an archive."""
    pixels = random_pixels(seed=5, shape=(150, 203), dtype="uint16")
    mask = np.where(np.random.default_rng(6).random((150, 203)) < 0.8, 255, 0).astype(np.uint8)
    source = write_raster(folder / "scene.tif", pixels, mask if masked else None)
    archive = create_archive(folder / "archive", SETTINGS)
    build_scene(str(source), "scene", archive.path, SETTINGS)
    return archive.reader("scene")


@pytest.fixture(scope="module", params=[False, True], ids=["all valid", "masked"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SceneReader:
    return stored(tmp_path_factory.mktemp("scene"), masked=request.param)


class TestSceneReader(TileReaderContract):
    @pytest.fixture
    def reader(self, scene: SceneReader) -> SceneReader:
        return scene


class TestSceneReaderOnACoarserLattice(TileReaderContract):
    @pytest.fixture
    def reader(self, scene: SceneReader) -> SceneReader:
        return SceneReader(scene.path, half_px=2 * HALF_PX)


class TestMemoryReaderOfAScene(TileReaderContract):
    @pytest.fixture
    def reader(self, scene: SceneReader) -> MemoryReader:
        return MemoryReader.load(scene)


class TestMemoryReaderOfAnArray(TileReaderContract):
    @pytest.fixture
    def reader(self) -> MemoryReader:
        return MemoryReader.of(random_pixels(seed=7, shape=(90, 131), bands=2), half_px=16)


def test_memory_and_store_answer_and_charge_alike(scene: SceneReader) -> None:
    loaded = MemoryReader.load(scene)
    tiles = [*lattice(scene), Tile(0, 500, 0)]
    scene.meter.reset()
    ours, theirs = scene.read(tiles), loaded.read(tiles)
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_array_equal(ours.validity, theirs.validity)
    assert scene.meter.snapshot() == loaded.meter.snapshot()


def test_a_coarser_lattice_answers_the_same_ground(scene: SceneReader) -> None:
    coarse = SceneReader(scene.path, half_px=2 * HALF_PX)
    assert coarse.spec.shapes == scene.spec.shapes[: coarse.spec.levels]
    assert max(coarse.spec.shapes[-1]) <= coarse.spec.base_px
    whole = coarse.read([Tile(0, 1, 1)]).pixels[0]
    side = scene.spec.base_px
    parts = scene.read([Tile(0, 2, 2), Tile(0, 2, 4), Tile(0, 4, 2), Tile(0, 4, 4)]).pixels
    np.testing.assert_array_equal(whole[:, :side, :side], parts[0])
    np.testing.assert_array_equal(whole[:, side:, side:], parts[3])
    # The same stored chunks, four times as many to a tile.
    assert coarse.spec.tile_bytes(Tile(0, 1, 1)) == 4 * scene.spec.tile_bytes(Tile(0, 2, 2))
