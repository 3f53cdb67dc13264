"""A check of a manifest finds what would stop a build or spoil a training, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import InvalidManifest
from tnet_geo.grid import Window
from tnet_geo.imagery import manifest_from_windows
from tnet_geo.imagery.check import ManifestCheck, check_manifest
from tnet_geo.imagery.manifest import Site, write_manifest


def scene(folder: Path, name: str, bands: int = 3, dtype: str = "uint8", **more: Any) -> str:
    return str(write_raster(folder / name, random_pixels(1, (100, 80), bands, dtype), **more))


def checked(folder: Path, *sites: Site, **options: Any) -> ManifestCheck:
    write_manifest(sites, folder / "sites.csv")
    return check_manifest(folder / "sites.csv", **options)


def kinds(check: ManifestCheck) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in check.problems))


@pytest.mark.parametrize("deep", [False, True])
def test_a_manifest_that_is_right_is_counted(tmp_path: Path, deep: bool) -> None:
    a, b = scene(tmp_path, "a.tif"), scene(tmp_path, "b.tif")
    sites = [
        Site("1", a, "a", Window(0, 0, 50, 80), "meadow", "train", "2024-05-31", 0.5),
        Site("2", a, "a", Window(50, 0, 50, 80), "quarry", "train", "2023", 0.25),
        Site("3", b, "b", None, "meadow", "test"),
    ]
    done: list[tuple[int, int]] = []
    check = checked(tmp_path, *sites, deep=deep, progress=lambda *n: done.append(n))
    assert (check.problems, check.exit_code) == ((), 0)
    assert (check.sites, check.scenes, check.sides) == (3, 2, (80, 100))
    assert check.classes == {"meadow": {"train": 1, "test": 1}, "quarry": {"train": 1}}
    assert (check.pixels, check.crs) == ({"3 x uint8": 2}, {"EPSG:32632": 2})
    assert check.dates == {"train": ("2023", "2024-05-31")}
    assert check.gsd == (0.25, 0.5)
    assert done[-1] == (2, 2)
    lines = "\n".join(check.lines())
    assert "class   train  test" in lines
    assert lines.endswith("every pixel could be read" if deep else "nothing is wrong")


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"no picture")
    sites = [
        Site("1", scene(tmp_path, "a.tif"), "a"),
        Site("2", str(tmp_path / "absent.tif"), "absent"),
        Site("3", str(tmp_path / "bad.tif"), "bad"),
    ]
    check = checked(tmp_path, *sites)
    assert [Path(problem.item).name for problem in check.problems] == ["absent.tif", "bad.tif"]
    assert kinds(check) == {"unreadable": 2}
    assert check.exit_code == 5
    assert "wrong: unreadable (2)" in "\n".join(check.lines())


def test_damage_behind_a_good_header_is_found_by_reading_every_pixel(tmp_path: Path) -> None:
    whole = Path(scene(tmp_path, "a.tif", compress="deflate"))
    content = bytearray(whole.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    whole.write_bytes(content)
    site = Site("1", str(whole), "a")
    assert checked(tmp_path, site).exit_code == 0
    assert kinds(check_manifest(tmp_path / "sites.csv", deep=True)) == {"unreadable": 1}


def test_a_scene_without_any_valid_pixel_is_found_by_reading_it(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.zeros((1, 100, 80), np.uint8), nodata=0)
    check = checked(tmp_path, Site("1", str(tmp_path / "a.tif"), "a"), deep=True)
    assert [problem.what for problem in check.problems] == ["not one of its pixels is valid"]


def test_windows_that_leave_their_scene_are_named(tmp_path: Path) -> None:
    a = scene(tmp_path, "a.tif")
    check = checked(
        tmp_path, Site("in", a, "a", Window(0, 0, 100, 80)), Site("out", a, "a", Window(1, 0, 100, 80))
    )
    (problem,) = check.problems
    assert (problem.kind, problem.item) == ("outside", "out")
    assert "rows 1 to 101" in problem.what


def test_the_same_pixels_twice_are_named_with_their_splits(tmp_path: Path) -> None:
    a = scene(tmp_path, "a.tif")
    one = Site("one", a, "a", Window(0, 0, 9, 9), "x", "train")
    check = checked(tmp_path, one, Site("two", a, "a", Window(0, 0, 9, 9), "x", "test"))
    assert kinds(check) == {"twice": 1}
    assert check.problems[0].what == "has the pixels of one of split train"


def test_mixed_bands_and_types_are_named(tmp_path: Path) -> None:
    scenes = [("a.tif", 3, "uint8"), ("b.tif", 4, "uint8"), ("c.tif", 3, "uint16")]
    sites = [Site(name, scene(tmp_path, name, bands, dtype), name) for name, bands, dtype in scenes]
    check = checked(tmp_path, *sites)
    assert kinds(check) == {"mixed": 1}
    assert check.pixels == {"3 x uint8": 1, "4 x uint8": 1, "3 x uint16": 1}


def test_labels_that_training_lacks_are_named(tmp_path: Path) -> None:
    a = scene(tmp_path, "a.tif")
    sites = [
        Site("1", a, "a", Window(0, 0, 9, 9), "meadow", "train"),
        Site("2", a, "a", Window(9, 0, 9, 9), "quarry", "val"),
    ]
    (problem,) = checked(tmp_path, *sites).problems
    assert (problem.kind, problem.item, problem.what) == (
        "label",
        "quarry",
        "1 sites in val and none in train",
    )


def test_a_broken_schema_is_a_finding_and_a_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sites.csv").write_text("site_id,scene\na,1.tif\na,2.tif\n")
    check = check_manifest(tmp_path / "sites.csv")
    assert (kinds(check), check.exit_code) == ({"schema": 1}, 5)
    with pytest.raises(InvalidManifest):
        check_manifest(tmp_path / "absent.csv")


def test_of_the_real_windows_the_label_that_only_validation_has_is_found(
    shared_data: Path, tmp_path: Path
) -> None:
    manifest_from_windows(shared_data / "scenes" / "windows.csv", tmp_path / "sites.parquet")
    check = check_manifest(tmp_path / "sites.parquet")
    assert [(p.kind, p.item) for p in check.problems][:1] == [("label", "road_bridge")]
    assert kinds(check) == {"label": 1, "mixed": 1}  # Landsat beside pictures of three bands
