"""Places keep whole objects by key: folders and buckets alike."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from tests.object_store import ObjectServer
from tnet_geo.errors import PlaceUnusable
from tnet_geo.pyramid import object_store
from tnet_geo.pyramid.sealing import sweep_drafts
from tnet_geo.pyramid.store import LocalStore, ObjectStore, Store, open_store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty place of either kind."""
    place = tmp_path / "place" if request.param == "folder" else request.getfixturevalue("s3")
    return open_store(place)


def test_what_is_written_is_read_until_it_is_removed(store: Store) -> None:
    assert store.read("a/b") is None
    assert store.size("a/b") is None
    store.write("a/b", b"first")
    store.write("a/b", b"the second")
    assert (store.read("a/b"), store.size("a/b")) == (b"the second", 10)
    store.remove("a/b")
    store.remove("a/b")
    assert store.read("a/b") is None


def test_a_folder_is_no_object_and_an_object_no_folder(store: Store) -> None:
    store.write("a/b", b"")
    assert store.read("a/b") == b""
    for key in ("a", "a/b/c"):
        assert store.read(key) is None
        assert store.size(key) is None
    assert store.names("a/b") == []
    assert list(store.keys("a/b")) == []


def test_an_object_is_created_once(store: Store) -> None:
    assert store.create("seal", b"mine")
    assert not store.create("seal", b"theirs")
    assert store.read("seal") == b"mine"


def test_of_many_who_create_an_object_at_once_one_does(store: Store) -> None:
    names = [f"writer {n}".encode() for n in range(16)]
    with ThreadPoolExecutor(16) as writers:
        done = list(writers.map(lambda name: store.create("seal", name), names))
    assert done.count(True) == 1
    assert store.read("seal") == names[done.index(True)]
    assert list(store.keys()) == ["seal"]


def test_objects_are_listed_in_the_order_of_their_keys(store: Store) -> None:
    keys = ["a/b", "a-b", "a/b c/d", "a0", "über/größe", "日本/é", "z%20/~+&=#[x]*"]
    for size, key in enumerate(keys):
        store.write(key, b"x" * size)
    assert list(store.keys()) == sorted(keys)
    assert dict(store.sizes()) == {key: size for size, key in enumerate(keys)}
    assert list(store.keys("a")) == ["a/b", "a/b c/d"]
    assert store.names() == sorted({key.split("/")[0] for key in keys})
    assert store.names("a") == ["b", "b c"]
    assert store.names("nowhere") == list(store.keys("nowhere")) == []
    assert [store.read(key) for key in keys] == [b"x" * size for size in range(len(keys))]


def test_drafts_are_not_listed(store: Store) -> None:
    for key in ("a/.draft", ".hidden/a", "a/b"):
        store.write(key, b"")
    assert list(store.keys()) == ["a/b"]
    assert (store.names(), store.names("a")) == (["a"], ["b"])
    assert store.read("a/.draft") == b""


def test_a_folder_is_removed_with_all_below_it_and_nothing_beside_it(store: Store) -> None:
    for key in ("a/b/c", "a/b/.draft", "a/bc", "a/d"):
        store.write(key, b"")
    store.remove("a/b")
    store.remove("nowhere")
    assert list(store.keys()) == ["a/bc", "a/d"]
    assert store.read("a/b/.draft") is None


def test_more_objects_than_are_listed_or_removed_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "LISTED_AT_ONCE", 10)
    keys = [f"many/{n:04d}" for n in range(35)]
    for key in keys:
        store.write(key, b"")
    assert list(store.keys()) == keys
    assert len(store.names("many")) == len(keys)
    store.remove("many")
    assert list(store.keys()) == []


def test_a_store_inside_a_store_sees_its_own(store: Store) -> None:
    inner = store.at("scenes", "a")
    inner.write("0/zarr.json", b"{}")
    assert list(store.keys()) == ["scenes/a/0/zarr.json"]
    assert list(inner.keys()) == ["0/zarr.json"]
    assert (inner.name, inner.url) == ("a", f"{store.url}/scenes/a")
    assert inner == store.at("scenes/a") == open_store(inner.url)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "..", "a/../../b", "."])
