"""A folder of images becomes one site per image, and stays what it was when images come later."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import pytest

from tnet_geo.errors import InvalidManifest, NoImages, OutputExists, UsageError
from tnet_geo.imagery import manifest_from_folder, open_raster, read_manifest


def images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_every_image_is_a_site_labelled_by_its_folder(tmp_path: Path) -> None:
    names = (
        "harbour/a.tif",
        "harbour/b.TIFF",
        "north/road/c.jpg",
        "road/d.JPEG",
        "road/e.f.png",
        "road/notes.txt",
    )
    root = images(tmp_path / "pictures", *names)
    manifest = manifest_from_folder(root, tmp_path / "sites.parquet")
    assert {site.site_id: site.label for site in manifest.sites} == {
        "harbour/a": "harbour",
        "harbour/b": "harbour",
        "north/road/c": "road",
        "road/d": "road",
        "road/e.f": "road",
    }
    assert {site.scene for site in manifest.sites} == {str(root / name) for name in names[:-1]}
    assert all(site.window is None and site.split in {"train", "val", "test"} for site in manifest.sites)
    assert read_manifest(tmp_path / "sites.parquet").sites == manifest.sites


def test_two_images_of_one_name_keep_their_suffixes(tmp_path: Path) -> None:
    root = images(tmp_path / "pictures", "road/a.jpg", "road/a.png", "road/b.png")
    manifest = manifest_from_folder(root, tmp_path / "sites.csv")
    assert [site.site_id for site in manifest.sites] == ["road/a.jpg", "road/a.png", "road/b"]
    assert len(manifest.scenes()) == 3


def test_images_that_come_later_move_nobody(tmp_path: Path) -> None:
    root = images(tmp_path / "pictures", *(f"road/{n}.tif" for n in range(50)))
    before = {site.site_id: site.split for site in manifest_from_folder(root, tmp_path / "one.csv").sites}
    images(root, *(f"harbour/{n}.tif" for n in range(50)))
    after = {site.site_id: site.split for site in manifest_from_folder(root, tmp_path / "two.csv").sites}
    assert before.items() <= after.items()
    assert set(before.values()) == {"train", "val", "test"}


def test_scenes_below_the_manifest_are_written_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "here/pictures", "road/a.tif")
    monkeypatch.chdir(tmp_path / "here")
    manifest_from_folder("pictures", "sites.csv")
    manifest_from_folder("../here/pictures", "there/sites.csv")
    assert '"pictures/road/a.tif"' in Path("sites.csv").read_text()
    assert f'"{tmp_path}/here/pictures/road/a.tif"' in Path("there/sites.csv").read_text()
    assert read_manifest("sites.csv").sites[0].scene == read_manifest("there/sites.csv").sites[0].scene


def test_images_without_a_class_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    root = images(tmp_path / "pictures", "a.tif", "road/.b.tif", ".cache/c.tif", "road/d.tif")
    assert [site.site_id for site in manifest_from_folder(root, tmp_path / "s.csv").sites] == ["road/d"]


@pytest.mark.parametrize("names", [(), ("a.tif",), ("road/notes.txt",)])
def test_a_folder_without_images_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(NoImages, match="one folder per class"):
        manifest_from_folder(images(tmp_path / "pictures", *names), tmp_path / "sites.csv")
    assert not (tmp_path / "sites.csv").exists()


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.2, 1.0), (math.nan, 0.2)])
def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path: Path, val: float, test: float) -> None:
    with pytest.raises(UsageError, match="nothing to train on"):
        manifest_from_folder(images(tmp_path, "road/a.tif"), tmp_path / "sites.csv", val=val, test=test)


def test_an_output_that_exists_or_has_no_known_suffix_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path / "pictures", "road/a.tif", "s.csv")
    with pytest.raises(OutputExists):
        manifest_from_folder(root, root / "s.csv")
    with pytest.raises(InvalidManifest, match="neither"):
        manifest_from_folder(root, tmp_path / "sites.json")


def test_real_pictures_make_a_manifest_whose_scenes_open(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "ucmerced" / "ucmerced60_a.zip") as archive:
        wanted = [name for name in archive.namelist() if name.endswith(("00.jpg", "01.jpg"))]
        archive.extractall(tmp_path, wanted)
    manifest = manifest_from_folder(tmp_path / "ucmerced60", tmp_path / "sites.parquet", val=0, test=0)
    assert len(manifest) == len(wanted)
    assert len(manifest.classes()) == 11
    for site in manifest.sites:
        with open_raster(site.scene) as raster:
            assert raster.info.bands == 3
