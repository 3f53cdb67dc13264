"""The whole journey on real imagery: aerial pictures as a folder, and windows of large scenes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.networks import small_bundle
from tnet_geo.imagery import manifest_from_folder, manifest_from_windows
from tnet_geo.learning.settings import read_run
from tnet_geo.operations import build_archive, classify, evaluate
from tnet_geo.operations.training import train_with
from tnet_geo.results import Results

CLASSES = ("agricultural", "beach", "buildings", "forest", "harbor", "intersection", "parkinglot", "river")
RUN = Path(__file__).resolve().parents[2] / "configs" / "runs" / "ucmerced.toml"


def unpack(shared_data: Path, folder: Path, numbers: range) -> Path:
    """Pictures of eight classes whose numbers are in `numbers`."""
    for half in "ab":
        with zipfile.ZipFile(shared_data / "ucmerced" / f"ucmerced60_{half}.zip") as pack:
            for name in pack.namelist():
                path = Path(name)
                if path.parent.name in CLASSES and path.suffix == ".jpg" and int(path.stem[-2:]) in numbers:
                    pack.extract(name, folder)
    return folder / "ucmerced60"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_aerial_pictures_from_pretrained_features_are_told_apart_far_above_chance(
    shared_data: Path, tmp_path: Path
) -> None:
    pictures = unpack(shared_data, tmp_path, range(50))
    manifest = manifest_from_folder(pictures, tmp_path / "sites.parquet")
    report = build_archive(manifest, tmp_path / "archive", half_px=32, workers=2)
    assert (report.built, report.set_aside) == (len(manifest), ())
    weights = shared_data / "weights" / "tf_efficientnet_lite0.backbone.fp16.safetensors"
    overrides = {
        "out": str(tmp_path / "run"),
        "data": {"manifest": manifest.path, "archive": str(tmp_path / "archive")},
        "model": {"weights": str(weights)},
        "location": {"epochs": 3},
        "joint": {"epochs": 0},
        "rivals": {"train": ()},
    }
    train_with(read_run(RUN, overrides=overrides))
    out = tmp_path / "results"
    done = classify(
        archive=tmp_path / "archive",
        manifest=manifest,
        bundle=tmp_path / "run" / "bundle",
        out=out,
        split="test",
    )
    assert done.answered == done.selected == len(manifest.select("test")) > 30
    figures = evaluate(tmp_path / "run", out=tmp_path / "evaluation.json")
    accuracy = json.loads((tmp_path / "evaluation.json").read_text())["contestants"]["walk"]["accuracy"]
    assert Results.open(out).summary().accuracy == pytest.approx(accuracy)
    assert figures.contestants["walk"].pixel_fraction < 0.35
    assert accuracy > 0.6  # chance is 0.125


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_windows_of_large_scenes_are_answered_or_set_aside_by_name(shared_data: Path, tmp_path: Path) -> None:
    manifest = manifest_from_windows(shared_data / "scenes" / "windows.csv", tmp_path / "windows.parquet")
    assert len(manifest) == 14
    assert build_archive(manifest, tmp_path / "archive", half_px=32, workers=2).built == 6
    bundle = small_bundle(base_px=64).save(tmp_path / "bundle")
    done = classify(archive=tmp_path / "archive", manifest=manifest, bundle=bundle, out=tmp_path / "results")
    # Two windows lie on a 16-bit Landsat scene of one band, which this bundle was not made for.
    assert (done.answered, done.set_aside, done.exit_code) == (12, 2, 3)
    failed = Results.open(tmp_path / "results").failures()
    assert [site for site, _ in failed] == ["memphis", "mississippi"]
    assert all("1 bands of uint16" in reason for _, reason in failed)


def test_windows_in_pixels_and_in_map_coordinates_are_the_same_sites(
    shared_data: Path, tmp_path: Path
) -> None:
    scene = shared_data / "scenes" / "river_town_1000.tif"
    pixels, coordinates = tmp_path / "pixels.csv", tmp_path / "map.csv"
    pixels.write_text(f"site_id,scene,row_off,col_off,height,width\ncanal,{scene},180,440,560,330\n")
    left, top = 127375 + 440 * 0.25, 428250 - 180 * 0.25
    bounds = f"{left},{top - 560 * 0.25},{left + 330 * 0.25},{top}"
    coordinates.write_text(f"site_id,scene,min_x,min_y,max_x,max_y\ncanal,{scene},{bounds}\n")
    ours, theirs = (
        manifest_from_windows(table, table.with_suffix(".parquet")).sites[0].window
        for table in (pixels, coordinates)
    )
    assert ours == theirs
