"""Workers that are killed, and sites that kill them: fast forms. The others are in test_classify_*.py."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from tests.archives import TinyArchive
from tests.jobs import parts
from tests.networks import small_bundle
from tnet_geo.imagery import Manifest, Site
from tnet_geo.operations import classify
from tnet_geo.operations.cluster import cluster
from tnet_geo.results import Results

POISON = """
import os, signal
import tnet_geo.pyramid.archive as archive

read = archive.Archive.reader


def reader(self, scene_id, half_px=None):
    if scene_id == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if scene_id == "defect":
        raise RuntimeError("a defect")
    return read(self, scene_id, half_px)


archive.Archive.reader = reader
"""
"""Two scenes that must not be opened, in every process that begins with it."""
CAUSES = {"segfault": "its process ended with SIGSEGV", "defect": "RuntimeError: a defect"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Two workers, in which two scenes are poisoned."""
    folder = tmp_path_factory.mktemp("poison")
    (folder / "sitecustomize.py").write_text(POISON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        with cluster(2, None, tries=2) as client:
            yield client


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle().save(tmp_path_factory.mktemp("bundle") / "bundle")


def test_a_worker_that_is_killed_costs_neither_a_row_nor_a_bit(
    tiny: TinyArchive, bundle: Path, tmp_path: Path, client: Client
) -> None:
    manifest = Manifest(tiny.manifest.sites[:12], tiny.manifest.path)
    given = {"archive": tiny.archive.path, "manifest": manifest, "bundle": bundle, "partition": 1}
    address = client.scheduler.address
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    victim = min(client.run(os.getpid).values())

    def kill() -> None:
        while not list(killed.glob("predictions/*/part-*.parquet")):
            time.sleep(0.001)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = classify(**given, out=killed, scheduler=address)
    killer.join()
    assert (report.answered, report.set_aside) == (12, 0)
    classify(**given, out=whole, scheduler=address)
    assert parts(killed) == parts(whole)


@pytest.mark.parametrize("poison", ["segfault", "defect"])
def test_a_site_that_breaks_its_task_is_set_aside_alone(
    tiny: TinyArchive, bundle: Path, tmp_path: Path, client: Client, poison: str
) -> None:
    poisoned = Site("bad", tiny.manifest.sites[0].scene, poison)
    manifest = Manifest([*tiny.manifest.sites[:3], poisoned], tiny.manifest.path)
    report = classify(
        archive=tiny.archive.path,
        manifest=manifest,
        bundle=bundle,
        out=tmp_path / "results",
        scheduler=client.scheduler.address,
    )
    assert (report.answered, report.set_aside, report.exit_code) == (3, 1, 3)
    assert Results.open(tmp_path / "results").failures() == [
        ("bad", f"Site bad broke its task ({CAUSES[poison]}).")
    ]
