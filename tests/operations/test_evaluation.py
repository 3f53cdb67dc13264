"""The walk beside its rivals."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tests.archives import TinyArchive
from tnet_geo.errors import InvalidManifest, InvalidRunFile, OutputExists, UsageError
from tnet_geo.grid import Tile
from tnet_geo.inference import Budget
from tnet_geo.model import WalkSettings, read_bundle
from tnet_geo.operations import evaluate
from tnet_geo.operations.judging.contest import Contest, Contestant
from tnet_geo.operations.judging.curve import CurvePoint, grid_of
from tnet_geo.operations.training import TrainReport, train_with
from tnet_geo.trail import Answer, Look, Trail


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


def whole_walks(depths: int, looks: int, size: int) -> Contest:
    """Ten sites answered, by walks from a root `depths` above native; 0.5 s a site."""
    steps = (Look(n, 0, Tile(depths, 0, 0), None, 1.0, 0.0, 0.0) for n in range(looks))
    answer = Answer("site", "a", 1.0, (0.0,), (1.0,), 0.0, Trail(tuple(steps)), size)
    return Contest(Contestant(0.5, looks, size, 0.1, 0.5, 0.1, 0.1), [answer] * 10, [])


def test_the_settings_of_a_curve_follow_from_the_walk_alone() -> None:
    grid = grid_of(WalkSettings(keep=(2, 1, 1)), whole_walks(3, 7, 7000))
    options = {setting.family: [] for setting in grid}
    for setting in grid:
        options[setting.family].append(setting.options)
    confidences = ["0.5", "0.75", "0.875", "0.9375", "0.96875", "0.984375"]
    assert options == {
        "keep": ["--keep 1,1", "--keep 2,1", "--keep 3,1", "--keep 5,1", "--keep 9,1"],
        "tiles": [f"--tiles {count}" for count in (1, 2, 4, 8, 16, 32)],
        "stop-at": [f"--stop-at {confidence}" for confidence in confidences],
        "tiles and stop-at": [f"--tiles 32 --stop-at {confidence}" for confidence in confidences],
        "bytes": [f"--bytes {size}" for size in (1000, 2000, 4000, 8000)],
        "deadline": [f"--deadline {seconds}" for seconds in (0.625, 1.25, 2.5, 3.75)],
    }
    assert grid[2].walk.keep == (3, 1)
    assert grid[-1].budget == Budget(deadline=3.75)
    flat = grid_of(WalkSettings(), whole_walks(0, 1, 1000))
    assert [setting.options for setting in flat if setting.family in ("tiles", "bytes")] == [
        "--tiles 1",
        "--bytes 1000",
    ]


def test_the_curve_shows_the_walk_under_every_budget_and_is_drawn(
    run: tuple[Path, TrainReport], tmp_path: Path
) -> None:
    png, out, told = tmp_path / "curve.png", tmp_path / "evaluation.json", []
    found = evaluate(run[0], curve=png, out=out, progress=lambda done, total: told.append((done, total)))
    points = found.curve
    assert told[-1] == (len(points), len(points))
    picture = cv2.imread(str(png))
    assert picture is not None
    assert picture.shape[:2] == (672, 1148)
    assert len({tuple(pixel) for row in picture[::7, ::7] for pixel in row}) > 20
    by_family: dict[str, list[CurvePoint]] = {}
    for point in points:
        by_family.setdefault(point.family, []).append(point)
        assert sum(point.ended_by.values()) == found.sites
        assert point.standard_error == pytest.approx(
            (point.row.accuracy * (1 - point.row.accuracy) / found.sites) ** 0.5
        )
    walk = found.contestants["walk"]
    whole = next(point for point in by_family["keep"] if point.options == "--keep 2,1")
    assert (whole.row.accuracy, whole.row.tiles, whole.row.bytes) == (walk.accuracy, walk.tiles, walk.bytes)
    tiles = [point.row.tiles for point in by_family["tiles"]]
    assert tiles[:3] == [1, 2, 4]
    assert tiles == sorted(tiles)
    assert by_family["tiles"][0].ended_by == {"tiles": found.sites}
    assert [point.row.tiles for point in by_family["bytes"]] == [1, 2, 3]
    assert all("stop_at" not in point.ended_by for point in by_family["keep"] + by_family["tiles"])
    written = json.loads(out.read_text())
    assert [point["options"] for point in written["curve"]] == [point.options for point in points]
    assert any("--tiles 4 " in line for line in found.lines())


def test_the_walk_can_be_evaluated_under_a_budget_and_its_rivals_stay_what_they_are(
    run: tuple[Path, TrainReport],
) -> None:
    found = evaluate(run[0], budget=Budget(tiles=2))
    assert found.contestants["walk"].tiles == 2
    assert found.contestants["dense"].tiles == 4
    assert not found.curve
    assert evaluate(run[0], keep=[4]).contestants["walk"].tiles == 5
    with pytest.raises(UsageError, match="keep"):
        evaluate(run[0], keep=[4], budget=Budget(tiles=2))
    with pytest.raises(UsageError, match=r"curve\.jpg is named otherwise"):
        evaluate(run[0], curve="curve.jpg")
