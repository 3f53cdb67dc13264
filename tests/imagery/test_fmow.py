"""A copy of fMoW becomes the sites that its makers meant, with all the traps on the way."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from shapely import from_wkt

from tnet_geo.errors import InvalidDataSet, OutputExists, UsageError
from tnet_geo.grid import Window
from tnet_geo.imagery import read_manifest
from tnet_geo.imagery.context import with_context
from tnet_geo.imagery.fmow import FmowOptions, manifest_from_fmow
from tnet_geo.imagery.fmow_layout import Picture, read_path
from tnet_geo.imagery.manifest import Site


@pytest.fixture(scope="module")
def tree(shared_data: Path) -> Path:
    """A made copy in the exact layout; tests must leave it as it is."""
    return shared_data / "fmow" / "fmow-rgb"


@pytest.fixture(scope="module")
def expected(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / "fmow" / "expected.csv").open() as file:
        return list(csv.DictReader(file))


def record(box: Any = (10, 20, 30, 40), category: str | None = "zoo", **more: Any) -> dict[str, Any]:
    """A picture's JSON as the release has it: 100 columns, 80 rows."""
    one = {"ID": 7, "box": list(box)} | ({"category": category} if category else {})
    return {"bounding_boxes": [one], "img_width": 100, "img_height": 80} | more


