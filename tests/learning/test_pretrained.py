"""Runs that begin with a timm model's weights, under each way of normalising looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.archives import TinyArchive
from tests.learning_runs import run
from tnet_geo.errors import InvalidRunFile
from tnet_geo.inference import load_bundle
from tnet_geo.model import read_bundle
from tnet_geo.model.timm_backbone import timm_library

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a whole classifier of 1000 classes, as timm publishes them."""
    torch.manual_seed(21)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm_library().create_model(NAME).state_dict(), path)
    return path


@pytest.mark.parametrize(
    "batch_norm",
    ["per_depth", *(pytest.param(name, marks=pytest.mark.slow) for name in ("shared", "by_depth"))],
)
def test_a_run_from_pretrained_weights_ends_in_a_bundle_that_walks(
    tiny: TinyArchive, tmp_path: Path, weights: Path, batch_norm: str
) -> None:
    model = {
        "backbone": f"timm/{NAME}",
        "weights": weights,
        "base_px": 32,
        "batch_norm": batch_norm,
        "drop_path": 0.2,
        "norm_momentum": 0.05,
    }
    run(tiny, tiny.settings(tmp_path / "run", model=model, rivals={"train": ()}))
    network = read_bundle(tmp_path / "run" / "bundle").network
    assert network.settings.batch_norm == batch_norm
    assert network.settings.pixels.mean == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    answer = load_bundle(tmp_path / "run" / "bundle").classify(images)
    assert answer.logits.shape == (2, 3)
    assert [len(trail) for trail in answer.trails] == [3, 3]


def test_weights_for_a_backbone_that_is_not_timms_are_refused(
    tiny: TinyArchive, tmp_path: Path, weights: Path
) -> None:
    settings = tiny.settings(tmp_path / "run", model={"base_px": 32, "weights": weights})
    with pytest.raises(InvalidRunFile, match="gives weights to backbone 'plain': weights are for timm/NAME"):
        run(tiny, settings)
