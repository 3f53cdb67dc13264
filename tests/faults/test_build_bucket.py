"""A build into a bucket that is killed, with all its workers, goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import InvalidArchive
from tnet_geo.imagery import Site, write_manifest
from tnet_geo.operations import build_archive
from tnet_geo.pyramid import Archive
from tnet_geo.pyramid.archive import open_built

SCENES = 30


def contents(archive: Archive) -> dict[str, bytes | None]:
    """All objects of its scenes."""
    return {key: archive.store.read(key) for key in archive.store.keys("scenes")}


def sealed(archive: Archive) -> dict[str, str | None]:
    """Digests of the scenes that are there."""
    return {scene_id: archive.digest(scene_id) for scene_id in archive.scene_ids()}


@pytest.mark.slow
def test_a_killed_build_into_a_bucket_ends_in_the_bytes_of_a_folder(s3: str, tmp_path: Path) -> None:
    sites = []
    for n in range(SCENES):
        source = write_raster(tmp_path / "scenes" / f"{n}.tif", random_pixels(n, (500, 400)))
        sites.append(Site(f"s{n:02d}", str(source), f"s{n:02d}"))
    manifest = write_manifest(sites, tmp_path / "sites.parquet")
    build_archive(manifest, tmp_path / "folder", half_px=16, workers=1)
    expected = contents(open_built(tmp_path / "folder"))

    command = "import sys; from tnet_geo.operations import build_archive\n"
    command += "if __name__ == '__main__': build_archive(sys.argv[1], sys.argv[2], half_px=16, workers=2)"
    (tmp_path / "build.py").write_text(command)
    call = [sys.executable, str(tmp_path / "build.py"), str(manifest.path), s3]
    builder = subprocess.Popen(call, start_new_session=True, env=os.environ, cwd=Path(__file__).parents[2])
    try:
        done = _some_sealed(s3, builder, time.monotonic() + 120)
    finally:
        os.killpg(builder.pid, signal.SIGKILL)
        builder.wait()
    left = set(open_built(s3).store.keys("scenes"))

    report = build_archive(manifest, s3, half_px=16, workers=1)
    assert report.exit_code == 0
    assert report.skipped >= len(done) > 0
    assert report.built > 0
    assert contents(open_built(s3)) == expected
    assert left != set(expected)  # it was killed in the middle


def _some_sealed(place: str, builder: subprocess.Popen[bytes], deadline: float) -> dict[str, str | None]:
    """What is sealed as soon as anything is."""
    while time.monotonic() < deadline:
        assert builder.poll() is None, "it ended before it could be killed"
        try:
            found = sealed(open_built(place))
        except InvalidArchive:  # not begun
            found = {}
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("nothing was sealed in time")
