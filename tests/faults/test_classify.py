"""The archive job killed on the way: what was published stays, running again ends in the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.archives import TinyArchive
from tests.networks import small_bundle
from tnet_geo.imagery import Manifest, Site
from tnet_geo.operations import classify
from tnet_geo.results import Results

CLASSIFY = """
import sys
from tnet_geo.operations import classify
from tnet_geo.results import Results

if __name__ == "__main__":
    archive, manifest, bundle, out = sys.argv[1:]
    classify(archive=archive, manifest=manifest, bundle=bundle, out=out, workers=2, partition=1)
"""


def parts(results: Path) -> dict[str, bytes]:
    """Every published part by its place."""
    return {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("part-*.parquet")}


def test_a_killed_job_started_again_ends_in_the_bytes_of_an_undisturbed_one(
    tiny: TinyArchive, tmp_path: Path
) -> None:
    bundle = small_bundle().save(tmp_path / "bundle")
    script = tmp_path / "classify.py"
    script.write_text(CLASSIFY)
    given = [str(tiny.archive.path), tiny.manifest.path, str(bundle)]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, str(script), *given, str(killed)], start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(killed.glob("predictions/*/part-*.parquet"))) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)  # the client and both of its workers
    process.wait()
    left = parts(killed)
    assert 5 <= sum(name.startswith("predictions") for name in left) < 36
    assert not (killed / "runs").exists()
    same = {"archive": given[0], "manifest": given[1], "bundle": given[2], "workers": 2, "partition": 1}
    report = classify(**same, out=killed)
    assert (report.answered, report.set_aside) == (36, 0)
    classify(**same, out=whole)
    assert parts(killed) == parts(whole)
    assert left.items() <= parts(killed).items()


@pytest.mark.parametrize(
    "poison",
    [
        "raise RuntimeError('a defect')",
        pytest.param(
            "os.kill(os.getpid(), signal.SIGSEGV)", marks=[pytest.mark.slow, pytest.mark.timeout(900)]
        ),
    ],
)
def test_a_site_that_breaks_its_task_is_set_aside_alone(
    tiny: TinyArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    # Workers are processes of their own: what they import at their start poisons one scene.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "import tnet_geo.pyramid.archive as archive\n"
        "read = archive.Archive.reader\n"
        "def reader(self, scene_id, half_px=None):\n"
        "    if scene_id == 'poisoned':\n"
        f"        {poison}\n"
        "    return read(self, scene_id, half_px)\n"
        "archive.Archive.reader = reader\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    poisoned = Site("bad", tiny.manifest.sites[0].scene, "poisoned")
    manifest = Manifest([*tiny.manifest.sites[:3], poisoned], tiny.manifest.path)
    bundle = small_bundle().save(tmp_path / "bundle")
    report = classify(
        archive=tiny.archive.path, manifest=manifest, bundle=bundle, out=tmp_path / "results", workers=1
    )
    assert (report.answered, report.set_aside, report.exit_code) == (3, 1, 3)
    ((failed, reason),) = Results.open(tmp_path / "results").failures()
    assert failed == "bad"
    assert reason.startswith("Site bad broke its task (")
