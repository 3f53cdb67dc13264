"""The dense EfficientNet-B0 baseline, with the published weights, answers as the published code does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tnet_geo
from tests.parity.conftest import Numbers
from tnet_geo.grid import Window
from tnet_geo.inference import Engine, SiteTask, WalkResult
from tnet_geo.inference.pictures import picture_reader
from tnet_geo.model import read_bundle
from tnet_geo.operations import import_model


@pytest.fixture(scope="session")
def dense_weights(numbers: Numbers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variables of the published network that its dense baseline has too, as an .npz."""
    path = tmp_path_factory.mktemp("dense") / "weights.npz"
    weights = numbers("weights_tnet_fmow")
    np.savez(
        path,
        **{name: array for name, array in weights.items() if name.startswith("feature_extraction/")},
    )
    return path


def test_from_outside_the_baseline_at_224_answers_as_published(
    dense_weights: Path, numbers: Numbers, images: np.ndarray, tmp_path: Path
) -> None:
    import_model(dense_weights, "efficientnet-fmow", tmp_path / "bundle", canvas_px=224)
    found = tnet_geo.load_bundle(tmp_path / "bundle").classify(images[:, ::4, ::4])
    np.testing.assert_allclose(found.logits, numbers("dense")["logits_224"], rtol=0, atol=1e-4)
    assert [len(trail) for trail in found.trails] == [1, 1, 1]


@pytest.mark.parametrize("side", [448, 896])
def test_one_look_at_a_whole_canvas_gives_the_published_features_and_logits(
    side: int, *, dense_weights: Path, numbers: Numbers, images: np.ndarray, tmp_path: Path
) -> None:
    import_model(dense_weights, "efficientnet-fmow", tmp_path / "bundle", canvas_px=side)
    bundle, expected = read_bundle(tmp_path / "bundle"), numbers("dense")
    engine = Engine(bundle.network, bundle.facts.walk, batch_looks=1)
    window = Window(0, 0, side, side)
    tasks = [
        SiteTask(str(n), picture_reader(canvas, bundle.facts), window)
        for n, canvas in enumerate(images[:, :: 896 // side, :: 896 // side])
    ]
    results = [result for result in engine.walk(tasks) if isinstance(result, WalkResult)]
    features = torch.cat([result.walk.features for result in results]).numpy()
    logits = torch.cat([result.output.logits for result in results]).numpy()
    np.testing.assert_allclose(features, expected[f"pooled_{side}"], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(logits, expected[f"logits_{side}"], rtol=0, atol=1e-4)
