"""The archive job: one answer or one reason per site, and nothing looked at that the trail does not name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from tests.archives import SETTINGS, TinyArchive, tiny_archive
from tests.networks import small_bundle
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import (
    ArchiveMismatch,
    InvalidArchive,
    InvalidBundle,
    InvalidManifest,
    OutputExists,
    RuntimeUnusable,
    UsageError,
)
from tnet_geo.grid import Tile
from tnet_geo.imagery import Manifest, Site
from tnet_geo.inference import Classifier
from tnet_geo.inference.budgets import Budget
from tnet_geo.model import WalkSettings
from tnet_geo.operations import classify
from tnet_geo.operations.cluster import cluster
from tnet_geo.pyramid import Archive, ArchiveSettings, create_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.results import Results
from tnet_geo.trail import Answer, Failure


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """One worker that most tests of this file share."""
    with cluster(1, None) as client:
        yield client.scheduler.address


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle that looks at up to four tiles of 32 px."""
    return small_bundle(walk=WalkSettings(keep=(2, 1))).save(tmp_path_factory.mktemp("bundle") / "bundle")


def files_of(folder: Path) -> dict[str, bytes]:
    """Parts of all tables by their place."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("part-*.parquet")}


def test_every_site_has_its_answer_once_and_a_second_run_changes_nothing(
    tiny: TinyArchive, bundle: Path, tmp_path: Path
) -> None:
    given = {
        "archive": tiny.archive.path,
        "manifest": tiny.manifest.path,
        "bundle": bundle,
        "out": tmp_path / "results",
    }
    first = classify(**given, workers=2, partition=10)
    assert (first.selected, first.answered, first.set_aside, first.exit_code) == (36, 36, 0, 0)
    rows = Results.open(given["out"]).query("SELECT site_id, label FROM predictions ORDER BY site_id")
    assert rows["site_id"].to_pylist() == [f"site{n:03d}" for n in range(36)]
    before = files_of(given["out"])
    again = classify(**given, workers=2, partition=10)
    assert again.run_id == first.run_id
    assert files_of(given["out"]) == before


def test_a_changed_scene_and_new_sites_cost_their_own_partitions_alone(
    bundle: Path, tmp_path: Path, address: str
) -> None:
    tiny = tiny_archive(tmp_path, sites=12)
    given = {
        "archive": tiny.archive.path,
        "bundle": bundle,
        "out": tmp_path / "results",
        "scheduler": address,
    }

    def run(sites: Sequence[Site]) -> dict[str, int]:
        """Parts of a run by name, each with the number of runs that have it."""
        report = classify(**given, manifest=Manifest(sites, tiny.manifest.path), partition=8)
        assert report.answered == len(sites)
        files = (tmp_path / "results").glob(f"predictions/run={report.run_id}/part-*.parquet")
        return {file.name: file.stat().st_nlink for file in files}

    first = run(tiny.manifest.sites)
    assert set(first.values()) == {1}
    changed = write_raster(tmp_path / "scenes" / "005.tif", random_pixels(99, (64, 64)))
    build_scene(str(changed), "s005", tiny.archive.path, SETTINGS)
    second = run(tiny.manifest.sites)
    assert sorted(second.values()) == [1, *[2] * (len(first) - 1)]
    site = tiny.manifest.sites[0]
    third = run([*tiny.manifest.sites, Site("new", site.scene, site.scene_id)])
    assert len(third.keys() - second.keys()) == 1
    assert second.keys() <= third.keys()


def test_the_answers_are_those_of_the_classifier_itself(
    tiny: TinyArchive, bundle: Path, tmp_path: Path, address: str
) -> None:
    out = tmp_path / "results"
    classify(
        archive=tiny.archive.path,
        manifest=tiny.manifest,
        bundle=bundle,
        out=out,
        split="test",
        scheduler=address,
    )
    alone = {
        answer.site_id: answer.label
        for answer in Classifier(small_bundle(walk=WalkSettings(keep=(2, 1)))).answer(
            tiny.archive, tiny.manifest.select("test").sites
        )
        if isinstance(answer, Answer)
    }
    table = Results.open(out).query("SELECT site_id, label FROM predictions")
    assert dict(zip(table["site_id"].to_pylist(), table["label"].to_pylist(), strict=True)) == alone


def test_sites_that_fail_are_listed_with_their_reasons_and_the_others_answered(
    bundle: Path, tmp_path: Path, address: str
) -> None:
    tiny = tiny_archive(tmp_path, sites=6)
    shutil.rmtree(tiny.archive.scenes / "s001")
    grey = write_raster(tmp_path / "grey.tif", random_pixels(1, (64, 64), bands=1))
    build_scene(str(grey), "grey", tiny.archive.path, SETTINGS)
    shard = next((tiny.archive.scenes / "s002" / "1" / "data").rglob("c/0/0/0"))
    shard.write_bytes(shard.read_bytes()[:-9] + b"x" * 9)
    strange = Site("grey", str(grey), "grey")
    manifest = Manifest([*tiny.manifest.sites, strange], tiny.manifest.path)
    report = classify(
        archive=tiny.archive.path,
        manifest=manifest,
        bundle=bundle,
        out=tmp_path / "results",
        scheduler=address,
    )
    assert (report.selected, report.answered, report.set_aside, report.exit_code) == (7, 4, 3, 3)
    listed = (tmp_path / "results" / "failed.csv").read_text()
    assert "has no sealed pyramid of scene s001" in listed
    assert "Scene s002" in listed
    assert "Site grey has 1 bands of uint8, but the bundle was trained on 3 of uint8." in listed


def noise_where_unread(archive: Archive, scene_id: str, read: set[Tile]) -> int:
    """Overwrite every chunk that no tile of `read` is made of; gives how many."""
    replaced = 0
    half = archive.settings.half_px
    for level in range(archive.reader(scene_id).spec.levels):
        array = zarr.open_array(archive.scenes / scene_id / str(level) / "data", mode="r+")
        pixels = np.asarray(array[:])
        chunks = {(t.row + i, t.col + j) for t in read if t.level == level for i in (0, 1) for j in (0, 1)}
        for row in range(-(-pixels.shape[1] // half)):
            for col in range(-(-pixels.shape[2] // half)):
                if (row, col) not in chunks:
                    part = pixels[:, row * half : row * half + half, col * half : col * half + half]
                    part[:] = random_pixels(row * 100 + col, part.shape[1:])
                    replaced += 1
        array[:] = pixels
    return replaced


def test_noise_in_every_unread_chunk_leaves_the_answer_bit_identical(tmp_path: Path) -> None:
    archive = create_archive(tmp_path / "archive", SETTINGS)
    source = write_raster(tmp_path / "scene.tif", random_pixels(3, (512, 512)))
    build_scene(str(source), "scene", archive.path, SETTINGS)
    classifier = Classifier(small_bundle(1, walk=WalkSettings(keep=(2, 1, 1))))
    site = Site("one", str(source), "scene")
    (before,) = classifier.answer(archive, [site])
    assert isinstance(before, Answer)
    read = {look.tile for look in before.trail.looks}
    assert noise_where_unread(archive, "scene", read) > 1000
    (after,) = classifier.answer(archive, [site])
    assert after == before
    (elsewhere,) = Classifier(
        small_bundle(1, walk=WalkSettings(policy="random", keep=(2, 1, 1), seed=5))
    ).answer(archive, [site])
    assert elsewhere != before  # the noise is there to be seen by who looks at it


def test_evidence_and_bias_sum_to_the_logit(tiny: TinyArchive) -> None:
    classifier = Classifier(small_bundle(2))
    for answer in classifier.answer(tiny.archive, tiny.manifest.sites):
        assert isinstance(answer, Answer)
        best = classifier.classes.index(answer.label)
        total = answer.bias + sum(look.evidence for look in answer.trail.looks)
        assert total == pytest.approx(answer.logits[best], abs=1e-5)
        assert sum(answer.probabilities) == pytest.approx(1)


def test_failures_and_answers_come_in_the_order_of_the_sites(tiny: TinyArchive) -> None:
    sites = list(tiny.manifest.sites[:5])
    for n in (0, 3):
        sites[n] = Site(sites[n].site_id, sites[n].scene, "absent")
    outcomes = list(Classifier(small_bundle()).answer(tiny.archive, sites))
    assert [outcome.site_id for outcome in outcomes] == [site.site_id for site in sites]
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [True, False, False, True, False]


def test_pictures_in_memory_get_the_answers_that_an_archive_of_them_gets(tiny: TinyArchive) -> None:
    classifier = Classifier(small_bundle(3))
    site = tiny.manifest.sites[0]
    (stored,) = classifier.answer(tiny.archive, [site])
    assert isinstance(stored, Answer)
    image = np.asarray(zarr.open_array(tiny.archive.scenes / site.scene_id / "0" / "data", mode="r")[:])
    found = classifier.classify(image.transpose(1, 2, 0)[None])
    assert found.labels == (stored.label,)
    np.testing.assert_array_equal(found.logits[0], np.float32(stored.logits))
    looked = [(look.tile.level, look.tile.row, look.tile.col) for look in stored.trail.looks]
    assert [step[:3] for step in found.trails[0]] == looked


def test_an_archive_of_another_lattice_is_refused_before_anything_is_written(
    tiny: TinyArchive, bundle: Path, tmp_path: Path
) -> None:
    other = create_archive(tmp_path / "archive", ArchiveSettings(half_px=24))
    with pytest.raises(ArchiveMismatch) as refusal:
        classify(archive=other.path, manifest=tiny.manifest, bundle=bundle, out=tmp_path / "results")
    assert "was built with half_px 24, but half_px 16 or a divisor of it is asked for" in str(refusal.value)
    assert refusal.value.exit_code == 4
    assert not (tmp_path / "results").exists()


def test_what_was_accepted_and_what_computed_the_looks_name_the_answers(
    tiny: TinyArchive, bundle: Path, tmp_path: Path, address: str
) -> None:
    given = {
        "archive": tiny.archive.path,
        "manifest": tiny.manifest,
        "bundle": bundle,
        "out": tmp_path / "results",
        "split": "val",
        "scheduler": address,
    }
    folded, eager = classify(**given), classify(**given, runtime="eager")
    accepted = classify(**given, accept=["gsd"])
    assert len({report.run_id for report in (folded, eager, accepted)}) == 3
    assert classify(**given, accept={"gsd"}).run_id == accepted.run_id
    records = {
        name: json.loads((tmp_path / "results" / "runs" / f"{report.run_id}.json").read_text())["settings"]
        for name, report in (("folded", folded), ("eager", eager), ("accepted", accepted))
    }
    assert records["folded"]["accept"] == []
    assert records["accepted"]["accept"] == ["gsd"]
    assert records["folded"]["runtime"].startswith("folded torch-")
    assert records["eager"]["runtime"].startswith("eager torch-")


def test_what_cannot_be_accepted_or_computed_is_refused_before_anything_is_written(
    tiny: TinyArchive, bundle: Path, tmp_path: Path
) -> None:
    given = {
        "archive": tiny.archive.path,
        "manifest": tiny.manifest,
        "bundle": bundle,
        "out": tmp_path / "results",
    }
    with pytest.raises(UsageError, match="'bands' cannot be accepted"):
        classify(**given, accept=["bands"])
    with pytest.raises(UsageError, match="'gpu' is no device: take auto, cpu, cuda or one such as cuda:1"):
        classify(**given, device="gpu")
    with pytest.raises(UsageError, match="give one of them"):
        classify(**given, keep=(1,), budget=Budget(tiles=3))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeUnusable, match="this machine has 0 CUDA devices"):
            classify(**given, device="cuda")
    assert not (tmp_path / "results").exists()


def test_budgets_name_the_answers_and_end_their_walks(
    tiny: TinyArchive, bundle: Path, tmp_path: Path, address: str
) -> None:
    given = {
        "archive": tiny.archive.path,
        "manifest": tiny.manifest,
        "bundle": bundle,
        "out": tmp_path / "results",
        "split": "val",
        "scheduler": address,
    }
    whole, few = classify(**given), classify(**given, budget=Budget(tiles=2))
    wide, none = classify(**given, keep=(4,)), classify(**given, budget=Budget(deadline=0))
    assert len({report.run_id for report in (whole, few, wide, none)}) == 4
    assert (few.tiles_per_site, none.tiles_per_site) == (2, 1)
    assert none.tiles_per_site < whole.tiles_per_site < wide.tiles_per_site
    record = json.loads((tmp_path / "results" / "runs" / f"{few.run_id}.json").read_text())
    assert record["settings"]["budget"]["tiles"] == 2
    assert record["measured"]["tiles"] == record["predicted"]["tiles"] == 2 * few.answered
    again = classify(**given, budget=Budget(tiles=2))
    kept = json.loads((tmp_path / "results" / "runs" / f"{again.run_id}.json").read_text())
    assert (kept["measured"], kept["predicted"]) == (record["measured"], record["predicted"])


def test_a_finer_lattice_serves_the_bundle_with_the_same_answers(tiny: TinyArchive, tmp_path: Path) -> None:
    fine = create_archive(tmp_path / "fine", ArchiveSettings(half_px=8, shard_chunks=4))
    site = tiny.manifest.sites[4]
    build_scene(site.scene, site.scene_id, fine.path, fine.settings)
    classifier = Classifier(small_bundle())
    (ours,), (theirs,) = (list(classifier.answer(archive, [site])) for archive in (fine, tiny.archive))
    assert ours == theirs


def test_what_is_no_archive_no_bundle_or_no_results_is_refused(
    tiny: TinyArchive, bundle: Path, tmp_path: Path
) -> None:
    good = {
        "archive": tiny.archive.path,
        "manifest": tiny.manifest,
        "bundle": bundle,
        "out": tmp_path / "results",
    }
    with pytest.raises(InvalidArchive):
        classify(**{**good, "archive": tmp_path})
    with pytest.raises(InvalidBundle):
        classify(**{**good, "bundle": tmp_path})
    (tmp_path / "foreign" / "runs").mkdir(parents=True)  # a project has a folder of that name, too
    (tmp_path / "foreign" / "letter.txt").write_text("dear reader")
    with pytest.raises(OutputExists):
        classify(**{**good, "out": tmp_path / "foreign"})
    with pytest.raises(InvalidManifest, match="no site in split 'val'"):
        classify(**{**good, "manifest": tiny.manifest.select("test"), "split": "val"})
    assert not (tmp_path / "results").exists()
