"""A folder, a file, a list, a bucket of COGs is an archive; sites find their COG, and others are named."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from rasterio.shutil import copy

from tests.object_store import BUCKET, object_server
from tests.range_server import range_server
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import InvalidArchive, SceneMissing, SourceUnreadable
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery import Site
from tnet_geo.pyramid import Archive, CogArchive, cog_manifest, create_archive, open_cogs, open_scenes
from tnet_geo.pyramid.cog_archive import OPEN_READERS
from tnet_geo.pyramid.handles import HANDLES, MOST_IDLE
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.pyramid.store import open_store

NAMES = ("north/yard 7.tif", "south/yard 7.tif", "south/pier.TIFF")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three COGs in two folders, and a file that is none."""
    found = tmp_path_factory.mktemp("cogs")
    for n, name in enumerate(NAMES):
        source = write_raster(tmp_path_factory.mktemp("sources") / "a.tif", random_pixels(n, (200, 300)))
        (found / name).parent.mkdir(exist_ok=True)
        copy(source, found / name, driver="COG", blocksize=128)
    (found / "notes.md").write_text("not a picture")
    return found


def test_a_folder_holds_the_cogs_below_it(folder: Path) -> None:
    archive = open_scenes(folder)
    assert isinstance(archive, CogArchive)
    assert archive.place == str(folder)
    assert sorted(archive.sources.values()) == sorted(str(folder / name) for name in NAMES)
    assert len(set(archive.scene_ids())) == 3  # two of one name are two
    for scene_id in archive.scene_ids():
        assert archive.has(scene_id)
        assert archive.reader(scene_id, 16).read([Tile(0, 0, 0)]).pixels.any()


