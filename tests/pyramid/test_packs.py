"""Packs: what goes in comes out, whatever is wrong with a neighbour, and whoever is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packs import (
    contents,
    everything_in,
    forget,
    images,
    member_of,
    members_of,
    pack_all,
    reader_of,
    scattered,
)
from tests.properties.test_pyramid import (
    assert_equal_pixels,
    dtypes,
    halved_pixel_by_pixel,
    masks,
    random_mask,
    seeds,
)
from tests.rasters import GEOREFERENCE, random_pixels, write_raster
from tnet_geo.errors import ArchiveMismatch
from tnet_geo.grid import Tile, last_level
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, pack_layout, pack_writer
from tnet_geo.pyramid.pack_reader import find_packed, packed_digest
from tnet_geo.pyramid.places import LocalStore


@pytest.fixture(autouse=True)
def _from_the_beginning() -> None:
    forget()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    seeds,
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(1, 5),
    dtypes,
    masks,
    st.booleans(),
    st.integers(2, 9),
    st.integers(1, 5),
    st.integers(1, 4000),
)
def test_every_level_of_every_site_equals_the_plain_loop(  # noqa: PLR0917
    seed: int,
    shape: tuple[int, int],
    bands: int,
    dtype: str,
    mask: str,
    with_nodata: bool,
    half_px: int,
    sites: int,
    shard_bytes: int,
) -> None:
    chosen = ArchiveSettings(half_px=half_px, store="packs")
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_layout, "SHARD_BYTES", shard_bytes)
        folder, store = Path(place), LocalStore(f"{place}/archive")
        sources, expected = {}, {}
        for n in range(sites):
            pixels, validity = (
                random_pixels(seed + n, shape, bands, dtype),
                random_mask(mask, seed + n, shape),
            )
            nodata = float(pixels.flat[0]) if with_nodata else None
            extra = {} if nodata is None else {"nodata": nodata}
            sources[f"s{n}"] = write_raster(folder / f"s{n}.tif", pixels, validity, **extra)
            full = np.full(shape, 255, np.uint8) if validity is None else validity.copy()
            if nodata is not None:
                full[(pixels == nodata).all(axis=0)] = 0
            expected[f"s{n}"] = pixels, full, nodata
        empty = {scene_id for scene_id, (_, validity, _) in expected.items() if not validity.any()}
        outcomes = pack_all(store, members_of(sources, chosen), chosen)
        assert {scene_id for outcome in outcomes for scene_id, _ in outcome.set_aside} == empty
        for scene_id, (pixels, validity, nodata) in expected.items():
            if scene_id in empty:
                continue
            reader = reader_of(store, scene_id)
            assert reader.spec.levels == last_level(shape, half_px) + 1
            for level in range(reader.spec.levels):
                if level:
                    pixels, validity = halved_pixel_by_pixel(pixels, validity, nodata)  # noqa: PLW2901
                ours, share = reader.read_level(level)
                assert_equal_pixels(ours, pixels)
                np.testing.assert_array_equal(
                    np.full_like(validity, 255) if share is None else share, validity
                )


def test_tiles_of_a_site_are_those_of_its_pixels_alone(tmp_path: Path) -> None:
    store, mask = LocalStore(f"{tmp_path}/archive"), scattered(3, (70, 50))
    pixels = [random_pixels(n, (70, 50), dtype="uint16") for n in range(5)]
    sources = {f"s{n}": write_raster(tmp_path / f"s{n}.tif", pixels[n], mask) for n in range(5)}
    pack_all(store, members_of(sources))
    tiles = [Tile(0, row, col) for row in range(-1, 6) for col in range(5)] + [Tile(1, 0, 0), Tile(9, 0, 0)]
    for n in range(5):
        ours = reader_of(store, f"s{n}").read(tiles)
        theirs = MemoryReader.of(pixels[n], 16, mask).read(tiles)
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_array_equal(ours.validity, theirs.validity)


def test_a_site_keeps_its_own_georeference_and_nodata(tmp_path: Path) -> None:
    store = LocalStore(f"{tmp_path}/archive")
    west = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 500, 0, -2, 900)}
    sources = images(tmp_path, 1) | {
        "west": write_raster(tmp_path / "west.tif", random_pixels(9, (70, 50)), **west)
    }
    assert len(pack_all(store, members_of(sources))) == 1
    assert reader_of(store, "west").spec.transform == (2, 0, 500, 0, -2, 900)
    assert reader_of(store, "west").spec.crs == "EPSG:32632"
    assert reader_of(store, "s000").spec.transform == tuple(GEOREFERENCE["transform"])[:6]


def test_a_declared_mask_without_an_invalid_pixel_is_not_stored(tmp_path: Path) -> None:
    store, full = LocalStore(f"{tmp_path}/archive"), np.full((70, 50), 255, np.uint8)
    sources = {
        f"s{n}": write_raster(tmp_path / f"s{n}.tif", random_pixels(n, (70, 50)), full) for n in range(3)
    }
    pack_all(store, members_of(sources))
    assert reader_of(store, "s1").spec.all_valid
    assert not [key for key in store.keys("packs") if "valid" in key]


def test_a_coarser_lattice_is_served_and_no_other(tmp_path: Path) -> None:
    store = LocalStore(f"{tmp_path}/archive")
    pack_all(store, members_of(images(tmp_path, 2, (200, 130))))
    assert reader_of(store, "s001", 32).spec.base_px == 64
    with pytest.raises(ArchiveMismatch, match="half_px 24, no multiple of it"):
        find_packed(store, "s001", 24)


def test_what_is_not_packed_is_not_found(tmp_path: Path) -> None:
    store = LocalStore(f"{tmp_path}/archive")
    assert find_packed(store, "s000") is None
    pack_all(store, members_of(images(tmp_path, 2)))
    assert packed_digest(store, "s002") is None


# --- who is in which pack ---


def test_the_same_bytes_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    members = members_of(images(tmp_path, 9))
    stores = [LocalStore(f"{tmp_path}/{name}") for name in ("forward", "shuffled")]
    pack_all(stores[0], members)
    pack_all(stores[1], np.random.default_rng(4).permutation(np.array(members, object)).tolist())
    assert contents(stores[0]) == contents(stores[1])


def test_an_unreadable_site_is_set_aside_and_leaves_no_trace(tmp_path: Path) -> None:
    sources = images(tmp_path, 6)
    store, without = LocalStore(f"{tmp_path}/archive"), LocalStore(f"{tmp_path}/without")
    members = members_of(sources)
    pack_all(without, [member for member in members if member.scene_id not in {"s001", "s004", "s005"}])
    cut_off(sources["s001"])
    sources["s004"].unlink()
    cut_off(sources["s005"])
    (outcome,) = pack_all(store, members)
    assert [record.scene_id for record in outcome.packed] == ["s000", "s002", "s003"]
    reasons = dict(outcome.set_aside)
    assert set(reasons) == {"s001", "s004", "s005"}
    assert all(f"{scene_id}.tif cannot be read" in reason for scene_id, reason in reasons.items())
    assert contents(store) == contents(without)
    assert everything_in(store) == store.names("packs")  # no drafts


def cut_off(path: Path) -> None:
    """The last third of a file is lost."""
    os.truncate(path, path.stat().st_size * 2 // 3)


def test_a_site_without_a_valid_pixel_is_set_aside(tmp_path: Path) -> None:
    nothing = write_raster(tmp_path / "nothing.tif", random_pixels(1, (70, 50)), np.zeros((70, 50), np.uint8))
    half = write_raster(tmp_path / "half.tif", random_pixels(1, (70, 50)), scattered(1, (70, 50)))
    store = LocalStore(f"{tmp_path}/archive")
    (outcome,) = pack_all(store, members_of({"nothing": nothing, "half": half}))
    assert [record.scene_id for record in outcome.packed] == ["half"]
    assert "not one of its pixels is valid" in dict(outcome.set_aside)["nothing"]


def test_nothing_readable_is_no_pack(tmp_path: Path) -> None:
    sources, store = images(tmp_path, 2), LocalStore(f"{tmp_path}/archive")
    members = members_of(sources)
    for path in sources.values():
        cut_off(path)
    (outcome,) = pack_all(store, members)
    assert not outcome.packed
    assert len(outcome.set_aside) == 2
    assert not store.names("packs")


def test_a_source_that_changed_since_it_was_planned_is_set_aside(tmp_path: Path) -> None:
    sources, store = images(tmp_path, 2), LocalStore(f"{tmp_path}/archive")
    members = members_of(sources)
    write_raster(sources["s001"], random_pixels(1, (71, 50)))
    (outcome,) = pack_all(store, members)
    assert dict(outcome.set_aside).keys() == {"s001"}
    assert "changed after the build was planned" in outcome.set_aside[0][1]


def test_a_source_that_changes_while_it_is_read_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, store = images(tmp_path, 3), LocalStore(f"{tmp_path}/archive")
    members, opened = members_of(sources), pack_writer.open_raster

    def opened_late(source: str) -> Any:
        if source.endswith("s001.tif"):
            write_raster(Path(source), random_pixels(77, (70, 50)))
        return opened(source)

    monkeypatch.setattr(pack_writer, "open_raster", opened_late)
    (outcome,) = pack_all(store, members)
    assert [record.scene_id for record in outcome.packed] == ["s000", "s002"]
    assert "changed while it was read" in dict(outcome.set_aside)["s001"]


def test_a_second_build_writes_nothing(tmp_path: Path) -> None:
    members, store = members_of(images(tmp_path, 4)), LocalStore(f"{tmp_path}/archive")
    (first,) = pack_all(store, members)
    assert first.files == len(contents(store))
    assert first.bytes_written == sum(len(content or b"") for content in contents(store).values())
    forget()
    (again,) = pack_all(store, members)
    assert all(record.skipped for record in again.packed)
    assert [(r.scene_id, r.digest, r.pack_id, r.slot) for r in again.packed] == [
        (r.scene_id, r.digest, r.pack_id, r.slot) for r in first.packed
    ]
    assert (again.bytes_written, again.files) == (0, 0)


def test_an_archive_that_was_deleted_is_written_again_by_a_process_that_knew_it(tmp_path: Path) -> None:
    members, store = members_of(images(tmp_path, 4)), LocalStore(f"{tmp_path}/archive")
    pack_all(store, members)
    before = contents(store)
    shutil.rmtree(store.path)
    (again,) = pack_all(store, members)
    assert not any(record.skipped for record in again.packed)
    assert contents(store) == before


def test_added_sites_go_into_further_packs(tmp_path: Path) -> None:
    sources, store = images(tmp_path, 7), LocalStore(f"{tmp_path}/archive")
    members = members_of(sources)
    pack_all(store, members[:4])
    before = contents(store)
    pack_all(store, members, packed=[member.scene_id for member in members[:4]])
    assert len(store.names("packs")) == 2
    assert before.items() <= contents(store).items()
    for scene_id, path in sources.items():
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(reader_of(store, scene_id).read_level(0)[0], dataset.read())


def test_a_changed_source_is_packed_anew_and_what_is_newest_is_read(tmp_path: Path) -> None:
    sources, store = images(tmp_path, 3), LocalStore(f"{tmp_path}/archive")
    pack_all(store, members_of(sources))
    old = sources["s001"].read_bytes()
    first = packed_digest(store, "s001")
    write_raster(sources["s001"], random_pixels(50, (70, 50)))
    newer = [pack_all(store, [member_of("s001", sources["s001"])])[0]]
    sources["s001"].write_bytes(old)  # and back again: the oldest pack must not count twice
    newer += pack_all(store, [member_of("s001", sources["s001"])])
    assert len({outcome.packed[0].pack_id for outcome in newer}) == 2
    forget()
    assert packed_digest(store, "s001") == first == newer[1].packed[0].digest
    assert reader_of(store, "s001").pack_id == newer[1].packed[0].pack_id
    assert reader_of(store, "s000").read_level(0)[0].shape == (3, 70, 50)
