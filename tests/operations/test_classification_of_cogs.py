"""COGs are classified as they are, and give the answers of the pyramids that they came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rasterio.shutil import copy

from tests.networks import small_bundle
from tests.rasters import random_pixels, write_raster
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.inference import load_bundle
from tnet_geo.model import WalkSettings
from tnet_geo.pyramid import ArchiveSettings, create_archive, open_scenes
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.export import export_cogs
from tnet_geo.results import Results
from tnet_geo.trail import Answer

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)
ASK = "SELECT site_id, label, confidence, tiles FROM predictions ORDER BY site_id"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(walk=WalkSettings(keep=(2, 1))).save(tmp_path_factory.mktemp("bundle") / "bundle")


def test_cogs_get_the_answers_of_the_pyramids_that_they_were_exported_from(
    bundle: Path, tmp_path: Path
) -> None:
    archive = create_archive(tmp_path / "archive", SETTINGS)
    for n in range(3):
        source = write_raster(tmp_path / "sources" / f"s{n}.tif", random_pixels(n, (130, 170)))
        build_scene(str(source), f"s{n}", archive.place, SETTINGS)
    export_cogs(tmp_path / "archive", tmp_path / "cogs")
    sites = [
        Site(f"{n}{part}", str(tmp_path / "sources" / f"s{n}.tif"), f"s{n}", window)
        for n in range(3)
        for part, window in (("whole", None), ("part", Window(20, 30, 70, 90)))
    ]
    classifier = load_bundle(bundle)
    stored, straight = (
        list(classifier.answer(open_scenes(place), sites)) for place in (archive.place, tmp_path / "cogs")
    )
    assert len(stored) == len(straight) == 6
    for one, other in zip(stored, straight, strict=True):
        assert isinstance(one, Answer)
        assert isinstance(other, Answer)
        assert replace(one, bytes_decoded=0) == replace(other, bytes_decoded=0)  # blocks are no chunks


def test_a_folder_needs_no_manifest_and_what_cannot_be_read_is_set_aside(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(2):
        source = write_raster(tmp_path / "sources" / f"s{n}.tif", random_pixels(n, (130, 170)))
        (tmp_path / "cogs").mkdir(exist_ok=True)
        copy(source, tmp_path / "cogs" / f"s{n}.tif", driver="COG", blocksize=128)
    (tmp_path / "cogs" / "text.tif").write_text("not a picture")
    typed = ["--archive", str(tmp_path / "cogs"), "--bundle", str(bundle), "-o", str(tmp_path / "out")]
    assert run(app, ["classify", *typed, "--workers", "1"]) == 3
    assert len(Results.open(tmp_path / "out").query(ASK)) == 2
    assert "text" in (tmp_path / "out" / "failed.csv").read_text()
    capsys.readouterr()


def test_pyramids_need_a_manifest(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_archive(tmp_path / "archive", SETTINGS)
    typed = ["--archive", str(tmp_path / "archive"), "--bundle", str(bundle), "-o", str(tmp_path / "out")]
    assert run(app, ["classify", *typed]) == 2
    assert "name its sites with --manifest" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
