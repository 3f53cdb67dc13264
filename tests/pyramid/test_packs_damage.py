"""Packs that are damaged, half-written, gone, or read by others: what is lost is said, never black."""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
import zarr

from tests.packs import (
    SETTINGS,
    contents,
    everything_in,
    forget,
    images,
    layouts,
    member_of,
    members_of,
    pack_all,
    reader_of,
)
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SceneUnwritable, TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid import pack_layout, pack_writer
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.pack_index import pack_table
from tnet_geo.pyramid.pack_reader import find_packed
from tnet_geo.pyramid.pack_writer import write_pack
from tnet_geo.pyramid.packs import plan_packs
from tnet_geo.pyramid.places import LocalStore
from tnet_geo.pyramid.sealing import sweep_drafts


@pytest.fixture(autouse=True)
def _from_the_beginning() -> None:
    forget()


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
    assert append_catalogue(store, ["s001", "zeros"]) == 6  # packed ids are no scenes of their own
    assert append_catalogue(store, ["s001", "zeros"]) == 0
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