def test_ids_stay_when_the_folder_moves(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert set(open_cogs(moved).scene_ids()) == set(open_cogs(folder).scene_ids())


def test_one_file_and_a_list_are_archives(folder: Path, tmp_path: Path) -> None:
    one = open_scenes(folder / "south" / "pier.TIFF")
    assert isinstance(one, CogArchive)
    assert len(one.sources) == 1
    listed = tmp_path / "cogs.txt"
    shutil.copy(folder / NAMES[2], tmp_path / "beside.tif")
    listed.write_text(f"# yards\n{folder / NAMES[0]}\n\nbeside.tif\nhttps://host/far.tif?sig=1\n")
    archive = open_scenes(listed)
    assert isinstance(archive, CogArchive)
    assert list(archive.sources.values()) == [
        str(folder / NAMES[0]),
        str(tmp_path / "beside.tif"),
        "https://host/far.tif?sig=1",
    ]


def test_an_address_is_an_archive(folder: Path) -> None:
    with range_server(folder) as server:
        archive = open_scenes(f"{server.url}/south/pier.TIFF")
        (scene_id,) = archive.scene_ids()  # type: ignore[attr-defined]
        assert archive.reader(scene_id, 16).read([Tile(0, 0, 0)]).pixels.any()


def test_a_prefix_of_a_bucket_is_an_archive(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_server(tmp_path / "log") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        place = f"s3://{BUCKET}/2024"
        for name in NAMES:
            open_store(place).write(name, (folder / name).read_bytes())
        archive = open_scenes(place)
        assert isinstance(archive, CogArchive)
        assert sorted(archive.sources.values()) == sorted(f"{place}/{name}" for name in NAMES)
        site = archive.adopt(Site("a", f"{place}/{NAMES[0]}", "other"))
        reader = archive.reader(site.scene_id, 16)
        assert reader.read([Tile(0, 0, 0)]).pixels.any()
        assert archive.digest(site.scene_id) == reader.spec.digest
        one = open_scenes(f"{place}/{NAMES[2]}")
        assert isinstance(one, CogArchive)
        assert one.digest(next(one.scene_ids())) is not None


def test_an_archive_of_pyramids_is_opened_as_one(tmp_path: Path) -> None:
    create_archive(tmp_path / "archive", ArchiveSettings(half_px=16))
    assert isinstance(open_scenes(tmp_path / "archive"), Archive)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("empty", r"holds no archive\.json and no COG \(\.tif, \.tiff\)"),
        ("absent", "is not there"),
        ("absent.tif", "is not there"),
        ("empty.txt", "holds no archive.json and no COG"),
        ("https://host/folder/", "does not list its files"),
    ],
)
def test_what_holds_no_cog_is_refused(place: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing yet\n")
    with pytest.raises(InvalidArchive, match=says):
        open_scenes(place if "://" in place else tmp_path / place)


def test_a_site_finds_its_cog_by_path_and_otherwise_by_name(folder: Path) -> None:
    archive = open_cogs(folder)
    window = Window(0, 0, 50, 60)
    by_path = archive.adopt(Site("a", str(folder / NAMES[1]), "x", window, "harbour"))
    assert archive.sources[by_path.scene_id] == by_path.scene == str(folder / NAMES[1])
    assert (by_path.site_id, by_path.window, by_path.label) == ("a", window, "harbour")
    assert archive.adopt(by_path) == by_path
    by_name = archive.adopt(Site("b", "/elsewhere/pier.TIFF", "x"))
    assert by_name.scene == str(folder / NAMES[2])
    with pytest.raises(SceneMissing, match="has 2 COGs of that name, and none at the path"):
        archive.adopt(Site("c", "/elsewhere/yard 7.tif", "x"))
    with pytest.raises(SceneMissing, match=r"no COG of scene /elsewhere/quay.tif: name an archive"):
        archive.adopt(Site("d", "/elsewhere/quay.tif", "x"))
    with pytest.raises(SceneMissing):
        archive.reader("quay")
    assert archive.digest("quay") is None


def test_every_cog_is_a_site_where_no_manifest_says_otherwise(folder: Path) -> None:
    archive = open_cogs(folder)
    manifest = cog_manifest(archive)
    assert [site.scene_id for site in manifest.sites] == list(archive.scene_ids())
    assert [archive.adopt(site) for site in manifest.sites] == list(manifest.sites)


def test_the_digest_names_the_content(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "moved")
    ours, theirs = open_cogs(folder), open_cogs(moved)
    for scene_id in ours.scene_ids():
        assert ours.digest(scene_id) == theirs.digest(scene_id) == ours.reader(scene_id).spec.digest
    changed = next(iter(theirs.sources))
    shutil.copy(folder / NAMES[2], theirs.sources[changed])
    assert open_cogs(moved).digest(changed) != ours.digest(changed)
    Path(theirs.sources[changed]).unlink()
    assert open_cogs(moved).digest(changed) is None


def test_readers_and_handles_that_stay_open_are_bounded(folder: Path, tmp_path: Path) -> None:
    for n in range(OPEN_READERS + 8):
        shutil.copy(folder / NAMES[2], tmp_path / f"{n}.tif")
    archive = open_cogs(tmp_path)
    for scene_id in archive.scene_ids():
        archive.reader(scene_id, 16).read([Tile(0, 0, 0), Tile(1, 0, 0)])
    assert len(archive._readers) == OPEN_READERS
    assert len(HANDLES._idle) <= MOST_IDLE
    last = list(archive.scene_ids())[-1]
    assert archive.reader(last, 16) is archive.reader(last)


def test_a_far_cog_is_opened_once_however_many_ask_at_the_same_time(folder: Path) -> None:
    with range_server(folder, latency_s=0.05) as server:
        alone, archive = (open_cogs(f"{server.url}/south/pier.TIFF") for _ in range(2))
        (pier,) = archive.scene_ids()
        alone.reader(pier, 16)
        once = server.requests
        server.reset()
        with ThreadPoolExecutor(8) as threads:
            readers = list(threads.map(lambda _: archive.reader(pier, 16), range(8)))
        assert server.requests == once
    assert all(reader is readers[0] for reader in readers)


def test_one_that_could_not_be_opened_is_asked_for_again(folder: Path, tmp_path: Path) -> None:
    archive = open_cogs(Path(shutil.copy(folder / NAMES[2], tmp_path / "late.tif")))
    (scene_id,) = archive.scene_ids()
    (tmp_path / "late.tif").rename(tmp_path / "elsewhere.tif")
    with pytest.raises(SourceUnreadable):
        archive.reader(scene_id, 16)
    (tmp_path / "elsewhere.tif").rename(tmp_path / "late.tif")
    assert archive.reader(scene_id, 16).read([Tile(0, 0, 0)]).pixels.any()


def test_a_pickled_archive_is_the_same(folder: Path) -> None:
    archive = open_cogs(folder)
    twin = pickle.loads(pickle.dumps(archive))
    assert (twin.place, twin.sources) == (archive.place, archive.sources)
    site = Site("a", str(folder / NAMES[0]), "x")
    assert twin.adopt(site) == replace(site, scene_id=archive.adopt(site).scene_id)
