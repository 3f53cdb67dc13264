"""Packs in a bucket: written, found, resumed and replaced on a real S3-compatible server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.object_store import BUCKET, object_server
from tests.packs import SETTINGS, contents, forget, images, member_of, members_of, pack_all
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid import pack_writer
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.pack_reader import find_packed, packed_digest
from tnet_geo.pyramid.pack_writer import write_pack
from tnet_geo.pyramid.packs import plan_packs
from tnet_geo.pyramid.places import LocalStore, Store
from tnet_geo.pyramid.store import open_store


@pytest.fixture(scope="module", autouse=True)
def _bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with (
        object_server(tmp_path_factory.mktemp("s3") / "log") as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    """A prefix for each test."""
    return open_store(f"s3://{BUCKET}/{request.node.name}")


def test_the_same_objects_as_files_in_a_folder(store: Store, tmp_path: Path) -> None:
    sources, local = images(tmp_path, 5), LocalStore(f"{tmp_path}/archive")
    members = members_of(sources)
    (here,), (there,) = pack_all(local, members), pack_all(store, members)
    assert contents(store) == contents(local)
    assert (there.packed, there.files, there.bytes_written) == (here.packed, here.files, here.bytes_written)
    for scene_id, path in sources.items():
        reader = find_packed(store, scene_id)
        assert reader is not None
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(reader.read_level(0)[0], dataset.read())


def test_a_second_build_writes_nothing_and_the_catalogue_is_appended(store: Store, tmp_path: Path) -> None:
    members = members_of(images(tmp_path, 3))
    pack_all(store, members)
    forget()
    (again,) = pack_all(store, members)
    assert [record.skipped for record in again.packed] == [True] * 3
    assert (append_catalogue(store, []), append_catalogue(store, [])) == (3, 0)
    forget()
    assert packed_digest(store, "s002") == again.packed[2].digest


def test_what_has_no_seal_does_not_exist_and_is_written_over(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, undisturbed = members_of(images(tmp_path, 3)), LocalStore(f"{tmp_path}/archive")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pack_writer, "seal", killed)
        patch.setattr(pack_writer, "abandon", lambda draft: None)  # nobody was left to do it
        with pytest.raises(KeyboardInterrupt):
            pack_all(store, members)
    assert len(store.names("packs")) == 1
    assert find_packed(store, "s000") is None
    assert append_catalogue(store, []) == 0
    pack_all(store, members)
    pack_all(undisturbed, members)
    assert contents(store) == contents(undisturbed)


def test_a_site_that_cannot_be_read_leaves_no_objects(store: Store, tmp_path: Path) -> None:
    sources, without = images(tmp_path, 4), LocalStore(f"{tmp_path}/archive")
    members = members_of(sources)
    os.truncate(sources["s002"], sources["s002"].stat().st_size * 2 // 3)
    (outcome,) = pack_all(store, members)
    assert dict(outcome.set_aside).keys() == {"s002"}
    pack_all(without, [member for member in members if member.scene_id != "s002"])
    assert contents(store) == contents(without)


def test_two_writers_of_one_pack_are_as_good_as_one(store: Store, tmp_path: Path) -> None:
    members, alone = members_of(images(tmp_path, 4)), LocalStore(f"{tmp_path}/archive")
    (plan,) = plan_packs(members)
    with ThreadPoolExecutor(2) as writers:
        both = list(writers.map(lambda _: write_pack(plan, store, SETTINGS), range(2)))
    assert len({record.pack_id for outcome in both for record in outcome.packed}) == 1
    pack_all(alone, members)
    assert contents(store) == contents(alone)


def test_a_changed_source_replaces_its_pixels(store: Store, tmp_path: Path) -> None:
    sources = images(tmp_path, 2)
    pack_all(store, members_of(sources))
    write_raster(sources["s001"], random_pixels(40, (70, 50)))
    ((outcome,),) = [pack_all(store, [member_of("s001", sources["s001"])])]
    forget()
    reader = find_packed(store, "s001")
    assert reader is not None
    assert reader.pack_id == outcome.packed[0].pack_id
    np.testing.assert_array_equal(reader.read_level(0)[0], random_pixels(40, (70, 50)))


def test_a_lost_object_is_an_error(store: Store, tmp_path: Path) -> None:
    pack_all(store, members_of(images(tmp_path, 2)))
    (pack,) = store.names("packs")
    store.remove(f"packs/{pack}/0/data/c/0/0/0/0")
    reader = find_packed(store, "s000")
    assert reader is not None
    with pytest.raises(TileUnreadable, match="s000"):
        reader.read([Tile(0, 0, 0)])
