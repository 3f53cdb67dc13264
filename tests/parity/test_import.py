"""Weights of the published code become bundles, all of them or none, and every leftover is named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.checkpoints import variable, write
from tests.parity.conftest import Numbers
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.errors import InvalidCheckpoint, OutputExists, UsageError
from tnet_geo.model import TraversalNetwork, read_bundle
from tnet_geo.model.named import named_model
from tnet_geo.model.published import load_published, published_layout, published_names, read_variables
from tnet_geo.model.tensor_bundle import read_checkpoint
from tnet_geo.operations import import_model, verify_bundle

ROWS = "location_prediction/height_scaling/kernel"
HEAD = "feature_extraction/top/conv2d/kernel"


@pytest.fixture(scope="module")
def variables() -> dict[str, np.ndarray]:
    """What the published trainer would save of a freshly made TNet for fMoW."""
    torch.manual_seed(0)
    network = TraversalNetwork(named_model("tnet_fmow").network)
    with torch.no_grad():
        for weight in network.state_dict().values():
            if weight.is_floating_point():
                weight.uniform_(0.1, 1)
    state = network.state_dict()
    found = {name: published_layout(name, state[ours]) for ours, name in published_names(network).items()}
    return found | {"baseline_var": np.array(0.375, np.float32)}


def saved(variables: Mapping[str, np.ndarray], folder: Path) -> Path:
    return write(folder / "ckpt-42", dict(variable(*pair) for pair in variables.items()), rows_a_block=50)


def refusal(variables: Mapping[str, np.ndarray], folder: Path, kind: str = "tnet-fmow") -> str:
    """What is said of these variables; nothing is written."""
    np.savez(folder / "weights.npz", **variables)
    with pytest.raises(InvalidCheckpoint) as error:
        import_model(folder / "weights.npz", kind, folder / "bundle")
    assert error.value.exit_code == 4
    assert not (folder / "bundle").exists()
    return str(error.value)


def test_a_checkpoint_and_an_npz_become_the_same_bundle_and_nothing_is_lost(
    variables: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "weights.npz", **variables)
    checkpoint = saved(variables, tmp_path / "run")
    for source, name in ((checkpoint, "a"), (tmp_path / "weights.npz", "b")):
        report = import_model(source, "tnet-fmow", tmp_path / name)
        assert (report.variables, report.parameters) == (328, 4_517_575)
    one, other = read_bundle(tmp_path / "a"), read_bundle(tmp_path / "b")
    state = one.network.state_dict()
    for name, tensor in other.network.state_dict().items():
        assert torch.equal(tensor, state[name])
    for ours, published in published_names(one.network).items():
        np.testing.assert_array_equal(published_layout(published, state[ours]), variables[published])
    assert one.facts.training["reward_baseline"] == 0.375
    assert one.facts.training["checkpoint"] == "ckpt-42"


def test_the_bundle_has_the_published_classes_canvas_and_walk(
    variables: dict[str, np.ndarray], tmp_path: Path
) -> None:
    import_model(saved(variables, tmp_path), "tnet-fmow", tmp_path / "bundle")
    facts = read_bundle(tmp_path / "bundle").facts
    assert (len(facts.classes), facts.classes[42], facts.classes[61]) == (
        62,
        "impoverished_settlement",
        "zoo",
    )
    assert "false_detection" not in facts.classes
    assert (facts.canvas, facts.reduction) == ("fit:896", "central")
    walk = facts.walk
    assert (walk.keep, walk.duplicates, walk.order) == ((2, 1), "twice", "window")


@pytest.mark.parametrize(("canvas_px", "keep"), [(448, (2,)), (896, (2, 1)), (1792, (2, 1, 1))])
def test_the_canvas_decides_how_deep_walks_go(
    variables: dict[str, np.ndarray], tmp_path: Path, canvas_px: int, keep: tuple[int, ...]
) -> None:
    import_model(saved(variables, tmp_path), "tnet-fmow", tmp_path / "bundle", canvas_px=canvas_px)
    facts = read_bundle(tmp_path / "bundle").facts
    assert (facts.canvas, facts.walk.keep, facts.network.depths) == (f"fit:{canvas_px}", keep, len(keep) + 1)
    assert facts.network.base_px == 224
    if canvas_px == 448:
        named = named_model("tnet_fmow_448")
        assert (facts.walk, facts.network.depths) == (named.walk, named.network.depths)


def test_the_dense_baseline_takes_the_variables_that_it_has(
    variables: dict[str, np.ndarray], tmp_path: Path
) -> None:
    own = {name: array for name, array in variables.items() if name.startswith("feature_extraction/")}
    report = import_model(saved(own, tmp_path), "efficientnet-fmow", tmp_path / "bundle", canvas_px=448)
    assert (report.variables, report.parameters) == (311, 4_086_970)
    facts = read_bundle(tmp_path / "bundle").facts
    assert (facts.canvas, facts.network.base_px, facts.walk.keep) == ("fit:448", 448, ())


def test_every_missing_unexpected_and_misshapen_variable_is_named(
    variables: dict[str, np.ndarray], tmp_path: Path
) -> None:
    wrong = dict(variables) | {"feature_extraction/extra/bias": np.zeros(3), "iterations": np.zeros(())}
    wrong[HEAD] = np.zeros((1, 1, 320, 1408))
    del wrong["feature_posBurn/linear/bias"], wrong["feature_extraction/part8_block1/se/conv2d_2/bias"]
    said = refusal(wrong, tmp_path)
    assert said.startswith(
        f"Checkpoint {tmp_path / 'weights.npz'} lacks feature_extraction/part8_block1/se/conv2d_2/bias, "
        "feature_posBurn/linear/bias; has unexpected feature_extraction/extra/bias, iterations; "
        f"has misshapen {HEAD} (1x1x320x1408 instead of 1x1x320x1280)"
    )


def test_a_checkpoint_of_the_other_kind_is_refused_with_all_that_tells_them_apart(
    variables: dict[str, np.ndarray], tmp_path: Path
) -> None:
    said = refusal(variables, tmp_path, "efficientnet-fmow")
    apart = {name for name in variables if not name.startswith("feature_extraction/")}
    assert len(apart) == 17
    assert all(name in said for name in apart)
    assert "lacks" not in said


@pytest.mark.parametrize(
    "scope", ["", "TNet/location_prediction/", "location_prediction/location_prediction/"]
)
def test_coordinates_are_found_whatever_scope_keras_gave_them(
    variables: dict[str, np.ndarray], scope: str
) -> None:
    moved = {
        scope + name.removeprefix("location_prediction/") if "_scaling/" in name else name: array
        for name, array in variables.items()
    }
    network = TraversalNetwork(named_model("tnet_fmow").network)
    load_published(network, moved, origin="weights")
    assert network.location.rows.weight.item() == variables[ROWS].item()


def test_two_variables_of_one_coordinate_are_not_taken_for_one(variables: dict[str, np.ndarray]) -> None:
    network = TraversalNetwork(named_model("tnet_fmow").network)
    for other in ("elsewhere/height_scaling/kernel", "height_scaling/kernel"):
        with pytest.raises(InvalidCheckpoint, match=f"has unexpected {other}:"):
            load_published(network, variables | {other: variables[ROWS]}, origin="weights")


def test_a_refused_import_leaves_the_network_as_it_was(variables: dict[str, np.ndarray]) -> None:
    network = TraversalNetwork(named_model("tnet_fmow").network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InvalidCheckpoint):
        load_published(network, variables | {"extra": np.zeros(1, np.float32)}, origin="weights")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_an_npz_that_holds_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (tmp_path / "ran").write_text, ("",)

    np.savez(tmp_path / "weights.npz", hostile=np.array([Code()], dtype=object))
    with pytest.raises(InvalidCheckpoint, match="cannot be read"):
        import_model(tmp_path / "weights.npz", "tnet-fmow", tmp_path / "bundle")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "weights.npz").read_bytes()[:100])
    with pytest.raises(InvalidCheckpoint, match="cannot be read"):
        import_model(tmp_path / "cut.npz", "tnet-fmow", tmp_path / "bundle")
    assert not (tmp_path / "ran").exists()


def test_kinds_and_canvases_that_are_not_there_are_wrong_command_lines(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tnet-cub is no kind of published weights: name one of tnet-fmow"):
        import_model(tmp_path, "tnet-cub", tmp_path / "bundle")
    for canvas_px in (224, 449, 672, 0):
        with pytest.raises(UsageError, match=f"no canvas of {canvas_px} px: its sides are 448, 896, 1792"):
            import_model(tmp_path, "tnet-fmow", tmp_path / "bundle", canvas_px=canvas_px)
    with pytest.raises(UsageError, match="no canvas of 223 px: its sides are the even numbers"):
        import_model(tmp_path, "efficientnet-fmow", tmp_path / "bundle", canvas_px=223)


def test_an_output_that_is_there_is_left_alone(variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputExists):
        import_model(saved(variables, tmp_path), "tnet-fmow", tmp_path / "bundle")
    assert not list((tmp_path / "bundle").iterdir())


def test_the_verb_imports_and_reports(
    variables: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = saved(variables, tmp_path / "run").parent, tmp_path / "bundle"
    words = ["model", "import", str(checkpoint), "--kind", "tnet-fmow", "-o", str(out), "--json"]
    assert run(app, words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["variables"], report["canvas"], report["classes"]) == (328, "fit:896", 62)
    assert run(app, words) == 4
    assert "exists already" in capsys.readouterr().err


# What the published trainer really wrote.


def test_the_real_checkpoint_is_read_bit_for_bit(parity: Path, numbers: Numbers) -> None:
    found, expected = read_checkpoint(parity / "checkpoint_tnet_fmow"), numbers("weights_tnet_fmow")
    assert set(found) == set(expected)
    assert len(found) == 328
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_a_bundle_of_the_real_checkpoint_verifies(bundle_of: Callable[[int], Path]) -> None:
    report = verify_bundle(bundle_of(448))
    assert (report.exit_code, report.findings) == (0, ())


def test_a_real_checkpoint_with_slots_gives_its_variables_alone(parity: Path, tmp_path: Path) -> None:
    source = parity / "checkpoint_with_slots" / "ckpt-1"
    assert len(read_variables(source)) == 16
    with pytest.raises(InvalidCheckpoint) as error:
        import_model(source, "tnet-fmow", tmp_path / "bundle")
    lacking = str(error.value).partition(" lacks ")[2].partition(": name the kind")[0].split(", ")
    assert len(lacking) == 311
    assert "feature_posBurn/linear/bias" in lacking
    assert "unexpected" not in str(error.value)


def test_every_row_of_the_published_table_of_names_is_one_of_ours(parity: Path) -> None:
    with (parity.parent / "reference" / "tnet_fmow_weight_map.tsv").open(encoding="utf-8") as file:
        rows = {row["variable"]: row for row in csv.DictReader(file, delimiter="\t")}
    network = TraversalNetwork(named_model("tnet_fmow").network)
    names, state, trained = published_names(network), network.state_dict(), dict(network.named_parameters())
    assert set(names.values()) == set(rows) - {"baseline_var"}
    for ours, published in names.items():
        shape = "x".join(str(size) for size in published_layout(published, state[ours]).shape)
        assert (shape, "yes" if ours in trained else "no") == (
            rows[published]["shape"],
            rows[published]["trainable"],
        )
