"""The published way on real pictures: it learns, and its two stages follow one another."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tnet_geo.imagery import Manifest, manifest_from_folder
from tnet_geo.learning.settings import read_run
from tnet_geo.model import read_bundle
from tnet_geo.operations import build_archive, classify
from tnet_geo.operations.training import train_with
from tnet_geo.results import Results

CLASSES = ("agricultural", "beach", "buildings", "forest", "harbor", "intersection", "parkinglot", "river")


def pictures(shared_data: Path, folder: Path, classes: tuple[str, ...], count: int) -> Manifest:
    """The first pictures of some classes of UC Merced."""
    for half in "ab":
        with zipfile.ZipFile(shared_data / "ucmerced" / f"ucmerced60_{half}.zip") as pack:
            for name in pack.namelist():
                path = Path(name)
                if path.parent.name in classes and path.suffix == ".jpg" and int(path.stem[-2:]) < count:
                    pack.extract(name, folder)
    return manifest_from_folder(folder / "ucmerced60", folder / "sites.parquet")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_learns_to_tell_aerial_pictures_apart(shared_data: Path, project: Path, tmp_path: Path) -> None:
    manifest = pictures(shared_data, tmp_path, CLASSES, 40)
    build_archive(manifest, tmp_path / "archive", half_px=32, workers=1)
    weights = shared_data / "weights" / "tf_efficientnet_lite0.backbone.fp16.safetensors"
    overrides = {
        "out": str(tmp_path / "run"),
        "data": {"manifest": manifest.path, "archive": str(tmp_path / "archive")},
        "model": {"weights": str(weights), "aggregation": "mean", "batch_norm": "by_depth"},
        "duplicates": "twice",
        "order": "window",
        "location": {"epochs": 0},
        "published": {"epochs": 4, "sites_per_step": 16, "backbone_rate": 0.2},
        "rivals": {"train": []},
    }
    report = train_with(read_run(project / "configs" / "runs" / "ucmerced.toml", overrides=overrides))
    assert (report.stage, report.tiles) == ("published", 5)
    assert report.accuracy > 0.5  # chance is 0.125


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_published_stages_run_one_after_the_other_and_answer(
    shared_data: Path, project: Path, tmp_path: Path
) -> None:
    manifest = pictures(shared_data, tmp_path, ("beach", "forest", "parkinglot"), 8)
    bundles = {}
    for name, canvas_px in (("tnet_fmow_448", 448), ("tnet_fmow", 896)):
        archive = tmp_path / f"archive_{canvas_px}"
        build_archive(manifest, archive, half_px=112, workers=1, canvas=f"fit:{canvas_px}")
        begin = {"begin": str(bundles["tnet_fmow_448"])} if bundles else {}
        overrides = {
            "out": str(tmp_path / name),
            "data": {"manifest": manifest.path, "archive": str(archive)},
            "model": begin,
            "published": {"epochs": 1, "sites_per_step": 5},
        }
        train_with(read_run(project / "configs" / "runs" / f"{name}.toml", overrides=overrides))
        bundles[name] = tmp_path / name / "bundle"
    facts = read_bundle(bundles["tnet_fmow"]).facts
    assert (facts.canvas, facts.walk.duplicates, facts.network.depths) == ("fit:896", "twice", 3)
    assert facts.network.pixels.mean == (127.5,) * 3
    done = classify(
        archive=tmp_path / "archive_896",
        manifest=manifest,
        bundle=bundles["tnet_fmow"],
        out=tmp_path / "results",
    )
    assert done.answered == done.selected == len(manifest)
    assert Results.open(tmp_path / "results").summary().tiles == 5
