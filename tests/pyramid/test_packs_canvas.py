"""Sites on a canvas, from their sources to the tiles of their packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

from tests.packs import layouts, member_of, pack_all, reader_of
from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.imagery.context import with_context
from tnet_geo.imagery.raster import RasterSource
from tnet_geo.pyramid import ArchiveSettings, halve
from tnet_geo.pyramid.canvas import canvas_site, fit
from tnet_geo.pyramid.places import LocalStore

CANVAS = ArchiveSettings(half_px=16, canvas="fit:64")


def test_a_site_is_its_box_with_context_as_a_square(tmp_path: Path) -> None:
    pixels, store = random_pixels(1, (300, 400)), LocalStore(f"{tmp_path}/archive")
    source, box = write_raster(tmp_path / "a.tif", pixels), Window(100, 50, 80, 60)
    site = canvas_site(Site("a/1", str(source), "a", box))
    pack_all(store, [member_of(site.scene_id, source, CANVAS, box)], CANVAS)
    cut = with_context(box, (300, 400))
    assert cut == Window(80, 20, 120, 120)  # 80 of 300: half of it more; 60 of 400: once
    expected, _ = fit(
        lambda w: (pixels[:, w.row : w.bottom, w.col : w.right], None), cut, 64, nodata=None, pixel_bytes=3
    )
    reader = reader_of(store, site.scene_id)
    assert reader.spec.shapes == ((64, 64), (32, 32))
    np.testing.assert_array_equal(reader.read_level(0)[0], expected)
    np.testing.assert_array_equal(reader.read_level(1)[0], halve(expected, None)[0])
    # 120 pixels of half a metre a side, on 64.
    a, b, c, d, e, f = reader.spec.transform or ()
    assert (a, b, c, d, e, f) == (0.9375, 0, 600_010, 0, -0.9375, 4_999_960)
    (layout,) = layouts(store)
    assert layout.canvas == "fit:64"
    row = pq.read_table(store.path / "packs" / layout.pack_id / "index.parquet").to_pylist()[0]
    assert [row[key] for key in ("row_off", "col_off", "height", "width")] == [80, 20, 120, 120]


def test_sites_of_any_size_and_source_share_packs(tmp_path: Path) -> None:
    store = LocalStore(f"{tmp_path}/archive")
    members = []
    for n, shape in enumerate([(40, 50), (500, 300), (64, 64), (33, 900)]):
        source = write_raster(tmp_path / f"{n}.tif", random_pixels(n, shape))
        members.append(member_of(f"{n}-0", source, CANVAS))
        members.append(member_of(f"{n}-1", source, CANVAS, Window(5, 5, 20, 20)))
    (outcome,) = pack_all(store, members, CANVAS)
    assert len(outcome.packed) == 8
    assert len({record.digest for record in outcome.packed}) == 8
    with rasterio.open(tmp_path / "2.tif") as dataset:  # of the canvas' own size
        np.testing.assert_array_equal(reader_of(store, "2-0").read_level(0)[0], dataset.read())


def test_tiled_and_striped_copies_of_a_source_give_the_same_pixels(tmp_path: Path) -> None:
    pixels, found = random_pixels(5, (333, 277)), []
    windows = [Window(row, col, 50, 40) for row in (0, 150, 280) for col in (0, 200)]
    for name, layout in {
        "tiled": {},
        "striped": {"tiled": False, "blockxsize": 277, "blockysize": 3},
    }.items():
        source = write_raster(tmp_path / f"{name}.tif", pixels, **layout)
        store = LocalStore(f"{tmp_path}/{name}")
        pack_all(store, [member_of(f"s{n}", source, CANVAS, w) for n, w in enumerate(windows)], CANVAS)
        found.append([reader_of(store, f"s{n}").read_level(0)[0] for n in range(len(windows))])
    np.testing.assert_array_equal(found[0], found[1])


def test_a_source_without_inner_tiles_is_decoded_once_for_all_its_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_raster(tmp_path / "a.jpg", random_pixels(1, (200, 200)), driver="JPEG")
    store, reads, read = LocalStore(f"{tmp_path}/archive"), [], RasterSource.read

    def counted(raster: RasterSource, window: Window) -> object:
        reads.append(window)
        return read(raster, window)

    monkeypatch.setattr(RasterSource, "read", counted)
    windows = [Window(10 * n, 10 * n, 30, 30) for n in range(9)]
    pack_all(store, [member_of(f"s{n}", source, CANVAS, w) for n, w in enumerate(windows)], CANVAS)
    assert reads == [Window(0, 0, 200, 200)]
