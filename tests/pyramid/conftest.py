"""One small archive that the tests of this room read."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rasters import random_pixels, write_raster
from tnet_geo.pyramid import Archive, ArchiveSettings, create_archive
from tnet_geo.pyramid.build import build_scene

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Scenes `plain` (all valid) and `masked`, 150 x 203 pixels, from the class folder `harbour`."""
    folder = tmp_path_factory.mktemp("room")
    archive = create_archive(folder / "archive", SETTINGS)
    pixels = random_pixels(seed=1, shape=(150, 203))
    mask = np.where(np.random.default_rng(2).random((150, 203)) < 0.8, 255, 0).astype(np.uint8)
    for scene_id, valid in (("plain", None), ("masked", mask)):
        source = write_raster(folder / "harbour" / f"{scene_id}.tif", pixels, valid)
        build_scene(str(source), scene_id, archive.path, SETTINGS)
    return archive
