"""A whole run: what it keeps, how it goes on, what it refuses."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.archives import TinyArchive
from tests.learning_runs import Interrupted, StopAt, figures, run
from tnet_geo.errors import InvalidRunFile, OutputExists
from tnet_geo.inference import load_bundle
from tnet_geo.learning import calibration
from tnet_geo.learning.checkpoints import EpochRow
from tnet_geo.learning.settings import RunSettings, read_run
from tnet_geo.model import read_bundle

BUNDLES = ("bundle", "rivals/root", "rivals/random", "rivals/dense")


@pytest.fixture(scope="module")
def finished(
    tiny: TinyArchive, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunSettings, Sequence[EpochRow]]:
    settings = tiny.settings(tmp_path_factory.mktemp("run") / "undisturbed")
    return settings, run(tiny, settings)


def test_every_stage_is_validated_after_every_epoch_with_its_tiles(
    finished: tuple[RunSettings, Sequence[EpochRow]],
) -> None:
    rows = finished[1]
    stages = ["dense", "location", "location", "joint", "root", "root", "random", "random"]
    assert [row.stage for row in rows] == stages
    tiles = {row.stage: row.tiles for row in rows}
    assert tiles["dense"] == 4
    assert tiles["root"] == 1
    assert 1 < tiles["location"] <= 3


def test_the_bundle_kept_is_the_best_over_all_stages(
    finished: tuple[RunSettings, Sequence[EpochRow]],
) -> None:
    settings, rows = finished
    best = max((row.accuracy, -row.loss) for row in rows if row.stage in ("location", "joint"))
    facts = read_bundle(settings.out / "bundle").facts
    assert (facts.metrics["accuracy"], -facts.metrics["loss"]) == best
    assert facts.classes == ("meadow", "quarry", "water")


def test_every_rival_is_a_bundle_that_walks_its_own_way(
    finished: tuple[RunSettings, Sequence[EpochRow]],
) -> None:
    rivals = finished[0].out / "rivals"
    walks = {path.name: load_bundle(path).walk for path in rivals.iterdir()}
    assert {name: walk.policy for name, walk in walks.items()} == {
        "root": "location",
        "random": "random",
        "dense": "dense",
    }
    assert walks["root"].keep == ()


@pytest.mark.parametrize(
    "steps", [4, 13, 30, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 9, 19))]
)
def test_an_interrupted_run_ends_in_the_same_weights_and_the_same_log(
    tiny: TinyArchive, tmp_path: Path, finished: tuple[RunSettings, Sequence[EpochRow]], steps: int
) -> None:
    settings = finished[0].model_copy(update={"out": tmp_path / "run"})
    with pytest.raises(Interrupted):
        run(tiny, settings, StopAt(steps))
    rows = run(tiny, settings)
    assert figures(rows) == figures(finished[1])
    for bundle in BUNDLES:
        ours, theirs = (read_bundle(one.out / bundle).facts for one in (settings, finished[0]))
        assert ours.files["model.safetensors"] == theirs.files["model.safetensors"], bundle
        assert (ours.temperatures, ours.metrics) == (theirs.temperatures, theirs.metrics), bundle
        assert ours.temperatures_best_first == theirs.temperatures_best_first


def test_a_run_stopped_while_it_calibrates_goes_on_and_fits_every_bundle_once(
    tiny: TinyArchive,
    tmp_path: Path,
    finished: tuple[RunSettings, Sequence[EpochRow]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, measured = (
        finished[0].model_copy(update={"out": tmp_path / "run"}),
        calibration.calibration_error,
    )
    calls: list[int] = []

    def stopped(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
        """Asked twice for each bundle, before and after: the third bundle is fitted, and not saved."""
        calls.append(len(labels))
        if len(calls) == 5:
            raise Interrupted
        return measured(probabilities, labels)

    monkeypatch.setattr(calibration, "calibration_error", stopped)
    with pytest.raises(Interrupted):
        run(tiny, settings)
    run(tiny, settings)
    assert len(calls) == 2 * 2 + 1 + 2 * 2  # two, one that was stopped, and the two that were left
    run(tiny, settings)
    assert len(calls) == 9
    for bundle in BUNDLES:
        ours, theirs = (read_bundle(one.out / bundle).facts for one in (settings, finished[0]))
        assert (ours.temperatures, ours.metrics) == (theirs.temperatures, theirs.metrics), bundle
        assert ours.temperatures_best_first == theirs.temperatures_best_first


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(
    tiny: TinyArchive, finished: tuple[RunSettings, Sequence[EpochRow]]
) -> None:
    settings, rows = finished
    assert figures(run(tiny, settings, StopAt(0))) == figures(rows)
    with pytest.raises(OutputExists, match="other settings"):
        run(tiny, settings.model_copy(update={"seed": 1}))


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(
    tiny: TinyArchive, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("dear reader")
    with pytest.raises(OutputExists, match="no run"):
        run(tiny, tiny.settings(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def write_run(path: Path, text: str) -> Path:
    path.write_text('out = "run"\n[data]\nmanifest = "sites.parquet"\narchive = "archive"\n' + text)
    return path


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.toml", "[dense]\nepoch = 3\n")
    with pytest.raises(InvalidRunFile) as refusal:
        read_run(path)
    assert str(refusal.value) == f"Run file {path} has the unknown key [dense] epoch: did you mean 'epochs'."
    assert refusal.value.exit_code == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[joint]\nwalks = 1\n", "[joint] walks: Input should be greater than or equal to 2"),
        ("[model]\nbase_px = 30\n", "[model] base_px: Input should be a multiple of 4"),
        ("[dense\n", "is not TOML"),
    ],
)
def test_an_impossible_value_is_refused_by_its_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidRunFile) as refusal:
        read_run(write_run(tmp_path / "run.toml", text))
    assert said in str(refusal.value)


def test_a_run_file_that_is_missing_or_names_an_unknown_backbone_is_refused(
    tiny: TinyArchive, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRunFile, match="cannot be read"):
        read_run(tmp_path / "none.toml")
    with pytest.raises(InvalidRunFile, match="unknown backbone 'plane'"):
        run(tiny, tiny.settings(tmp_path / "run", model={"base_px": 32, "backbone": "plane"}))
    assert not (tmp_path / "run").exists()


def test_the_resolved_settings_are_written_into_the_run(
    finished: tuple[RunSettings, Sequence[EpochRow]],
) -> None:
    written = tomllib.loads((finished[0].out / "run.toml").read_text())
    assert written["dense"]["rate"] == 3e-3
    assert written["location"]["pool_steps"] == 10