def put(root: Path, path: str, record: Any = None, suffix: str = "jpg") -> Path:
    """One picture and, unless it is None, its JSON; the picture is never opened."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / f"{path}.{suffix}").write_bytes(b"")
    if record is not None:
        text = record if isinstance(record, str) else json.dumps(record)
        (root / f"{path}.json").write_text(text)
    return root


def sites(root: Path, **options: Any) -> tuple[Site, ...]:
    out = root.parent / "sites.csv"
    out.unlink(missing_ok=True)
    manifest_from_fmow(root, out, FmowOptions(**options))
    return read_manifest(out).sites


def test_every_row_of_the_expected_table_comes_out(
    tree: Path, expected: list[dict[str, str]], tmp_path: Path
) -> None:
    report = manifest_from_fmow(tree, tmp_path / "sites.parquet", FmowOptions(false_detections=True))
    found = {
        (Path(site.scene).relative_to(tree).as_posix(), site.label, site.split): site.window
        for site in read_manifest(tmp_path / "sites.parquet").sites
    }
    wanted = {}
    for row in expected:
        if row["expected"] != "build":
            continue
        left, top, width, height = map(int, row["box"].split())
        right, bottom = min(left + width, int(row["width"])), min(top + height, int(row["height"]))
        wanted[row["image"], row["label"], row["split"]] = Window(top, left, bottom - top, right - left)
    assert found == wanted
    refused = Counter(row["expected"].partition(":")[2] for row in expected if row["expected"] != "build")
    assert dict(report.missing) == {name: refused[name] for name in ("image_missing", "no_metadata")}
    assert report.by_rule["box_too_small"] == refused["box_too_small"]
    assert (report.sites, report.exit_code) == (len(wanted), 3)


def test_what_is_left_out_is_named_one_by_one(
    tree: Path, expected: list[dict[str, str]], tmp_path: Path
) -> None:
    report = manifest_from_fmow(tree, tmp_path / "sites.csv")
    named = {(f"{left.item}.jpg", left.reason) for left in report.left_out}
    refused = {(row["image"], row["expected"].removeprefix("refuse:")) for row in expected}
    assert named == {pair for pair in refused if pair[1] in {"image_missing", "no_metadata"}}


def test_false_detections_are_left_out_unless_asked_for(tree: Path, tmp_path: Path) -> None:
    without = manifest_from_fmow(tree, tmp_path / "without.csv")
    assert "false_detection" not in without.classes
    assert without.by_rule["false_detection"] == 1
    taken = manifest_from_fmow(tree, tmp_path / "with.csv", FmowOptions(false_detections=True))
    assert taken.classes["false_detection"] == 1
    assert taken.sites == without.sites + 1


def test_dates_distances_countries_and_footprints_come_along(tree: Path, tmp_path: Path) -> None:
    manifest_from_fmow(tree, tmp_path / "sites.parquet")
    found = read_manifest(tmp_path / "sites.parquet").sites
    first = next(site for site in found if site.site_id == "test/0000000/0000000_0_rgb/1026")
    assert (first.date, first.gsd, first.country, first.cloud_cover) == (
        "2011-01-10T10:01:50Z",
        0.3,
        "USA",
        0,
    )
    assert all(site.footprint is not None for site in found)
    clouds = {
        site.split: site.cloud_cover
        for site in found
        if site.scene.endswith("val/runway/runway_0/runway_0_0_rgb.jpg")
    }
    own = json.loads((tree / "val/runway/runway_0/runway_0_0_rgb.json").read_text())["cloud_cover"]
    assert clouds == {"val": own}
    assert own > 50


def test_a_footprint_is_the_part_of_the_picture_that_the_box_covers(
    tree: Path, shared_data: Path, tmp_path: Path
) -> None:
    # The real record holds the annotated polygon of its box: what we compute for the box must equal it.
    real = json.loads((shared_data / "fmow/real/fountain_514_1_rgb.groundtruth.json").read_text())
    raw, public = real["bounding_boxes"]
    root = put(
        tmp_path / "fmow",
        "test/0000005/0000005_1_rgb",
        real | {"bounding_boxes": [{k: public[k] for k in ("ID", "box")}]},
    )
    truth = root / "groundtruth"
    put(truth, "test_gt/fountain/fountain_514/fountain_514_1_rgb", real)
    mapping = [{"input": "test_gt/fountain/fountain_514", "output": "test/0000005"}]
    (truth / "test_gt_mapping.json").write_text(json.dumps(mapping))
    (site,) = sites(root)
    assert (site.label, site.country, site.gsd) == ("fountain", "CHE", 0.468074887991)
    assert site.footprint is not None
    for ours, theirs in zip(
        from_wkt(site.footprint).bounds, from_wkt(raw["raw_location"]).bounds, strict=True
    ):
        assert ours == pytest.approx(theirs, abs=4.7e-6)  # degrees: a pixel, boxes have whole ones


@pytest.mark.parametrize("prefix", ["", "./", "groundtruth/"])
@pytest.mark.parametrize("labelled", ["train", "train_gt"])
def test_the_ground_truth_may_be_an_archive(tree: Path, tmp_path: Path, prefix: str, labelled: str) -> None:
    root = tmp_path / "fmow"
    shutil.copytree(tree, root, ignore=shutil.ignore_patterns("groundtruth", "*msrgb*"))
    with tarfile.open(root / "groundtruth.tar.bz2", "w:bz2") as archive:
        for path in sorted((tree / "groundtruth").rglob("*.json")):
            name = path.relative_to(tree / "groundtruth").as_posix()
            archive.add(path, prefix + (f"{labelled}/{name[6:]}" if name.startswith("train/") else name))
    here = read_manifest(manifest_from_fmow(root, tmp_path / "a.csv").manifest).sites
    there = read_manifest(manifest_from_fmow(tree, tmp_path / "b.csv").manifest).sites
    facts = [[(s.site_id, s.label, s.window, s.footprint) for s in some] for some in (here, there)]
    assert facts[0] == facts[1]


def test_without_ground_truth_test_and_seq_have_no_labels(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "fmow", ignore=shutil.ignore_patterns("groundtruth", "*msrgb*"))
    report = manifest_from_fmow(tmp_path / "fmow", tmp_path / "sites.csv")
    found = read_manifest(tmp_path / "sites.csv").sites
    assert {site.split for site in found if site.label is None} == {"test", "seq"}
    assert report.lacking["label"] == sum(site.split in {"test", "seq"} for site in found)
    assert report.lacking["footprint"] == len(found)


def test_a_context_grows_by_the_published_rule(tree: Path, tmp_path: Path) -> None:
    boxes = {site.site_id: site for site in sites_of(tree, tmp_path / "boxes.csv")}
    wide = {site.site_id: site for site in sites_of(tree, tmp_path / "wide.csv", context=True)}
    assert boxes.keys() == wide.keys()
    runway = "train/runway/runway_0/runway_0_0_rgb/"
    (name,) = [site for site in wide if site.startswith(runway)]
    assert wide[name].window == with_context(Window(32, 32, 192, 192), (256, 256)) == Window(18, 18, 220, 220)
    assert all(
        w.window and b.window and w.window.contains(b.window)
        for w, b in zip(wide.values(), boxes.values(), strict=True)
    )


def sites_of(tree: Path, out: Path, **options: Any) -> tuple[Site, ...]:
    return read_manifest(manifest_from_fmow(tree, out, FmowOptions(**options)).manifest).sites


def test_whole_pictures_are_one_site_each(tree: Path, tmp_path: Path) -> None:
    found = sites_of(tree, tmp_path / "sites.csv", whole=True)
    assert all(site.window is None for site in found)
    assert len(found) == len({site.scene for site in found})
    labels = {site.site_id: site.label for site in found}
    assert labels["val/port/port_0/port_0_0_rgb"] == "port"  # beside a false detection
    assert labels["seq/0000001/0000001_1_rgb"] == "interchange"


def test_other_kinds_have_boxes_and_distances_of_their_own(tree: Path, tmp_path: Path) -> None:
    rgb, small = sites_of(tree, tmp_path / "rgb.csv"), sites_of(tree, tmp_path / "ms.csv", kind="msrgb")
    both = sites_of(tree, tmp_path / "all.csv", kind="all")
    assert len(both) == len(rgb) + len(small)
    bridge = [site for site in (*rgb, *small) if "road_bridge_0_0" in site.site_id]
    assert [site.window for site in bridge] == [Window(90, 60, 800, 980), Window(22, 15, 200, 245)]
    assert bridge[1].gsd == pytest.approx(4 * (bridge[0].gsd or 0), rel=0.01)


def test_every_file_of_the_real_validation_sample_is_understood(shared_data: Path) -> None:
    with gzip.open(shared_data / "fmow/real/val_sample_v1.1.0_files.csv.gz", "rt") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert len(paths) == 29_785
    others = [path for path in paths if read_path(path) is None]
    assert not [path for path in others if "/" in path]
    assert len(others) == 5  # change log, paper, licence, readme, metadata of false detections
    read = [found for found in map(read_path, paths) if found is not None]
    assert Counter((picture.kind, suffix) for picture, suffix in read) == {
        (kind, suffix): 7445 for kind in ("rgb", "msrgb") for suffix in ("jpg", "json")
    }
    pictures = {picture for picture, _ in read}
    with (shared_data / "fmow" / "classes.csv").open() as file:
        table = {row["category"]: row for row in csv.DictReader(file) if row["val_sample_sites"]}
    assert Counter(p.category for p in pictures if p.kind == "rgb") == {
        name: int(row["val_sample_rgb_images"]) for name, row in table.items()
    }
    assert Counter(category for category, _ in {(p.category, p.site) for p in pictures}) == {
        name: int(row["val_sample_sites"]) for name, row in table.items()
    }
    assert all(
        f"{picture.path}.{suffix}" == path
        for (picture, suffix), path in zip(read, (p for p in paths if "/" in p), strict=True)
    )


@pytest.mark.parametrize(
    "path",
    [
        "train/zoo/zoo_1/zoo_2_0_rgb.jpg",
        "train/zoo/barn_1/barn_1_0_rgb.jpg",
        "train/0000001/0000001_0_rgb.jpg",
        "test/zoo/zoo_1/zoo_1_0_rgb.jpg",
        "test/zoo_1/zoo_1_0_rgb.jpg",
        "val/zoo/zoo_1/zoo_1_0_rgb.png",
        "val/zoo/zoo_1/zoo_1_0_pan.jpg",
        "manifest.json.bz2",
    ],
)
def test_what_is_not_laid_out_like_fmow_is_no_picture(path: str) -> None:
    assert read_path(path) is None


def test_the_full_edition_is_read_too(tmp_path: Path) -> None:
    root = tmp_path / "fmow-full"
    put(root, "train/zoo/zoo_3/zoo_3_0_rgb", record(), suffix="tif")
    put(root, "train/zoo/zoo_3/zoo_3_0_ms", record((2, 5, 8, 10)), suffix="tif")
    found = sites(root, kind="all")
    assert [(Path(site.scene).name, site.window) for site in found] == [
        ("zoo_3_0_ms.tif", Window(5, 2, 10, 8)),
        ("zoo_3_0_rgb.tif", Window(20, 10, 40, 30)),
    ]
    assert read_path(
        "val/multi-unit_residential/multi-unit_residential_0/multi-unit_residential_0_10_ms.tif"
    ) == (
        Picture("val", "multi-unit_residential", "multi-unit_residential_0", 10, "ms"),
        "tif",
    )


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("{", "damaged_metadata"),
        ("[]", "damaged_metadata"),
        ("\xff", "damaged_metadata"),
        (record() | {"bounding_boxes": []}, "no_box"),
        (record(category="castle"), "unknown_class"),
        (record(box=(200, 0, 30, 30)), "box_outside_picture"),
        (record(box=(1, 2, 3)), "box_of_no_numbers"),
        (record(box=("a", 2, 30, 30)), "box_of_no_numbers"),
        (record() | {"img_width": None}, "picture_unreadable"),
    ],
)
def test_what_cannot_be_a_site_is_left_out_with_its_reason(tmp_path: Path, written: Any, reason: str) -> None:
    root = put(tmp_path / "fmow", "val/zoo/zoo_1/zoo_1_0_rgb", written)
    put(root, "val/zoo/zoo_1/zoo_1_1_rgb", record())
    report = manifest_from_fmow(root, tmp_path / "sites.csv")
    assert (report.sites, dict(report.missing), report.exit_code) == (1, {reason: 1}, 3)


def test_a_real_picture_says_its_size_where_its_json_does_not(shared_data: Path, tmp_path: Path) -> None:
    sizeless = record((174, 363, 1929, 661), "airport") | {"img_width": None}  # 53 columns too wide
    root = put(tmp_path / "fmow", "val/airport/airport_0/airport_0_0_msrgb", sizeless)
    shutil.copy(shared_data / "fmow/real/airport_0_0_msrgb.jpg", root / "val/airport/airport_0")
    (site,) = sites(root, kind="msrgb")
    assert site.window == Window(row=363, col=174, height=661, width=2050 - 174)


def test_of_many_things_that_are_missing_the_first_are_said(tmp_path: Path) -> None:
    root = put(tmp_path / "fmow", "val/zoo/zoo_0/zoo_0_0_rgb", record())
    for n in range(1, 15):
        put(root, f"val/zoo/zoo_0/zoo_0_{n}_rgb")
    report = manifest_from_fmow(root, tmp_path / "sites.csv")
    said = report.lines()
    assert "missing: no_metadata 14" in said
    assert said[-1] == "  and 4 more: --json names all"
    assert len(report.left_out) == 14


def test_a_box_that_is_repeated_under_its_raw_id_counts_once(tmp_path: Path) -> None:
    twice = record()
    twice["bounding_boxes"].insert(0, twice["bounding_boxes"][0] | {"ID": -1})
    (site,) = sites(put(tmp_path / "fmow", "val/zoo/zoo_1/zoo_1_0_rgb", twice))
    assert site.site_id == "val/zoo/zoo_1/zoo_1_0_rgb/7"


def test_boxes_without_ids_of_their_own_are_numbered(tmp_path: Path) -> None:
    three = record()
    three["bounding_boxes"] = [
        {"ID": 7, "category": "zoo", "box": [0, 0, 9, 9]},
        {"ID": 7, "category": "zoo", "box": [9, 9, 9, 9]},
        {"category": "zoo", "box": [20, 20, 9, 9]},
    ]
    found = sites(put(tmp_path / "fmow", "val/zoo/zoo_1/zoo_1_0_rgb", three))
    assert [site.site_id.rpartition("/")[2] for site in found] == ["7", "1", "2"]


def test_numbers_that_cannot_be_are_no_facts(tmp_path: Path) -> None:
    odd = record(gsd=0, cloud_cover=120, timestamp="yesterday", country_code="")
    report = manifest_from_fmow(put(tmp_path / "fmow", "val/zoo/zoo_1/zoo_1_0_rgb", odd), tmp_path / "s.csv")
    (site,) = read_manifest(tmp_path / "s.csv").sites
    assert (site.gsd, site.cloud_cover, site.date, site.country) == (None, None, None, None)
    assert set(report.lacking) == {"gsd", "cloud_cover", "date", "country", "footprint"}


def test_sites_stand_in_the_order_of_their_numbers_whatever_the_disk_says(tmp_path: Path) -> None:
    names = [f"train/zoo/zoo_{n}/zoo_{n}_{view}_rgb" for n in (0, 2, 9, 10, 111) for view in (0, 2, 10)]
    for name in reversed(names):
        put(tmp_path / "fmow", name, record())
    assert [site.site_id.removesuffix("/7") for site in sites(tmp_path / "fmow")] == names


def test_folders_that_are_not_fmow_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InvalidDataSet, match="is not laid out like fMoW"):
        manifest_from_fmow(tmp_path / "pictures", tmp_path / "sites.csv")
    root = put(tmp_path / "fmow", "val/zoo/zoo_1/zoo_1_0_rgb", record())
    with pytest.raises(InvalidDataSet, match=r"no site of kind ms \(kind_rgb 1\)"):
        manifest_from_fmow(root, tmp_path / "sites.csv", FmowOptions(kind="ms"))
    with pytest.raises(InvalidDataSet, match="has no ground truth"):
        manifest_from_fmow(root, tmp_path / "sites.csv", ground_truth=tmp_path / "pictures")
    (tmp_path / "gt.tar.bz2").write_bytes(b"no archive")
    with pytest.raises(InvalidDataSet, match="cannot be read"):
        manifest_from_fmow(root, tmp_path / "sites.csv", ground_truth=tmp_path / "gt.tar.bz2")
    assert not (tmp_path / "sites.csv").exists()
    (tmp_path / "sites.csv").write_text("mine")
    with pytest.raises(OutputExists):
        manifest_from_fmow(root, tmp_path / "sites.csv")


@pytest.mark.parametrize("options", [{"kind": "pan"}, {"context": True, "whole": True}])
def test_options_that_contradict_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        FmowOptions(**options)
