"""The archive job as a process of its own, to be killed, stopped and compared with an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from rasterio.shutil import copy

from tests.networks import small_bundle
from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Window
from tnet_geo.imagery import Site, write_manifest
from tnet_geo.model import WalkSettings
from tnet_geo.pyramid import ArchiveSettings, create_archive
from tnet_geo.pyramid.build import build_scene

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = """
import json
import signal
from tnet_geo.cli.endings import call
from tnet_geo.operations import classify


def job(given: str) -> int:
    return classify(**json.loads(given)).exit_code


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    call(job)
"""
SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)
SIDE = 256
LOOKS = 24
"""Of a partition: some five sites."""


@dataclass(frozen=True)
class Work:
    """What is to be classified, and how."""

    archive: str
    sites: tuple[Site, ...]
    manifest: str
    bundle: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `classify`."""

    def start(self, out: Path, environment: Mapping[str, str] | None = None, **given: Any) -> Running:
        """The job in a group of processes of its own, on two workers of its own if nothing else is said."""
        script = self.bundle.parent / "job.py"
        script.write_text(SCRIPT)
        arguments = {"archive": self.archive, "manifest": self.manifest, "bundle": str(self.bundle)}
        arguments |= {"out": str(out), "workers": 2, "partition": LOOKS} | dict(self.given) | given
        handle, log = tempfile.mkstemp(dir=self.bundle.parent, suffix=".log")
        with os.fdopen(handle, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(script), json.dumps(arguments)],
                start_new_session=True,
                stderr=file,
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": str(PROJECT), **(environment or {})},
            )
        return Running(process, out, Path(log))

    def run(self, out: Path, environment: Mapping[str, str] | None = None, **given: Any) -> int:
        """Start it, wait until it ends, and give its exit status."""
        return self.start(out, environment, **given).ended()


@dataclass(frozen=True)
class Running:
    """A job that was started."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def ended(self, seconds: float = 1200) -> int:
        """Its exit status; it must end in this time, and its processes with it."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.gone()
        return code

    def until(self, there: Callable[[], bool], seconds: float = 600) -> None:
        """Wait for something while it runs."""
        deadline = time.monotonic() + seconds
        while not there():
            assert self.process.poll() is None, f"it ended before: {self.said()}"
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def until_parts(self, count: int) -> None:
        """Wait for so many published parts."""
        self.until(lambda: len(published(self.out)) >= count)

    def workers(self) -> list[psutil.Process]:
        """Processes of the local cluster that have tasks."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in found if "spawn_main" in " ".join(_command(process))]

    def kill(self) -> None:
        """SIGKILL for all of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        """What it has said on stderr so far."""
        return self.log.read_text()

    def last_word(self) -> str:
        """The one line with which a job that has ended says why."""
        (line,) = [line for line in self.said().splitlines() if line.startswith("tnet-geo: ")]
        return line

    def gone(self, seconds: float = 60) -> None:
        """Wait until no process of it is left; end those that stay, and fail."""
        deadline = time.monotonic() + seconds
        while left := in_group(self.process.pid):
            if time.monotonic() > deadline:
                names = [" ".join(_command(process)) for process in left]
                for process in left:
                    process.kill()
                raise AssertionError(f"these live on: {names}")
            time.sleep(0.05)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def in_group(group: int) -> list[psutil.Process]:
    """Living processes of a group."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def published(out: Path) -> list[Path]:
    """Sealed parts."""
    return list(out.glob("predictions/run=*/part-*.parquet"))


def parts(out: Path) -> dict[str, bytes]:
    """The bytes of every file of every part, by its place."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("part-*.parquet")}


def outcomes(out: Path) -> Counter[str]:
    """How often the parts name each site, as answered or as set aside."""
    files = [*out.glob("predictions/run=*/part-*.parquet"), *out.glob("failed/run=*/part-*.parquet")]
    tables = [pq.read_table(file, columns=["site_id"], partitioning=None) for file in files]
    return Counter(name for table in tables for name in table["site_id"].to_pylist())


def set_aside(out: Path) -> dict[str, str]:
    """Reasons by site."""
    files = out.glob("failed/run=*/part-*.parquet")
    rows = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
    return {row["site_id"]: row["reason"] for row in rows}


def check(work: Work, out: Path, whole: Mapping[str, bytes]) -> None:
    """Every site once, in the bytes of the undisturbed run, and nothing half written."""
    assert outcomes(out) == Counter(site.site_id for site in work.sites)
    assert parts(out) == whole
    assert not [path for path in out.rglob("*") if path.name.endswith(".draft")]


def pyramid_work(folder: Path, scenes: int = 12, windows: int = 60, alone: Sequence[str] = ()) -> Work:
    """Windows of random scenes, many to a scene, in the order of the manifest.

    `alone`: names of further scenes of one site each, which stand in pairs, far apart, among the others.
    """
    archive = create_archive(folder / "archive", SETTINGS)
    found = []
    chance = np.random.default_rng(13)

    def scene(name: str, seed: int) -> str:
        source = write_raster(folder / "scenes" / f"{name}.tif", random_pixels(seed, (SIDE, SIDE)))
        build_scene(str(source), name, archive.place, SETTINGS)
        return str(source)

    for n in range(scenes):
        source = scene(f"s{n:03d}", n)
        for k in range(windows):
            height, width = (int(side) for side in chance.integers(60, 140, 2))
            row, col = int(chance.integers(SIDE - height)), int(chance.integers(SIDE - width))
            window = Window(row, col, height, width)
            found.append(Site(f"{n:03d}-{k:03d}", source, f"s{n:03d}", window, split="test"))
    for n, name in enumerate(alone):
        window = Window(0, 0, 120, 120)
        found.insert(3 + n + 40 * (n // 2), Site(name, scene(name, 100 + n), name, window, split="test"))
    return work_of(folder, archive.place, found)


def cog_work(folder: Path, scenes: int = 12, windows: int = 60, alone: Sequence[str] = ()) -> Work:
    """The same sites on an archive of COGs, as GDAL writes them."""
    pyramids = pyramid_work(folder, scenes, windows, alone)
    (folder / "cogs").mkdir()
    for source in dict.fromkeys(site.scene for site in pyramids.sites):
        options = {"blocksize": 128, "compress": "deflate"}
        copy(source, folder / "cogs" / Path(source).name, driver="COG", **options)
    return work_of(folder, str(folder / "cogs"), list(pyramids.sites))


def haunted(folder: Path, scenes: str, body: str) -> dict[str, str]:
    """An environment in which a worker that reads tiles of scenes so named (a prefix) does `body`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import os, signal, time\n"
        "from tnet_geo.pyramid.cog import CogReader\n"
        "from tnet_geo.pyramid.reader import SceneReader\n"
        "def haunt(kind):\n"
        "    submit = kind.submit\n"
        "    def haunted(self, tiles):\n"
        f"        if self.spec.scene_id.startswith({scenes!r}):\n"
        f"            {body}\n"
        "        return submit(self, tiles)\n"
        "    kind.submit = haunted\n"
        "haunt(CogReader)\n"
        "haunt(SceneReader)\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(PROJECT)])}


def work_of(folder: Path, archive: str, sites: list[Site], **given: Any) -> Work:
    """A work with an untrained bundle that looks at up to four tiles of a site."""
    (folder / "sites.parquet").unlink(missing_ok=True)
    manifest = write_manifest(sites, folder / "sites.parquet")
    bundle = folder / "bundle"
    if not bundle.exists():
        small_bundle(walk=WalkSettings(keep=(2, 1))).save(bundle)
    return Work(archive, tuple(sites), manifest.path, bundle, given)
