"""An archive in a bucket is the archive in a folder: same pixels, same refusals, nothing half-sealed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.contract.tile_reader import TileReaderContract, lattice
from tests.object_store import BUCKET, ObjectServer
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import (
    ArchiveMismatch,
    InvalidArchive,
    OutputExists,
    PlaceUnusable,
    SceneMissing,
    TileUnreadable,
    WriteConflict,
)
from tnet_geo.grid import Tile
from tnet_geo.pyramid import Archive, ArchiveSettings, SceneReader, create_archive, open_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.layout import SEAL
from tnet_geo.pyramid.sealing import abandon, begin, seal, sealed_digest
from tnet_geo.pyramid.store import Store, open_store


def content_of(store: Store) -> dict[str, bytes | None]:
    """All objects of a store by key."""
    return {key: store.read(key) for key, _ in store.sizes()}


SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)
SCENES = ("masked", "plain")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Rasters of 150 x 203 pixels."""
    folder = tmp_path_factory.mktemp("sources")
    pixels = random_pixels(seed=1, shape=(150, 203), dtype="int16")
    mask = np.where(np.random.default_rng(2).random((150, 203)) < 0.8, 255, 0).astype(np.uint8)
    made = {"plain": None, "masked": mask}
    return {name: str(write_raster(folder / f"{name}.tif", pixels, mask)) for name, mask in made.items()}


