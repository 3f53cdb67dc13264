"""What every installed reader is promised, it sees; and where it sees something else, the table says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio

from tests.damage import Undamaged, scenes_archive
from tests.object_store import BUCKET, object_server
from tnet_geo.pyramid.foreign import READERS, Reader, version_of
from tnet_geo.pyramid.inventory import Item, read_inventory
from tnet_geo.pyramid.store import open_store
from tnet_geo.pyramid.verdicts import ASPECTS, NOT_OFFERED, RIGHT, WRONG, Verdict, check_readers, verdict_on

OURS = ("zarr-python", "tensorstore", "zarrs", "xarray DataTree", "zarr-cm", "rio-tiler GeoZarr")
"""Those that the development environment has; ome-zarr-models and it need different versions of pydantic."""
BY_NAME = {reader.name: reader for reader in READERS}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Undamaged:
    return scenes_archive(tmp_path_factory.mktemp("scenes"))


def verdict(archive: Path, name: str, scene_id: str) -> Verdict:
    store, item = open_store(archive), Item("scene", scene_id)
    inventory = read_inventory(store, item)
    assert inventory is not None
    return verdict_on(BY_NAME[name], store, item, inventory)


@pytest.mark.parametrize("scene_id", ["plain", "masked", "bare", "gaps"])
@pytest.mark.parametrize("name", OURS)
def test_what_a_reader_is_promised_is_right(scenes: Undamaged, name: str, scene_id: str) -> None:
    """`masked` is uint16, `gaps` float32 with nodata, `bare` has no georeference."""
    seen = verdict(scenes.path, name, scene_id)
    assert seen.version is not None
    promised = {aspect: RIGHT if aspect in BY_NAME[name].promised else NOT_OFFERED for aspect in ASPECTS}
    if (name, scene_id) == ("rio-tiler GeoZarr", "bare"):
        promised = dict.fromkeys(ASPECTS, NOT_OFFERED)
        assert seen.note == "needs a CRS"
    assert {aspect: getattr(seen, aspect) for aspect in ASPECTS} == promised


def test_gdal_says_which_version_it_takes(scenes: Undamaged) -> None:
    seen = verdict(scenes.path, "GDAL", "plain")
    found = rasterio.__gdal_version__
    if tuple(map(int, found.split(".")[:2])) < (3, 13):
        assert seen.note == f"needs GDAL 3.13, this is {found}"
        assert seen.pixels == NOT_OFFERED


def test_a_reader_that_is_missing_is_said_to_be(scenes: Undamaged) -> None:
    absent = Reader("absent", "no-such-reader", lambda place: pytest.fail("was asked"), frozenset({"pixels"}))
    store, item = open_store(scenes.path), Item("scene", "plain")
    inventory = read_inventory(store, item)
    assert inventory is not None
    assert version_of(absent) is None
    assert verdict_on(absent, store, item, inventory) == Verdict("absent", None, "plain")


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content["attributes"])
    path.write_text(json.dumps(content))


def shifted(attributes: dict[str, Any]) -> None:
    attributes["spatial:transform"][2] += 1
    for entry in attributes.get("multiscales", {}).get("layout", []):
        entry["spatial:transform"][2] += 1


def moved(attributes: dict[str, Any]) -> None:
    attributes["proj:code"] = "EPSG:32633"


def shortened(attributes: dict[str, Any]) -> None:
    attributes["multiscales"]["layout"].pop()


@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("rio-tiler GeoZarr", shifted, "transform"),
        ("rio-tiler GeoZarr", moved, "crs"),
        ("rio-tiler GeoZarr", shortened, "overviews"),
        ("zarr-cm", shifted, "transform"),
        ("zarr-cm", moved, "crs"),
        ("zarr-cm", shortened, "overviews"),
    ],
)
def test_wrong_attributes_are_wrong_in_the_table(
    scenes: Undamaged, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], None], wrong: str
) -> None:
    others = shutil.ignore_patterns("masked", "bare", "gaps")
    copy = Path(shutil.copytree(scenes.path, tmp_path / "archive", ignore=others))
    for path in (copy / "scenes/plain").rglob("zarr.json"):
        if path.parent.name in {"plain", "data"} and (change is not shortened or path.parent.name == "plain"):
            edited(path, change)
    assert getattr(verdict(copy, name, "plain"), wrong) == WRONG
    report = check_readers(copy, scenes=10)
    assert report.exit_code == 5
    assert any(f"{name}, scene plain: {wrong} wrong" in line for line in report.lines())


@pytest.mark.parametrize(
    "name", ["zarr-python", "tensorstore", "zarrs", "xarray DataTree", "rio-tiler GeoZarr"]
)
def test_wrong_pixels_are_wrong_in_the_table(scenes: Undamaged, tmp_path: Path, name: str) -> None:
    """Every checksum is right, but the metadata name the other order of bytes."""
    copy = Path(shutil.copytree(scenes.path, tmp_path / "archive"))
    path = copy / "scenes/masked/0/data/zarr.json"
    path.write_text(path.read_text().replace('"endian":"little"', '"endian":"big"', 1))
    seen = verdict(copy, name, "masked")
    assert (seen.pixels, seen.overviews) == (WRONG, WRONG)


def test_scenes_of_every_kind_are_looked_at(scenes: Undamaged) -> None:
    report = check_readers(scenes.path, scenes=4)
    assert {one.scene for one in report.verdicts} == {"plain", "masked", "bare", "gaps"}
    assert len(report.verdicts) == 4 * len(READERS)
    assert (report.exit_code, report.broken) == (0, ())
    assert {one.scene for one in check_readers(scenes.path, scenes=1).verdicts} == {"bare"}


@pytest.mark.slow
def test_readers_open_what_lies_in_a_bucket(
    scenes: Undamaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_server(tmp_path / "server.log") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}/archive")
        for name, content in scenes.files.items():
            if "/scenes/" not in f"/{name}" or "scenes/masked/" in name:
                store.write(name, content)
        report = check_readers(store.url, scenes=1)
    assert report.broken == ()
    right = {one.reader for one in report.verdicts if one.pixels == RIGHT}
    assert right == {"zarr-python", "tensorstore", "xarray DataTree", "rio-tiler GeoZarr"}
