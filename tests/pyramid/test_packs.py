"""Packs: what goes in comes out, whatever is wrong with a neighbour, and whoever is killed."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packs import SETTINGS, contents, images, layouts, member_of, members_of, pack_all, scattered
from tests.properties.test_pyramid import (
    assert_equal_pixels,
    dtypes,
    halved_pixel_by_pixel,
    masks,
    random_mask,
    seeds,
)
from tests.rasters import GEOREFERENCE, random_pixels, write_raster
from tnet_geo.errors import ArchiveMismatch, SceneUnwritable, TileUnreadable
from tnet_geo.grid import Tile, last_level
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, pack_layout, pack_reader, pack_writer
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.pack_index import opened_pack, pack_table
from tnet_geo.pyramid.pack_reader import PackReader, find_packed, packed_digest
from tnet_geo.pyramid.pack_writer import write_pack
from tnet_geo.pyramid.packs import plan_packs
from tnet_geo.pyramid.places import LocalStore
from tnet_geo.pyramid.sealing import sweep_drafts


def reader_of(store: LocalStore, scene_id: str, half_px: int | None = None) -> PackReader:
    reader = find_packed(store, scene_id, half_px)
    assert reader is not None
    return reader


def forget() -> None:
    """As in a process that has read nothing yet."""
    pack_table.cache_clear()
    opened_pack.cache_clear()
    pack_reader._opened_array.cache_clear()


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


def everything_in(store: LocalStore) -> list[str]:
    """Names in the folder of packs, drafts too."""
    return sorted(path.name for path in (store.path / "packs").iterdir())


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


# --- damage ---


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Six sites in shards of two, every pixel 0 in the last site."""
    sources = images(tmp_path, 5) | {
        "zeros": write_raster(tmp_path / "zeros.tif", np.zeros((3, 70, 50), np.uint8))
    }
    store = LocalStore(f"{tmp_path}/archive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_layout, "SHARD_BYTES", 2 * 3 * 70 * 50)
        pack_all(store, members_of(sources))
        assert layouts(store)[0].shard_sites[0][0] == 2
        forget()
        yield store


def shard(store: LocalStore, index: int) -> Path:
    (pack,) = store.names("packs")
    return store.path / "packs" / pack / "0" / "data" / "c" / str(index) / "0" / "0" / "0"


def test_a_flipped_byte_is_an_error_for_the_site_that_it_is_in(store: LocalStore) -> None:
    path = shard(store, 1)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    tiles = [Tile(0, row, col) for row in range(5) for col in range(4)]
    errors = {n: reader_of(store, f"s{n:03d}").submit(tiles).exception() for n in range(1, 5)}
    ((n, error),) = [(n, error) for n, error in errors.items() if error is not None]
    assert n in {2, 3}  # whichever comes first in its file
    assert isinstance(error, TileUnreadable)
    assert error.scene_id == f"s{n:03d}"


def test_a_lost_shard_is_an_error_and_zeros_are_none(store: LocalStore) -> None:
    assert not reader_of(store, "zeros").read([Tile(0, 0, 0)]).pixels.any()
    shard(store, 2).unlink()
    forget()
    for scene_id in ("s004", "zeros"):
        with pytest.raises(TileUnreadable):
            reader_of(store, scene_id).read([Tile(0, 0, 0)])


@pytest.mark.parametrize("name", ["index.parquet", "zarr.json"])
def test_a_damaged_index_or_seal_is_an_error_for_all_its_sites(store: LocalStore, name: str) -> None:
    append_catalogue(store, [])
    (pack,) = store.names("packs")
    path = store.path / "packs" / pack / name
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    forget()
    with pytest.raises(TileUnreadable, match="s003"):
        find_packed(store, "s003")


@pytest.mark.parametrize("moment", ["PackArrays.add", "PackArrays.finish", "seal"])
def test_a_writer_that_is_killed_leaves_no_pack(tmp_path: Path, moment: str) -> None:
    members, store = members_of(images(tmp_path, 4)), LocalStore(f"{tmp_path}/archive")
    undisturbed = LocalStore(f"{tmp_path}/undisturbed")
    pack_all(undisturbed, members)
    (plan,) = plan_packs(members)
    (tmp_path / "job").write_bytes(pickle.dumps((plan, store, SETTINGS)))
    name = f"pack_writer.{moment}"
    script = (
        "import os, pickle, signal, sys\n"
        "from tnet_geo.pyramid import pack_writer\n"
        f"{name} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "pack_writer.write_pack(*pickle.load(open(sys.argv[1], 'rb')))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "job")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(everything_in(store)) == 1  # a draft
    assert find_packed(store, "s000") is None
    pack_all(store, members)
    assert contents(store) == contents(undisturbed)
    assert sweep_drafts(store.at("packs")) == 1
    assert everything_in(store) == store.names("packs")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members, store = members_of(images(tmp_path, 2)), LocalStore(f"{tmp_path}/archive")
    Path(store.url).mkdir()
    monkeypatch.setattr(
        pack_writer, "index_bytes", lambda rows: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(SceneUnwritable, match="No space left"):
        pack_all(store, members)
    assert not everything_in(store)


# --- the table of packed sites ---


def test_sites_are_found_with_and_without_the_catalogue_and_with_a_damaged_one(store: LocalStore) -> None:
    def places() -> list[tuple[str, int] | None]:
        forget()
        return [pack_table(store).find(f"s{n:03d}") for n in range(6)]

    from_packs = places()
    assert append_catalogue(store, []) == 6
    assert append_catalogue(store, []) == 0
    assert places() == from_packs
    (part,) = store.names("catalogue")
    store.write(f"catalogue/{part}", b"PAR1 and nothing else")
    assert places() == from_packs
    assert from_packs[5] is None
    assert len({place for place in from_packs if place}) == 5


def test_a_pack_that_is_sealed_later_is_found_and_one_that_is_gone_is_not(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tnet_geo.pyramid.pack_index.REFRESH_SECONDS", -1.0)
    assert find_packed(store, "later") is None
    later = write_raster(tmp_path / "later.tif", random_pixels(8, (70, 50)))
    pack_all(store, [member_of("later", later)])
    reader = reader_of(store, "later")
    shutil.rmtree(store.path / "packs" / reader.pack_id)
    pack_table(store).refresh()
    assert find_packed(store, "later") is None
    assert find_packed(store, "s000") is not None


def test_a_missing_scene_does_not_list_the_packs_each_time(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def counted(self: LocalStore, prefix: str = "") -> list[str]:
        nonlocal looks
        looks += 1
        return []

    monkeypatch.setattr(LocalStore, "names", counted)
    for n in range(100):
        assert find_packed(store, f"nobody{n}") is None
    assert looks == 1


# --- others ---


def test_others_open_a_pack(store: LocalStore) -> None:
    (pack,) = store.names("packs")
    with rasterio.open(store.path.parent / "s003.tif") as dataset:
        expected = dataset.read()
    group = zarr.open_group(store.path / "packs" / pack, mode="r")
    np.testing.assert_array_equal(group["0/data"][3], expected)
    levels = [
        xarray.open_zarr(store.path / "packs" / pack, group=str(level), consolidated=False, chunks=None)
        for level in range(3)
    ]
    assert levels[0]["data"].dims == ("site", "c", "y", "x")
    np.testing.assert_array_equal(levels[0]["data"][3], expected)
    assert [level["data"].shape for level in levels] == [(6, 3, 70, 50), (6, 3, 35, 25), (6, 3, 18, 13)]


def test_a_reader_travels_between_processes(store: LocalStore) -> None:
    reader = reader_of(store, "s002", 32)
    twin = pickle.loads(pickle.dumps(reader))
    assert (twin.spec, twin.pack_id, twin.slot) == (reader.spec, reader.pack_id, reader.slot)


def test_write_pack_is_a_task(tmp_path: Path) -> None:
    members, store = members_of(images(tmp_path, 2)), LocalStore(f"{tmp_path}/archive")
    (plan,) = plan_packs(members)
    outcome = pickle.loads(pickle.dumps(write_pack(*pickle.loads(pickle.dumps((plan, store, SETTINGS))))))
    assert [record.slot for record in outcome.packed] == [0, 1]
