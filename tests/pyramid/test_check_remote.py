"""Check, repair and export on an object store: moto's server in a process of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import rasterio

from tests.damage import Undamaged, packed_archive, scenes_archive
from tests.object_store import BUCKET, object_server
from tnet_geo.errors import InvalidArchive, PlaceUnusable
from tnet_geo.pyramid.check import check_archive
from tnet_geo.pyramid.export import export_cogs
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.repair import repair_archive
from tnet_geo.pyramid.store import open_store


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with object_server(tmp_path_factory.mktemp("server") / "log") as server:
        yield server.environment


@pytest.fixture(autouse=True)
def environment(endpoint: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in endpoint.items():
        monkeypatch.setenv(name, value)


def uploaded(archive: Undamaged, prefix: str) -> Store:
    store = open_store(f"s3://{BUCKET}/{prefix}")
    for name, content in archive.files.items():
        store.write(name, content)
    return store


def everything(store: Store) -> dict[str, bytes | None]:
    return {key: store.read(key) for key in store.keys()}  # noqa: SIM118  a store is no dict


@pytest.mark.parametrize("kind", ["scenes", "packs"])
def test_damage_is_named_and_mended_as_on_disk(tmp_path: Path, kind: str) -> None:
    archive = scenes_archive(tmp_path) if kind == "scenes" else packed_archive(tmp_path)
    store = uploaded(archive, kind)
    report = check_archive(store.url)
    assert (report.faults, report.shards_read) == ((), len(archive.shards))
    rng = random.Random(0)
    flipped, cut, lost = rng.sample(archive.shards, 3)
    content = bytearray(archive.files[flipped])
    content[rng.randrange(len(content))] ^= 4
    store.write(flipped, bytes(content))
    store.write(cut, archive.files[cut][:-7])
    store.remove(lost)
    stray = f"{archive.shards[0]}9"
    store.write(stray, b"?")
    report = check_archive(store.url)
    assert {(fault.what, fault.file) for fault in report.faults} == {
        ("shard", flipped),
        ("shard", cut),
        ("shard", lost),
        ("stray", stray),
    }
    mended = repair_archive(store.url, archive.manifest)
    assert (mended.shards, mended.removed, mended.exit_code) == (3, 1, 0)
    assert everything(store) == archive.files


def test_a_lost_seal_is_put_back_and_a_scene_under_way_is_not_wrong(tmp_path: Path) -> None:
    archive = scenes_archive(tmp_path)
    store = uploaded(archive, "seals")
    store.write("scenes/late/0/data/c/0/0/0", b"a shard of a build that is under way")
    report = check_archive(store.url)
    assert (report.unsealed, report.exit_code) == (("scenes/late",), 0)
    store.remove("scenes/late/0/data/c/0/0/0")
    store.remove("scenes/plain/zarr.json")
    assert [fault.what for fault in check_archive(store.url).faults] == ["catalogue"]
    assert repair_archive(store.url, archive.manifest).exit_code == 0
    assert everything(store) == archive.files


def test_what_lies_in_a_bucket_is_exported(tmp_path: Path) -> None:
    archive = scenes_archive(tmp_path)
    store = uploaded(archive, "exported")
    assert export_cogs(store.url, tmp_path / "cogs", scenes=["masked"]).exit_code == 0
    with rasterio.open(tmp_path / "cogs/masked.tif") as cog, rasterio.open(tmp_path / "masked.tif") as source:
        assert (cog.read() == source.read()).all()


def test_a_place_without_archive_is_refused() -> None:
    with pytest.raises(InvalidArchive):
        check_archive(f"s3://{BUCKET}/nothing")
    with pytest.raises(PlaceUnusable):
        check_archive("s3://no-such-bucket/archive")
