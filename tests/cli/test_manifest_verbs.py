"""`tnet-geo manifest ...` as it is typed: what is written, what is said, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.rasters import random_pixels, write_raster
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.imagery import read_manifest

SQUARE = {"type": "Polygon", "coordinates": [[[5, 45], [6, 45], [6, 46], [5, 46], [5, 45]]]}


def fmow(root: Path, *names: str, category: str = "zoo") -> Path:
    """Pictures of 100 columns and 80 rows with one box each."""
    for name in names:
        site = name.rsplit("_", 2)[0]
        folder = root / "val" / "zoo" / site
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jpg").write_bytes(b"")
        box = {"ID": 7, "box": [10, 20, 30, 40], "category": category}
        record = {"bounding_boxes": [box], "img_width": 100, "img_height": 80}
        (folder / f"{name}.json").write_text(json.dumps(record))
    return root


def item(name: str, *assets: str) -> dict[str, Any]:
    made = {key: {"href": f"{key}.tif", "type": "image/tiff", "roles": ["data"]} for key in assets}
    facts = {"datetime": "2024-05-31T10:40:00Z", "use": "dock"}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": SQUARE,
        "bbox": [5, 45, 6, 46],
        "properties": facts,
        "links": [],
        "assets": made,
    }


def features(path: Path, *items: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def test_fmow_writes_its_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fmow(tmp_path / "fmow", "zoo_0_0_rgb", "zoo_0_1_rgb", "zoo_0_0_msrgb")
    out = tmp_path / "sites.csv"
    assert run(app, ["manifest", "fmow", str(root), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 2 sites in 2 scenes, 1 classes" in said
    assert "val 2" in said
    assert "left out by rule: kind_msrgb 1" in said
    assert [site.window and site.window.width for site in read_manifest(out).sites] == [30, 30]


def test_fmow_takes_its_options(tmp_path: Path) -> None:
    root = fmow(tmp_path / "fmow", "zoo_0_0_rgb", "zoo_0_0_msrgb")
    fmow(root, "zoo_1_0_rgb", category="false_detection")

    def sites(*options: str) -> list[tuple[str, int | None]]:
        (tmp_path / "s.csv").unlink(missing_ok=True)
        assert run(app, ["manifest", "fmow", str(root), "-o", str(tmp_path / "s.csv"), *options]) == 0
        found = read_manifest(tmp_path / "s.csv").sites
        return [(site.label or "", site.window and site.window.width) for site in found]

    assert sites() == [("zoo", 30)]
    assert sites("--kind", "all") == [("zoo", 30)] * 2
    assert sites("--context") == [("zoo", 38)]
    assert sites("--whole") == [("zoo", None)]
    assert sites("--false-detections") == [("zoo", 30), ("false_detection", 30)]


def test_fmow_names_what_is_missing_and_ends_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fmow(tmp_path / "fmow", "zoo_0_0_rgb", "zoo_0_1_rgb")
    (root / "val/zoo/zoo_0/zoo_0_1_rgb.json").unlink()
    assert run(app, ["manifest", "fmow", str(root), "-o", str(tmp_path / "s.csv"), "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["missing"] == {"no_metadata": 1}
    assert said["left_out"] == [{"item": "val/zoo/zoo_0/zoo_0_1_rgb", "reason": "no_metadata"}]
    assert (said["sites"], said["exit_code"]) == (1, 3)


def test_stac_writes_its_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = features(tmp_path / "items.json", item("a", "scene"), item("b", "scene"), item("c"))
    out = tmp_path / "sites.csv"
    assert run(app, ["manifest", "stac", str(place), "-o", str(out), "--label", "use"]) == 3
    said = capsys.readouterr().out
    assert "2 sites in 1 scenes, 1 classes" in said
    assert "  c: no_raster" in said
    assert {site.label for site in read_manifest(out).sites} == {"dock"}


def test_windows_take_a_layer_and_answer_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raster(tmp_path / "scene.tif", random_pixels(1, (100, 80), 1))
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    ring = [[600_005, 4_999_980], [600_010, 4_999_980], [600_010, 4_999_990], [600_005, 4_999_980]]
    row = {
        "type": "Feature",
        "properties": {"site_id": "a", "scene": "scene.tif", "label": "road", "split": "train"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    table = tmp_path / "w.geojson"
    table.write_text(json.dumps({"type": "FeatureCollection", "name": "w", "crs": crs, "features": [row]}))
    typed = ["manifest", "windows", str(table), "-o", str(tmp_path / "s.csv"), "--layer", "w", "--json"]
    assert run(app, typed) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["sites"], said["classes"], said["splits"]) == (1, {"road": 1}, {"train": 1})


def test_a_check_prints_a_table_and_ends_with_0_or_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raster(tmp_path / "a.tif", random_pixels(1, (100, 80), 1))
    sites = tmp_path / "sites.csv"
    sites.write_text("site_id,scene,label,split\none,a.tif,meadow,train\n")
    assert run(app, ["manifest", "check", str(sites), "--deep"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "meadow      1" in said
    assert said[-1] == "every pixel could be read"
    sites.write_text("site_id,scene,label,split\none,a.tif,meadow,train\ntwo,b.tif,meadow,test\n")
    assert run(app, ["manifest", "check", str(sites), "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert [problem["kind"] for problem in found["problems"]] == ["unreadable"]
    assert found["exit_code"] == 5


def no_fmow(here: Path) -> list[str]:
    return ["fmow", str(here)]


def no_such_kind(here: Path) -> list[str]:
    return ["fmow", str(fmow(here / "fmow", "zoo_0_0_rgb")), "--kind", "ms"]


def no_stac(here: Path) -> list[str]:
    (here / "x.json").write_text("{}")
    return ["stac", str(here / "x.json")]


def two_assets(here: Path) -> list[str]:
    return ["stac", str(features(here / "items.json", item("a", "B02", "B03")))]


def no_windows(here: Path) -> list[str]:
    (here / "w.csv").write_text("site_id,scene\na,b.tif\n")
    return ["windows", str(here / "w.csv")]


def no_table(here: Path) -> list[str]:
    return ["windows", str(here / "w.shp")]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (no_fmow, "is not laid out like fMoW: name the folder that holds train, val, test or seq"),
        (no_such_kind, "holds no site of kind ms (kind_rgb 1)"),
        (no_stac, "its type is None"),
        (two_assets, "(B02, B03): name one with --asset"),
        (no_windows, "has no windows"),
        (no_table, "is none of .csv, .geojson"),
    ],
)
def test_what_cannot_become_a_manifest_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: Callable[[Path], list[str]], said: str
) -> None:
    typed = case(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert run(app, ["manifest", *typed, "-o", str(tmp_path / "out.csv")]) == 4
    heard = capsys.readouterr()
    assert said in heard.err
    assert heard.err.count("\n") == 1
    assert heard.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_check_of_nothing_and_options_that_contradict_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["manifest", "check", str(tmp_path / "absent.csv")]) == 4
    assert "absent.csv cannot be read" in capsys.readouterr().err
    out = ["-o", str(tmp_path / "out.csv")]
    assert run(app, ["manifest", "fmow", str(tmp_path), *out, "--whole", "--context"]) == 2
    assert "--context has nothing to widen" in capsys.readouterr().err
    assert run(app, ["manifest", "fmow", str(tmp_path), *out, "--kind", "pan"]) == 2
    assert run(app, ["manifest", "stac", str(tmp_path), *out, "--val", "1"]) == 2
