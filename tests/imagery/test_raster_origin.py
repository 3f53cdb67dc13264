"""What tells one content of a raster from another: digests, and states of files that change."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio

from tests.imagery.test_raster import whole, write_picture
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SourceUnreadable
from tnet_geo.imagery.raster import open_raster, source_digest, source_files, source_state


def vrt_of(source: Path, path: Path) -> Path:
    """A VRT of one band of 20 x 20 pixels of `source`."""
    path.write_text(
        '<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{source}</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    return path


def test_the_digest_is_that_of_the_bytes_whatever_folder_they_lie_in(tmp_path: Path) -> None:
    pixels = random_pixels(10, (20, 20))
    one, two = (write_raster(tmp_path / name / "scene.tif", pixels) for name in ("one", "two"))
    assert source_digest(str(one)) == source_digest(str(two)) == hashlib.sha256(one.read_bytes()).hexdigest()


def test_the_digest_covers_sidecars(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    write_picture(path, random_pixels(11, (20, 20)), driver="PNG")
    before = source_digest(str(path))
    path.with_suffix(".wld").write_text("0.5\n0\n0\n-0.5\n100\n200\n")
    assert source_digest(str(path)) != before
    with open_raster(str(path)) as raster:
        assert raster.info.transform == (0.5, 0, 99.75, 0, -0.5, 200.25)


def test_the_digest_covers_what_a_vrt_is_made_of(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", random_pixels(12, (20, 20), 1))
    path = vrt_of(source, tmp_path / "scene.vrt")
    assert source_files(str(path)) == [str(source), str(path)]
    before = source_digest(str(path))
    write_raster(source, random_pixels(13, (20, 20), 1))
    assert source_digest(str(path)) != before


def test_the_digest_of_a_member_of_an_archive_is_that_of_the_archive(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", random_pixels(12, (20, 20), 1))
    with zipfile.ZipFile(tmp_path / "scenes.zip", "w") as target:
        target.write(source, "inner/scene.tif")
    found = source_digest(f"zip://{tmp_path}/scenes.zip!inner/scene.tif")
    assert found == hashlib.sha256((tmp_path / "scenes.zip").read_bytes()).hexdigest()


def test_bytes_that_nobody_could_compare_are_refused(tmp_path: Path) -> None:
    with (
        rasterio.MemoryFile(
            write_raster(tmp_path / "scene.tif", random_pixels(1, (8, 8))).read_bytes()
        ) as it,
        pytest.raises(SourceUnreadable, match="/vsimem/"),
    ):
        source_digest(it.name)


def test_a_missing_file_has_neither_digest_nor_state(tmp_path: Path) -> None:
    for ask in (source_digest, source_state):
        with pytest.raises(SourceUnreadable, match=r"absent\.tif"):
            ask(str(tmp_path / "absent.tif"))


def test_the_state_stays_as_long_as_nobody_writes(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", random_pixels(10, (20, 20)))
    before = source_state(str(path))
    with open_raster(str(path)) as raster:
        raster.read(whole(raster))
    assert source_state(str(path)) == before


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def replace(path: Path) -> None:
    """By another file of the same size and time."""
    times = path.stat()
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    copy.replace(path)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def add_sidecar(path: Path) -> None:
    with rasterio.open(path, "r") as raster:
        profile = raster.profile | {"count": 1, "dtype": "uint8"}
    with rasterio.open(f"{path}.msk", "w", **profile):
        pass


@pytest.mark.parametrize("change", [rewrite, replace, grow, add_sidecar])
def test_a_file_that_was_written_to_has_another_state(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = write_raster(tmp_path / "scene.tif", random_pixels(10, (20, 20)))
    os.utime(path, ns=(1, 1))
    before = source_state(str(path))
    change(path)
    assert source_state(str(path)) != before


def test_the_state_of_a_vrt_changes_with_its_source(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", random_pixels(12, (20, 20), 1))
    path = vrt_of(source, tmp_path / "scene.vrt")
    os.utime(source, ns=(1, 1))
    before = source_state(str(path))
    rewrite(source)
    assert source_state(str(path)) != before
