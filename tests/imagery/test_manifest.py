"""The manifest says what it takes, takes nothing else, and comes back as it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tnet_geo.errors import InvalidManifest, OutputExists
from tnet_geo.grid import Window
from tnet_geo.imagery import Manifest, Site, read_manifest, split_of, write_manifest


def table(folder: Path, text: str, name: str = "sites.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def site(number: int, label: str | None, split: str | None) -> Site:
    return Site(f"s{number}", "/a.tif", "a", label=label, split=split)


@pytest.mark.parametrize("name", ["sites.csv", "sites.parquet", "SITES.CSV"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    sites = (
        Site(
            "one",
            str(tmp_path / "in/a b.tif"),
            "a-1",
            Window(1, 2, 3, 4),
            "harbour, old",
            "train",
            "2024-05-31",
            0.3,
            "DEU",
            "POLYGON ((5 45, 6 45, 6 46, 5 46, 5 45))",
            12.5,
        ),
        Site("two", "/elsewhere/c.tif", "c-1", None, None, None, None),
        Site("003", "https://host/d.tif", "d", None, 'a "class"', "val", "2024-05-31T10:40:00Z"),
    )
    written = write_manifest(iter(sites), tmp_path / "deep" / name)
    read = read_manifest(tmp_path / "deep" / name)
    assert written.sites == read.sites == sites
    assert (read.path, len(read)) == (str(tmp_path / "deep" / name), 3)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [name]


def test_a_manifest_and_its_scenes_can_be_moved_together(tmp_path: Path) -> None:
    before = write_manifest([Site("one", str(tmp_path / "old/in/a.tif"), "a")], tmp_path / "old/sites.csv")
    (tmp_path / "old").rename(tmp_path / "new")
    after = read_manifest(tmp_path / "new/sites.csv")
    assert after.sites == (replace(before.sites[0], scene=str(tmp_path / "new/in/a.tif")),)


def test_relative_scenes_begin_at_the_manifest_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path, "site_id,scene\none,../x/a.tif\ntwo,/y/../b.tif\nthree,s3://bucket/c.tif\n")
    monkeypatch.chdir(tmp_path)
    found = [site.scene for site in read_manifest("sites.csv").sites]
    assert found == [str(tmp_path.parent / "x/a.tif"), "/b.tif", "s3://bucket/c.tif"]


def test_a_scene_is_named_by_its_file_and_its_path_as_written(tmp_path: Path) -> None:
    text = "site_id,scene,scene_id\n1,a/yard 7.tif,\n2,b/yard 7.tif,\n3,a/yard 7.tif,\n4,c.tif,mine\n"
    manifest = read_manifest(table(tmp_path, text))
    names = [site.scene_id for site in manifest.sites]
    assert names[0] == names[2] != names[1]
    assert names[0].startswith("yard_7-")
    assert names[3] == "mine"
    assert list(manifest.scenes()) == [names[0], names[1], "mine"]
    assert manifest.scenes()["mine"] == str(tmp_path / "c.tif")


def test_empty_text_is_no_label(tmp_path: Path) -> None:
    parquet.write_table(
        pa.table({"site_id": ["a"], "scene": ["a.tif"], "label": [""], "scene_id": [""]}),
        tmp_path / "s.parquet",
    )
    found = read_manifest(tmp_path / "s.parquet").sites[0]
    assert found.label is None
    assert found.scene_id.startswith("a-")


def test_parquet_types_that_mean_the_same_are_taken(tmp_path: Path) -> None:
    columns = {
        "site_id": pa.array([7], pa.int32()),
        "scene": pa.array(["a.tif"], pa.large_string()),
        "label": pa.array(["harbour"]).dictionary_encode(),
        "row_off": pa.array([0], pa.uint16()),
        "col_off": pa.array([1.0]),
        "height": pa.array([2], pa.int32()),
        "width": pa.array([3], pa.int32()),
        "date": pa.array([19_874], pa.date32()),
    }
    folder = tmp_path / "run=5"  # not a column
    folder.mkdir()
    parquet.write_table(pa.table(columns), folder / "s.parquet")
    found = read_manifest(folder / "s.parquet").sites[0]
    assert (found.site_id, found.label, found.window) == ("7", "harbour", Window(0, 1, 2, 3))
    assert found.date == "2024-05-31"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("site_id\none\n", r"has no column 'scene'"),
        ("site_id,scene,lable\none,a.tif,x\n", r"unknown column 'lable'.*'label'"),
        ("site_id,scene,scene\none,a.tif,b.tif\n", r"column 'scene' more than once"),
        ("site_id,scene\n", "has no rows"),
        ("", "cannot be read"),
        ("site_id,scene\none\n", "cannot be read"),
        ("site_id,scene\none,a.tif\none,b.tif\n", r"site_id 'one' more than once"),
        ("site_id,scene\none,a.tif\n,b.tif\n", r"no site_id in row 2"),
        ("site_id,scene\none,\n", r"no scene in row 1"),
        ("site_id,scene,split\none,a.tif,training\n", r"split 'training': use train, val, test"),
        ("site_id,scene,row_off,col_off\none,a.tif,0,0\n", r"partial window at site 'one'"),
        (
            "site_id,scene,row_off,col_off,height,width\none,a.tif,0,-1,5,5\n",
            r"impossible window at site 'one'",
        ),
        (
            "site_id,scene,row_off,col_off,height,width\none,a.tif,0,0,5,0\n",
            r"impossible window at site 'one'",
        ),
        (
            "site_id,scene,row_off,col_off,height,width\none,a.tif,0,0,5,1.5\n",
            r"wrong value in column 'width'",
        ),
        ("site_id,scene,date\none,a.tif,31.05.2024\n", r"date '31.05.2024'"),
        ("site_id,scene,date\none,a.tif,2024-13\n", r"date '2024-13'"),
        ("site_id,scene,scene_id\none,a.tif,x\ntwo,b.tif,x\n", r"scene_id 'x' for two scenes"),
        ("site_id,scene,gsd\none,a.tif,0\n", r"gsd 0.0 at site 'one': write metres a pixel, above 0"),
        ("site_id,scene,gsd\none,a.tif,nan\n", r"gsd nan at site 'one'"),
        ("site_id,scene,gsd\none,a.tif,inf\n", r"gsd inf at site 'one'"),
        ("site_id,scene,gsd\none,a.tif,wide\n", r"wrong value in column 'gsd'"),
        ("site_id,scene,cloud_cover\none,a.tif,101\n", r"cloud_cover 101.0 at site 'one'"),
        ("site_id,scene,cloud_cover\none,a.tif,nan\n", r"cloud_cover nan at site 'one'"),
        ("site_id,scene,footprint\none,a.tif,POINT (1 2)\n", r"footprint 'POINT \(1 2\)' at site 'one'"),
    ],
)
def test_what_breaks_the_schema_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidManifest, match=said) as caught:
        read_manifest(table(tmp_path, text))
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_files_that_are_no_manifest_are_refused(tmp_path: Path) -> None:
    for name in ("absent.csv", "absent.parquet"):
        with pytest.raises(InvalidManifest, match=f"{name} cannot be read"):
            read_manifest(tmp_path / name)
    with pytest.raises(InvalidManifest, match="cannot be read"):
        read_manifest(table(tmp_path, "no table", "text.parquet"))
    with pytest.raises(InvalidManifest, match=r"neither \.parquet nor \.csv"):
        read_manifest(table(tmp_path, "site_id,scene\n", "sites.txt"))


@pytest.mark.parametrize(
    "date", ["2024", "2024-05", "2024-05-31", "2024-05-31T10:40:00Z", "2024-05-31 10:40"]
)
def test_dates_are_iso_8601_of_any_precision(tmp_path: Path, date: str) -> None:
    assert read_manifest(table(tmp_path, f"site_id,scene,date\na,a.tif,{date}\n")).sites[0].date == date


def test_nothing_is_overwritten_and_nothing_wrong_is_written(tmp_path: Path) -> None:
    path = table(tmp_path, "mine")
    with pytest.raises(OutputExists):
        write_manifest([Site("one", "/a.tif", "a")], path)
    assert path.read_text() == "mine"
    twice = [Site("one", "/a.tif", "a")] * 2
    for name, sites in (("new.csv", twice), ("new.parquet", []), ("new.txt", twice[:1])):
        with pytest.raises(InvalidManifest, match=name):
            write_manifest(sites, tmp_path / "folder" / name)
    assert list(tmp_path.iterdir()) == [path]


def test_a_split_can_be_selected() -> None:
    manifest = Manifest([site(1, "a", "train"), site(2, "a", "val"), site(3, "b", None)], "m.csv")
    assert [found.site_id for found in manifest.select("val").sites] == ["s2"]
    assert manifest.select("test").sites == ()
    assert manifest.select(None) is manifest


def test_classes_are_the_labels_of_training_in_order() -> None:
    sites = [site(1, "b", "train"), site(2, "a", "train"), site(3, "b", "val"), site(4, "z", None)]
    assert Manifest(sites, "m.csv").classes() == ("a", "b")
    assert Manifest([site(1, "b", None), site(2, "a", "test")], "m.csv").classes() == ("a", "b")


@pytest.mark.parametrize("split", ["val", "test", "seq"])
def test_a_label_that_training_lacks_is_refused(split: str) -> None:
    with pytest.raises(InvalidManifest, match=f"label 'c' in split {split}"):
        Manifest([site(1, "a", "train"), site(2, "c", split)], "m.csv").classes()


def test_the_refusal_counts_labels_and_sites_and_names_the_way_out() -> None:
    sites = [site(1, "a", "train"), site(2, "c", "val"), site(3, "c", "val"), site(4, "d", "val")]
    manifest = Manifest(sites, "m.csv")
    assert manifest.untrained() == {"val": {"c": 2, "d": 1}}
    with pytest.raises(InvalidManifest, match=r"'c' .*\(and 1 more such labels\).*leave the 2 in val out"):
        manifest.classes()
    without = [replace(one, split=None) if one.label in {"c", "d"} else one for one in sites]
    assert Manifest(without, "m.csv").classes() == ("a",)


def test_facts_that_no_site_has_are_no_columns(tmp_path: Path) -> None:
    write_manifest([Site("one", "/a.tif", "a")], tmp_path / "bare.csv")
    assert "gsd" not in (tmp_path / "bare.csv").read_text()
    write_manifest([Site("one", "/a.tif", "a", gsd=0.5), Site("two", "/a.tif", "a")], tmp_path / "some.csv")
    header = (tmp_path / "some.csv").read_text().splitlines()[0]
    assert "gsd" in header
    assert "country" not in header
    assert [one.gsd for one in read_manifest(tmp_path / "some.csv").sites] == [0.5, None]


def test_without_labels_there_are_no_classes() -> None:
    with pytest.raises(InvalidManifest, match="no labelled site"):
        Manifest([site(1, None, "train")], "m.csv").classes()


def test_splits_have_the_shares_that_were_asked_for() -> None:
    ids = [f"harbour/{n}" for n in range(4000)]
    found = [split_of(name, val=0.1, test=0.3) for name in ids]
    assert found == [split_of(name, val=0.1, test=0.3) for name in ids]
    assert abs(found.count("val") / 4000 - 0.1) < 0.02
    assert abs(found.count("test") / 4000 - 0.3) < 0.02
    assert {split_of(name, val=0, test=0) for name in ids} == {"train"}
