"""What is written of data sets agrees with the data sets, and goes with the package."""

from __future__ import annotations

import csv
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from tnet_geo.demo import class_names, generate_scenes
from tnet_geo.demo.journey import SITES
from tnet_geo.errors import UsageError
from tnet_geo.imagery import DataSet, data_set, data_sets, manifest_from_folder, open_raster


def test_four_data_sets_are_described_and_every_file_is_right(project: Path) -> None:
    assert data_sets() == ("demo", "fmow-full", "fmow-rgb", "ucmerced")
    assert data_sets() == tuple(sorted(file.stem for file in (project / "data_manifests").iterdir()))
    for name in data_sets():
        assert data_set(name).name == name
        assert data_set(name).classes.order


def test_they_go_into_the_wheel(project: Path) -> None:
    settings = tomllib.loads((project / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["data_manifests"] == "tnet_geo/imagery/data_manifests"


def test_unknown_keys_classes_named_twice_and_unknown_names_are_refused(project: Path) -> None:
    facts = tomllib.loads((project / "data_manifests/demo.toml").read_text())
    with pytest.raises(ValidationError, match="colour"):
        DataSet.model_validate(facts | {"colour": "green"})
    with pytest.raises(ValidationError, match="a class is named twice"):
        DataSet.model_validate(facts | {"classes": {"order": ["a", "b"], "aside": ["a"]}})
    with pytest.raises(UsageError, match="name one of demo, fmow-full, fmow-rgb, ucmerced"):
        data_set("mnist")


@pytest.mark.parametrize("name", ["fmow-rgb", "fmow-full"])
def test_the_classes_of_fmow_stand_in_the_published_order(shared_data: Path, name: str) -> None:
    with (shared_data / "fmow" / "classes.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["baseline_index"]))
    published = [row["category"] for row in rows]
    classes = data_set(name).classes
    assert (*classes.aside, *classes.order) == tuple(published)
    assert len(classes.order) == 62
    assert classes.order.index("impoverished_settlement") == 42
    assert list(classes.order) != sorted(classes.order)


def test_the_classes_of_uc_merced_are_those_of_its_pictures(shared_data: Path) -> None:
    with (shared_data / "ucmerced" / "index.csv").open() as file:
        labels = Counter(row["label"] for row in csv.DictReader(file))
    facts = data_set("ucmerced")
    assert facts.classes.order == tuple(sorted(labels))
    assert facts.splits["all"].images == 100 * len(labels)


def test_the_demo_makes_what_is_written_of_it(tmp_path: Path) -> None:
    facts = data_set("demo")
    assert facts.classes.order == class_names()
    assert facts.splits["all"].images == SITES
    scenes = generate_scenes(tmp_path / "scenes", seed=0, sites=10, side_px=160, workers=1)
    manifest = manifest_from_folder(scenes, tmp_path / "sites.csv", val=0, test=0)
    assert manifest.classes() == facts.classes.order
    assert set(Counter(site.label for site in manifest.sites).values()) == {2}
    with open_raster(manifest.sites[0].scene) as raster:
        info = raster.info
    assert (info.dtype, info.crs) == (facts.imagery.dtype, "EPSG:32630")
    assert info.transform is not None
    assert info.transform[0] == facts.imagery.gsd
    assert Path(manifest.sites[0].scene).suffix in facts.imagery.suffixes
