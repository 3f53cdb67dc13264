"""The walk beside its rivals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.archives import TinyArchive
from tnet_geo.errors import InvalidManifest, InvalidRunFile, OutputExists
from tnet_geo.model import read_bundle
from tnet_geo.operations import evaluate
from tnet_geo.operations.training import TrainReport, train_with


@pytest.fixture(scope="module")
def run(tiny: TinyArchive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainReport]:
    """A run long enough to tell three colours apart."""
    out = tmp_path_factory.mktemp("evaluation") / "run"
    longer = {"epochs": 8, "sites_per_step": 6}
    settings = tiny.settings(out, location={**longer, "pool_steps": 40}, rivals={"root_epochs": 8})
    return out, train_with(settings)


def test_every_contestant_has_its_accuracy_and_its_cost(
    run: tuple[Path, TrainReport], tmp_path: Path
) -> None:
    out = tmp_path / "evaluation.json"
    found = evaluate(run[0], out=out)
    assert list(found.contestants) == ["walk", "root", "random", "dense"]
    assert found.sites == 6
    walk, root, dense = (found.contestants[name] for name in ("walk", "root", "dense"))
    assert (root.tiles, root.bytes, root.pixel_fraction) == (1, 32 * 32 * 3, 0.25)
    assert (dense.tiles, dense.bytes, dense.pixel_fraction) == (4, 4 * 32 * 32 * 3, 1.0)
    assert walk.bytes == walk.tiles * 32 * 32 * 3
    assert all(row.seconds > 0 for row in found.contestants.values())
    assert walk.accuracy == 1.0  # the colours differ by a hundred grey levels
    errors = [
        (row.calibration_error_before, row.calibration_error_after) for row in found.contestants.values()
    ]
    assert all(0 <= error <= 1 for pair in errors for error in pair)
    assert any(before != after for before, after in errors)
    written = json.loads(out.read_text())
    assert written["contestants"]["walk"]["accuracy"] == 1.0
    assert {"versions", "machine", "finished"} <= written.keys()


def test_the_calibration_error_on_the_sites_it_was_fitted_on_is_the_bundle_s_own(
    run: tuple[Path, TrainReport],
) -> None:
    out, report = run
    walk = evaluate(out, split="val").contestants["walk"]
    assert walk.calibration_error_before == pytest.approx(report.calibration_error_before, abs=1e-6)
    assert walk.calibration_error_after == pytest.approx(report.calibration_error_after, abs=1e-6)
    facts = read_bundle(out / "bundle").facts
    assert facts.temperature == report.temperature != 1.0
    written = json.loads((out / "run.json").read_text())
    assert written["calibration_error_after"] == facts.metrics["calibration_error_after"]


def test_the_table_by_class_adds_up(run: tuple[Path, TrainReport]) -> None:
    found = evaluate(run[0], split="val")
    assert [row.label for row in found.classes] == ["meadow", "quarry", "water"]
    assert sum(row.sites for row in found.classes) == found.sites
    recalled = sum(row.recall * row.sites for row in found.classes) / found.sites
    assert recalled == pytest.approx(found.contestants["walk"].accuracy)
    assert any("walk, by class" in line for line in found.lines())


def test_the_report_of_training_names_the_bundle_and_its_cost(run: tuple[Path, TrainReport]) -> None:
    out, report = run
    assert report.bundle == out / "bundle"
    assert report.stage in ("location", "joint")
    assert report.exit_code == 0
    assert json.loads((out / "run.json").read_text())["accuracy"] == report.accuracy


def test_what_cannot_be_evaluated_is_refused(
    run: tuple[Path, TrainReport], tiny: TinyArchive, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRunFile, match="no folder of a training run"):
        evaluate(tmp_path)
    (tmp_path / "there.json").write_text("{}")
    with pytest.raises(OutputExists):
        evaluate(run[0], out=tmp_path / "there.json")
    with pytest.raises(InvalidManifest, match="no labelled site in split 'holdout'"):
        evaluate(run[0], split="holdout")
