"""Archives are made once, checked when they are opened, and hold only what is sealed."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import (
    ArchiveMismatch,
    InvalidArchive,
    OutputExists,
    PlaceUnusable,
    SceneMissing,
    TileUnreadable,
)
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery import Site
from tnet_geo.pyramid import Archive, ArchiveSettings, SceneReader, create_archive, open_archive
from tnet_geo.pyramid.archive import open_built
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.cog_archive import CogArchive

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)


def test_an_archive_says_what_it_was_made_with(tmp_path: Path) -> None:
    settings = ArchiveSettings(half_px=48, codec="interop")
    create_archive(tmp_path / "archive", settings)
    assert open_archive(tmp_path / "archive").settings == settings
    assert json.loads((tmp_path / "archive" / "archive.json").read_text()) == {
        "format": "tnet-geo archive",
        "version": 1,
        "half_px": 48,
        "canvas": "native",
        "store": "scenes",
        "reduction": "area",
        "codec": "interop",
        "shard_chunks": 16,
    }


def test_an_archive_with_other_settings_is_refused_by_the_setting_that_differs(tmp_path: Path) -> None:
    create_archive(tmp_path, ArchiveSettings(half_px=32))
    before = (tmp_path / "archive.json").read_bytes()
    with pytest.raises(ArchiveMismatch, match="built with half_px 32, but half_px 64 is asked for"):
        create_archive(tmp_path, ArchiveSettings(half_px=64))
    assert (tmp_path / "archive.json").read_bytes() == before
    assert create_archive(tmp_path, ArchiveSettings(half_px=32)).settings.half_px == 32


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(OutputExists, match="exists already"):
        create_archive(tmp_path, ArchiveSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]
    with pytest.raises(OutputExists):
        create_archive(tmp_path / "thesis.doc", ArchiveSettings())


def test_an_archive_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".archive.json").write_text('{"format": "tnet-g')
    assert create_archive(tmp_path, ArchiveSettings()).settings == ArchiveSettings()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, r"holds no archive\.json and no COG"),
        ("{", "has an unreadable archive.json"),
        ("[]", "has an unreadable archive.json"),
        ('{"format": "tnet-geo archive"}', "has an unreadable archive.json"),
        ('{"format": "tnet-geo archive", "version": 2}', "version 2, and this software reads .* version 1"),
        ('{"format": "other", "version": 1}', "has format 'other' version 1"),
        ('{"format": "tnet-geo archive", "version": 1, "half_px": 0}', r"impossible value .*half_px"),
        ('{"format": "tnet-geo archive", "version": 1, "colour": 1}', r"impossible value .*colour"),
    ],
)
def test_what_is_no_archive_is_refused_and_the_reason_told(
    tmp_path: Path, content: str | None, what: str
) -> None:
    if content is not None:
        (tmp_path / "archive.json").write_text(content)
    with pytest.raises(InvalidArchive, match=what):
        open_archive(tmp_path)


def test_only_sealed_scenes_exist(archive: Archive) -> None:
    draft = archive.scenes / ".late.host-1-00000000.draft"
    unsealed = archive.scenes / "unsealed"
    draft.mkdir()
    (unsealed / "0").mkdir(parents=True)
    try:
        assert list(archive.scene_ids()) == ["masked", "plain"]
        assert not archive.has("unsealed")
        assert archive.digest("unsealed") is None
        with pytest.raises(SceneMissing, match="no sealed pyramid of scene unsealed"):
            archive.reader("unsealed")
    finally:
        shutil.rmtree(draft)
        shutil.rmtree(unsealed)


@pytest.mark.parametrize("scene_id", ["absent", "../scenes/plain", "", "plain/0"])
def test_a_scene_that_is_not_there_is_missing(archive: Archive, scene_id: str) -> None:
    with pytest.raises(SceneMissing):
        archive.reader(scene_id)


def test_a_damaged_seal_is_named(archive: Archive, tmp_path: Path) -> None:
    scene = tmp_path / "scenes" / "plain"
    shutil.copytree(archive.scenes / "plain", scene)
    seal = scene / "zarr.json"
    for text in ("{", "[]", "{}", '{"attributes": {"tnet_geo": {"version": 9}}}'):
        seal.write_text(text)
        with pytest.raises(TileUnreadable, match="Scene plain, whole scene cannot be read"):
            SceneReader(scene)
        assert Archive(tmp_path, archive.settings).digest("plain") is None


@pytest.mark.parametrize("half_px", [24, 8, -16, 0])
def test_a_lattice_that_is_no_multiple_of_the_stored_one_is_refused(archive: Archive, half_px: int) -> None:
    with pytest.raises(ArchiveMismatch, match=rf"built with half_px 16, but half_px {half_px}"):
        archive.reader("plain", half_px)


def test_a_pickled_archive_reads_the_same(archive: Archive) -> None:
    twin = pickle.loads(pickle.dumps(archive))
    assert (twin.path, twin.settings) == (archive.path, archive.settings)
    ours, theirs = (one.reader("plain").read([Tile(0, 1, 1)]).pixels for one in (archive, twin))
    np.testing.assert_array_equal(ours, theirs)


def test_the_catalogue_has_one_row_per_scene_however_often_it_is_told(
    archive: Archive, tmp_path: Path
) -> None:
    copy = tmp_path / "archive"
    shutil.copytree(archive.path, copy)
    assert append_catalogue(copy, ["plain"]) == 1
    assert append_catalogue(copy, ["plain", "masked"]) == 1
    assert append_catalogue(copy, ["plain", "masked"]) == 0
    table = pq.read_table(copy / "catalogue").sort_by("scene_id")
    assert table["scene_id"].to_pylist() == ["masked", "plain"]
    assert table["digest"].to_pylist() == [archive.digest("masked"), archive.digest("plain")]
    assert table["all_valid"].to_pylist() == [False, True]
    assert (table["rows"][0].as_py(), table["cols"][0].as_py()) == (150, 203)


def test_a_site_is_where_it_says_unless_the_archive_has_a_canvas(tmp_path: Path) -> None:
    site = Site("yard 7", "/data/harbour.tif", "harbour", Window(3, 4, 50, 60), "ship")
    native = create_archive(tmp_path / "native", SETTINGS)
    assert native.adopt(site) == site
    fitted = create_archive(tmp_path / "fitted", ArchiveSettings(half_px=16, canvas="fit:64"))
    adopted = fitted.adopt(site)
    assert adopted == replace(site, scene_id=adopted.scene_id, window=None)
    assert adopted.scene_id.startswith("yard_7-")
    assert (native.canvas, fitted.canvas) == ("native", "fit:64")


def test_a_lattice_that_an_archive_cannot_serve_is_refused_before_any_read(archive: Archive) -> None:
    archive.check_lattice(32)
    with pytest.raises(ArchiveMismatch, match=r"built with half_px 16, but half_px 24"):
        archive.check_lattice(24)


def test_a_folder_of_cogs_opens_as_it_is_and_not_where_an_archive_is_wanted(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", random_pixels(1, (50, 60)))
    assert isinstance(open_archive(tmp_path), CogArchive)
    with pytest.raises(InvalidArchive, match=r"has no archive\.json"):
        open_built(tmp_path)


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlaceUnusable, match=r"cannot be written to .*: name a place") as refused:
        create_archive("/proc/nobody/archive", SETTINGS)
    assert refused.value.exit_code == 4