def test_a_key_that_would_leave_the_store_is_refused(store: Store, key: str) -> None:
    for use in (store.read, store.size, store.remove, lambda key: store.write(key, b""), store.at):
        with pytest.raises(ValueError, match="no relative path of plain names"):
            use(key)


def test_a_large_object_comes_back_as_it_went(store: Store) -> None:
    content = np.random.default_rng(3).bytes(40_000_001)
    store.write("large", content)
    assert store.size("large") == len(content)
    assert store.read("large") == content
    assert not store.create("large", b"")
    assert store.create("large too", content)
    assert store.read("large too") == content


def test_a_pickled_store_is_the_same_place(store: Store) -> None:
    store.write("a", b"content")
    packed = pickle.dumps(store)
    assert b"testing" not in packed  # credentials stay in the environment
    assert pickle.loads(packed) == store
    assert pickle.loads(packed).read("a") == b"content"


def test_tensorstore_reads_and_writes_the_same_objects(store: Store) -> None:
    spec = {"driver": "zarr3", "kvstore": store.kvstore("0/data")}
    pixels = np.arange(48, dtype=np.uint16).reshape(6, 8)
    array = ts.open(spec, dtype="uint16", shape=[6, 8], create=True).result()
    array.write(pixels).result()
    assert store.size("0/data/zarr.json")
    np.testing.assert_array_equal(ts.open(spec).result().read().result(), pixels)


def test_addresses_of_one_place_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spaced = tmp_path / "a b"
    assert open_store("a b") == open_store(spaced) == open_store(spaced.as_uri()) == LocalStore(str(spaced))
    assert open_store("s3://bucket//a/b/") == ObjectStore("s3://bucket/a/b")
    assert open_store("s3://bucket").url == "s3://bucket"


@pytest.mark.parametrize("place", ["gs://bucket/a", "https://example.org/archive", "s3://", "s3:///"])
def test_a_place_of_another_kind_is_refused(place: str) -> None:
    with pytest.raises(PlaceUnusable, match=r"name .*s3://bucket/prefix"):
        open_store(place)


def _write_forever(folder: str) -> None:
    store = LocalStore(folder)
    while True:
        store.write("object", os.urandom(200_000))


def test_a_killed_writer_leaves_a_whole_object_and_no_litter(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.write("object", b"x" * 200_000)
    for _ in range(3):
        writer = multiprocessing.get_context("spawn").Process(target=_write_forever, args=(store.url,))
        writer.start()
        before = store.read("object")
        while store.read("object") == before:
            time.sleep(0.001)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        assert store.size("object") == 200_000
        assert list(store.keys()) == ["object"]
    sweep_drafts(store)
    assert [path.name for path in tmp_path.iterdir()] == ["object"]


class TestBucketsThatDoNotAnswer:
    """One sentence each, with what to do."""

    def test_nobody_listens(self, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(PlaceUnusable, match=r"cannot be reached at http://127.0.0.1:9: check AWS_END"):
            open_store(s3).read("a")

    def test_no_such_bucket(self, s3: str) -> None:
        store = open_store("s3://nobodys/archive")
        told = "is in bucket nobodys, which does not exist: make the bucket, or correct its name"
        for use in (
            store.read,
            store.names,
            lambda key: store.write(key, b""),
            lambda key: list(store.keys(key)),
        ):
            with pytest.raises(PlaceUnusable, match=told):
                use("a")

    @pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
    def test_no_credentials(self, s3: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.delenv(name)
        with pytest.raises(PlaceUnusable, match=r"needs credentials.* set AWS_ACCESS_KEY_ID and AWS_SEC"):
            open_store(s3).read("a")

    def test_wrong_credentials(self, s3: str, s3_server: ObjectServer) -> None:
        told = r"lets these credentials not in \(\w+\): check AWS_ACCESS_KEY_ID"
        with s3_server.guarded(), pytest.raises(PlaceUnusable, match=told):
            open_store(s3).read("a")


def test_objects_that_are_open_to_all_need_no_credentials(
    s3: str, s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(s3).write("a", b"content")
    s3_server.publish(f"{s3}/a")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    assert open_store(s3).read("a") == b"content"
    assert open_store(s3).kvstore("a")["aws_credentials"] == {"type": "anonymous"}
