"""Builds that are killed, with all their workers, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.rasters import random_pixels, write_raster
from tnet_geo.imagery import Site, write_manifest
from tnet_geo.pyramid import ArchiveSettings, create_archive, open_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.catalogue import append_catalogue

BUILD = """
import sys
from tnet_geo.operations import build_archive

if __name__ == "__main__":
    report = build_archive(sys.argv[1], sys.argv[2], half_px=16, workers=2)
    print(report.built, report.skipped)
    sys.exit(report.exit_code)
"""
SMALL = 20


class Run:
    """One manifest, built as often as a test likes, by processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        random = np.random.default_rng(0)
        scenes = [
            write_raster(folder / f"{k}.tif", random_pixels(k, tuple(random.integers(80, 300, 2))))
            for k in range(SMALL)
        ]
        scenes.append(write_raster(folder / "large.tif", random_pixels(99, (2300, 1900))))  # many tasks
        self.manifest = folder / "sites.csv"
        self.sites = [Site(path.stem, str(path), path.stem) for path in scenes]
        write_manifest(self.sites, self.manifest)
        (folder / "build.py").write_text(BUILD)

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        """The build and its workers, as a group of processes of their own."""
        command = [sys.executable, "-W", "error", str(self.folder / "build.py"), str(self.manifest), str(out)]
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)

    def undisturbed(self, out: Path) -> tuple[dict[str, bytes], float]:
        """All bytes of an archive, and the seconds from its first draft to its end."""
        build = self.start(out)
        wait_for_first_draft(out, build)
        begun = time.monotonic()
        assert build.communicate()[0].split() == [str(SMALL + 1).encode(), b"0"]
        return contents(out), time.monotonic() - begun

    def killed_at(self, out: Path, seconds: float) -> dict[str, int]:
        """Build, kill everything after a time, and say what was sealed by then, and when."""
        build = self.start(out)
        wait_for_first_draft(out, build)
        try:
            build.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(build.pid, signal.SIGKILL)
        build.communicate()
        return seals(out)

    def alone(self, out: Path) -> dict[str, bytes]:
        """All bytes of an archive that one process has built, scene by scene."""
        archive = create_archive(out, ArchiveSettings(half_px=16))
        for site in self.sites:
            build_scene(site.scene, site.scene_id, out, archive.settings)
        append_catalogue(archive.store, [site.scene_id for site in self.sites])
        return contents(out)

    def finished(self, out: Path, sealed: dict[str, int]) -> dict[str, bytes]:
        """Start it again and let it end; what was sealed before must not be done again."""
        stdout, _ = self.start(out).communicate()
        assert stdout.split() == [str(SMALL + 1 - len(sealed)).encode(), str(len(sealed)).encode()]
        after = seals(out)
        assert {name: after[name] for name in sealed} == sealed
        return contents(out)


def wait_for_first_draft(out: Path, build: subprocess.Popen[bytes]) -> None:
    """Until the workers are there and the first scene is begun."""
    while not list(out.glob("scenes/*")):
        assert build.poll() is None, "the build ended before it began"
        time.sleep(0.005)


def seals(out: Path) -> dict[str, int]:
    """When each sealed scene was sealed."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("scenes/[!.]*/zarr.json")}


def contents(out: Path) -> dict[str, bytes]:
    """Every file of an archive; of the catalogue, whose parts follow the runs, its rows."""
    files = [path for path in out.rglob("*") if path.is_file() and "catalogue" not in path.parts]
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
    return found | {"rows": "\n".join(sorted(open_archive(out).scene_ids())).encode()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("killed"))


def check(run: Run, folder: Path, moments: int, seed: int) -> None:
    """Kill builds at random moments between their first draft and their end."""
    whole, seconds = run.undisturbed(folder / "whole")
    for number, share in enumerate(np.random.default_rng(seed).uniform(0, 1, moments)):
        out = folder / f"killed{number}"
        sealed = run.killed_at(out, share * seconds)
        assert run.finished(out, sealed) == whole


def test_a_killed_build_started_again_ends_in_the_bytes_that_one_process_writes(
    run: Run, tmp_path: Path
) -> None:
    build = run.start(tmp_path / "killed")
    while not seals(tmp_path / "killed"):
        assert build.poll() is None
        time.sleep(0.005)
    os.killpg(build.pid, signal.SIGKILL)
    build.communicate()
    sealed = seals(tmp_path / "killed")
    assert 0 < len(sealed) <= SMALL  # it was killed in the middle
    assert run.finished(tmp_path / "killed", sealed) == run.alone(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_same_at_twenty_moments(run: Run, tmp_path: Path) -> None:
    check(run, tmp_path, moments=20, seed=11)


@pytest.mark.slow
def test_a_build_goes_on_when_its_drafts_and_some_scenes_are_deleted(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole, _ = run.undisturbed(out)
    for name in ("large", "3", "17"):
        (out / "scenes" / name / "zarr.json").unlink()  # the remains are not what was sealed
    assert run.finished(out, seals(out)) == whole