@pytest.fixture(scope="module")
def twins(
    s3_server: ObjectServer, sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Archive, Archive]]:
    """The same archive in a bucket and in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        places = f"s3://{BUCKET}/twins", tmp_path_factory.mktemp("twins") / "archive"
        remote, local = (create_archive(place, SETTINGS) for place in places)
        for archive in (remote, local):
            for scene_id, source in sources.items():
                build_scene(source, scene_id, archive.store, SETTINGS)
        yield remote, local


@pytest.fixture
def scene(s3: str, sources: dict[str, str]) -> Store:
    """Where the scene `plain` of an archive of its own lies."""
    archive = create_archive(s3, SETTINGS)
    build_scene(sources["plain"], "plain", archive.store, SETTINGS)
    return archive.scene_store("plain")


class TestSceneReaderOfABucket(TileReaderContract):
    @pytest.fixture(params=SCENES)
    def reader(self, twins: tuple[Archive, Archive], request: pytest.FixtureRequest) -> SceneReader:
        reader = twins[0].reader(request.param)
        assert isinstance(reader, SceneReader)
        return reader


def test_a_bucket_holds_the_bytes_that_a_folder_holds(twins: tuple[Archive, Archive]) -> None:
    remote, local = twins
    assert content_of(remote.store) == content_of(local.store)


def test_a_bucket_answers_as_a_folder(twins: tuple[Archive, Archive]) -> None:
    remote, local = twins
    reopened = pickle.loads(pickle.dumps(open_archive(remote.place)))
    assert list(reopened.scene_ids()) == list(local.scene_ids()) == list(SCENES)
    for scene_id in SCENES:
        assert reopened.has(scene_id)
        assert reopened.digest(scene_id) == local.digest(scene_id)
        readers = [archive.reader(scene_id) for archive in (reopened, local)]
        assert readers[0].spec == readers[1].spec
        ours, theirs = (reader.read(lattice(reader)) for reader in readers)
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_array_equal(ours.validity, theirs.validity)
        for level in range(readers[0].spec.levels):
            np.testing.assert_array_equal(*(reader.read_level(level)[0] for reader in readers))
    with pytest.raises(SceneMissing):
        reopened.reader("absent")


def test_what_is_fetched_from_a_bucket_is_what_the_server_answers(
    s3: str, scene: Store, s3_server: ObjectServer, twins: tuple[Archive, Archive]
) -> None:
    reader = open_archive(s3).reader("plain")
    assert (reader.meter.requests, reader.meter.bytes_fetched) == (1, scene.size(SEAL))
    reader.meter.reset()
    answered = s3_server.requests()
    reader.read([Tile(0, 0, 0), Tile(0, 0, 0), Tile(0, 6, 8)])
    first = reader.meter.reset()
    assert first.requests == s3_server.requests() - answered
    sizes = [size for key, size in scene.sizes("0/data/c") if key[-3:] in {"0/0", "1/2"}]
    assert len(sizes) == 2
    assert 8 * 16 * 16 * 2 < first.bytes_fetched <= sum(sizes)
    reader.read([Tile(0, 0, 0)])
    assert (reader.meter.requests, reader.meter.bytes_fetched) == (0, 0)  # what is at hand is not asked for
    at_home = twins[1].reader("plain")
    at_home.read([Tile(0, 0, 0)])
    assert (at_home.meter.requests, at_home.meter.bytes_fetched) == (0, 0)


def test_a_second_build_leaves_what_is_sealed(s3: str, scene: Store, sources: dict[str, str]) -> None:
    before = content_of(scene)
    again = build_scene(sources["plain"], "plain", open_store(s3), SETTINGS)
    assert (again.skipped, again.bytes_written) == (True, 0)
    assert content_of(scene) == before


def test_what_a_killed_build_left_is_absent_and_written_over(
    s3: str, scene: Store, sources: dict[str, str]
) -> None:
    whole = content_of(scene)
    scene.remove(SEAL)
    scene.remove("1")
    scene.write("0/data/c/0/0/0", b"half a sh")
    archive = open_archive(s3)
    assert list(archive.scene_ids()) == []
    assert (archive.has("plain"), archive.digest("plain")) == (False, None)
    with pytest.raises(SceneMissing):
        archive.reader("plain")
    assert not build_scene(sources["plain"], "plain", archive.store, SETTINGS).skipped
    assert content_of(scene) == whole


def test_an_outdated_scene_gives_way_and_leaves_nothing(s3: str, scene: Store, tmp_path: Path) -> None:
    small = random_pixels(seed=9, shape=(70, 40), dtype="int16")
    build_scene(str(write_raster(tmp_path / "new.tif", small)), "plain", open_store(s3), SETTINGS)
    reader = open_archive(s3).reader("plain")
    assert isinstance(reader, SceneReader)
    np.testing.assert_array_equal(reader.read_level(0)[0], small)
    keys = list(scene.keys())
    assert {key.split("/")[0] for key in keys} == {*map(str, range(reader.spec.levels)), SEAL}
    assert [key for key in keys if key.startswith("0/data/c/")] == ["0/data/c/0/0/0", "0/data/c/0/1/0"]


class TestSealing:
    """The seal is a put that succeeds once; its digest tells whose it is."""

    CONTENT = json.dumps({"attributes": {"tnet_geo": {"digest": "ours"}}}).encode()

    def test_a_seal_whose_answer_was_lost_is_recognised(self, s3: str) -> None:
        draft = begin(open_store(s3), "a", "ours")
        draft.store.write(SEAL, self.CONTENT)
        seal([(draft, self.CONTENT)])
        assert sealed_digest(draft.store) == "ours"

    def test_two_builds_of_other_bytes_leave_no_mixture(self, s3: str) -> None:
        draft = begin(open_store(s3), "a", "ours")
        draft.store.write(SEAL, self.CONTENT.replace(b"ours", b"theirs"))
        with pytest.raises(WriteConflict, match=r"sealed from other bytes.*run `tnet-geo pyramid build`"):
            seal([(draft, self.CONTENT)])
        assert sealed_digest(draft.store) is None

    def test_a_scene_that_lost_a_shard_meanwhile_is_not_sealed(self, s3: str) -> None:
        draft = begin(open_store(s3), "a", "ours")
        draft.write_all({"0/zarr.json": b"{}", "stray": b""})
        with pytest.raises(WriteConflict, match="0/data/c was removed"):
            seal([(draft, self.CONTENT)], [["0/zarr.json", "0/data/c"]])
        assert sealed_digest(draft.store) is None
        seal([(draft, self.CONTENT)], [["0/zarr.json"]])
        assert list(draft.store.keys()) == ["0/zarr.json", SEAL]

    def test_an_abandoned_draft_leaves_nothing_unless_it_is_sealed(self, s3: str) -> None:
        draft = begin(open_store(s3), "a", "ours")
        draft.write_all({"0/zarr.json": b"{}"})
        abandon(draft)
        assert list(open_store(s3).keys()) == []
        draft.write_all({"0/zarr.json": b"{}"})
        seal([(draft, self.CONTENT)])
        abandon(draft)
        assert list(draft.store.keys()) == ["0/zarr.json", SEAL]

    def test_a_pickled_draft_is_the_same_draft(self, s3: str) -> None:
        draft = begin(open_store(s3), "a", "ours")
        assert pickle.loads(pickle.dumps(draft)) == draft


def test_a_deleted_shard_is_an_error_never_black(s3: str, scene: Store) -> None:
    scene.remove("0/data/c/0/0/0")
    reader = open_archive(s3).reader("plain")
    with pytest.raises(TileUnreadable, match=r"Scene plain, tile \(level 0, row 1, column 1\)"):
        reader.read([Tile(0, 5, 5), Tile(0, 1, 1), Tile(1, 0, 0)])
    reader.read([Tile(0, 5, 5), Tile(1, 0, 0)])


def test_a_flipped_byte_is_an_error(s3: str, scene: Store) -> None:
    shard = bytearray(scene.read("0/data/c/0/0/0") or b"")
    shard[7] ^= 1
    scene.write("0/data/c/0/0/0", bytes(shard))
    with pytest.raises(TileUnreadable, match=r"tile \(level 0, row 0, column 0\) cannot be read"):
        open_archive(s3).reader("plain").read([Tile(0, 0, 0)])


def test_a_server_that_goes_away_sets_tiles_aside(
    s3: str, scene: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_archive(s3).reader("plain")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TileUnreadable, match=r"127\.0\.0\.1"):
        reader.read([Tile(0, 0, 0)])
    with pytest.raises(TileUnreadable, match=r"whole scene cannot be read .*127.0.0.1:9"):
        SceneReader(scene)


class TestOpening:
    def test_an_empty_prefix_is_no_archive(self, s3: str) -> None:
        with pytest.raises(InvalidArchive, match=r"holds no archive\.json and no COG .*: build an archive"):
            open_archive(s3)

    def test_one_place_cannot_hold_two_kinds_of_archive(self, s3: str) -> None:
        create_archive(s3, SETTINGS)
        assert create_archive(s3, SETTINGS).settings == SETTINGS
        with pytest.raises(ArchiveMismatch, match="built with half_px 16, but half_px 32"):
            create_archive(s3, ArchiveSettings(half_px=32, shard_chunks=4))

    def test_a_prefix_that_holds_something_else_is_left_alone(self, s3: str) -> None:
        open_store(s3).write("thesis.doc", b"mine")
        with pytest.raises(OutputExists):
            create_archive(s3, SETTINGS)
        assert list(open_store(s3).keys()) == ["thesis.doc"]

    def test_of_two_that_make_it_at_once_both_have_it(self, s3: str) -> None:
        with ThreadPoolExecutor(8) as makers:
            made = list(makers.map(lambda _: create_archive(s3, SETTINGS), range(8)))
        assert {archive.settings for archive in made} == {SETTINGS}

    @pytest.mark.parametrize("use", [open_archive, lambda place: create_archive(place, SETTINGS)])
    def test_a_bucket_that_is_not_there_is_refused(self, s3: str, use: object) -> None:
        assert callable(use)
        with pytest.raises(PlaceUnusable, match="make the bucket, or correct its name") as refused:
            use("s3://nobodys/archive")
        assert refused.value.exit_code == 4
