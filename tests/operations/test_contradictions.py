"""A bundle trained on real georeferenced sixteen bits, asked about imagery that it was not made for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archives import TinyArchive, tiny_archive
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.learning.calibration import AFTER
from tnet_geo.model import BundleFacts, read_bundle
from tnet_geo.operations import classify, evaluate
from tnet_geo.operations.cluster import cluster
from tnet_geo.operations.training import train_with
from tnet_geo.results import Results

SCALE = 16.0
"""Pixels up to 219 become numbers of twelve bits, as satellites deliver them."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """One worker that all tests of this file share."""
    with cluster(1, None) as client:
        yield client.scheduler.address


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyArchive, Path]:
    """An archive of twelve bits at half a metre, and a run over it that lasts seconds."""
    folder = tmp_path_factory.mktemp("twelve")
    tiny = tiny_archive(folder, scale=SCALE)
    train_with(tiny.settings(folder / "run", location={"epochs": 6, "sites_per_step": 6, "pool_steps": 40}))
    return tiny, folder / "run"


def facts_of(bundle: Path) -> BundleFacts:
    return read_bundle(bundle).facts


def test_every_bundle_of_a_run_says_what_ground_it_has_seen(trained: tuple[TinyArchive, Path]) -> None:
    for bundle in ("bundle", "rivals/root", "rivals/random", "rivals/dense"):
        facts = facts_of(trained[1] / bundle)
        assert facts.gsd_m == pytest.approx((0.5, 0.5), rel=1e-3)
        # Two bands of noise up to 119 and one a hundred above, times sixteen.
        assert facts.value_range == pytest.approx((0, 218 * SCALE), abs=2 * SCALE)
        assert facts.value_peaks is not None
        dimmest, brightest = facts.value_peaks
        assert 180 * SCALE < dimmest <= brightest <= 219 * SCALE
        assert AFTER in facts.metrics


def test_training_sites_never_contradict_their_own_bundle(
    trained: tuple[TinyArchive, Path], tmp_path: Path, address: str
) -> None:
    tiny, folder = trained
    report = classify(
        archive=tiny.archive.path,
        manifest=tiny.manifest,
        bundle=folder / "bundle",
        out=tmp_path / "results",
        scheduler=address,
    )
    assert (report.answered, report.set_aside) == (36, 0)


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ({"scale": 256.0}, ("value_range", "has values up to 4")),
        ({"scale": 1.0}, ("value_range", "has values up to 1")),
        ({"scale": SCALE, "pixel_m": 10.0}, ("gsd", "has pixels of 10 m, but the bundle was trained on")),
        ({"scale": None}, ("dtype", "has 3 bands of uint8, but the bundle was trained on 3 of uint16")),
    ],
)
def test_imagery_of_another_kind_is_set_aside_site_by_site_unless_it_is_accepted(
    trained: tuple[TinyArchive, Path],
    tmp_path: Path,
    address: str,
    made: dict[str, Any],
    found: tuple[str, str],
) -> None:
    word, said = found
    other, out = tiny_archive(tmp_path, sites=3, **made), tmp_path / "results"
    place = ["--archive", str(other.archive.path), "--manifest", other.manifest.path, "-o", str(out)]
    typed = ["classify", *place, "--bundle", str(trained[1] / "bundle"), "--scheduler", address]
    assert run(app, typed) == 3
    reasons = dict(Results.open(out).failures())
    assert sorted(reasons) == ["site000", "site001", "site002"]
    way_out = f"(--accept {word} takes it as it is)"
    assert not [reason for reason in reasons.values() if said not in reason or way_out not in reason]
    accepted = [word, "value_range"] if word == "dtype" else [word]
    assert run(app, [*typed, *(f"--accept={one}" for one in accepted)]) == 0
    assert len(Results.open(out).query("SELECT * FROM predictions")) == 3


def test_an_archive_of_another_canvas_is_refused_before_anything_is_written(
    trained: tuple[TinyArchive, Path], tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny, folder = trained
    fitted = tmp_path / "fitted"
    canvas = ["--canvas", "fit:64", "--half-px", "16", "--scheduler", address]
    assert run(app, ["pyramid", "build", tiny.manifest.path, "-o", str(fitted), *canvas]) == 0
    typed = ["--archive", str(fitted), "--manifest", tiny.manifest.path, "-o", str(tmp_path / "results")]
    capsys.readouterr()
    assert run(app, ["classify", "--bundle", str(folder / "bundle"), *typed]) == 4
    said = capsys.readouterr().err
    assert "canvas fit:64, but canvas native (or --accept canvas) is asked for" in said
    assert not (tmp_path / "results").exists()
    assert evaluate(folder, archive=fitted, accept=["canvas"]).sites == 6
