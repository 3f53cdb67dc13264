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

SMALLEST = "test_efficientnet"
LARGER = "mobilenetv3_small_050"


def weights_of(name: str, folder: Path) -> Path:
    """Of a whole classifier of 1000 classes, as timm publishes them."""
    torch.manual_seed(21)
    path = folder / "model.safetensors"
    save_file(timm_library().create_model(name).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [
        (SMALLEST, "per_depth"),
        *(pytest.param(LARGER, norm, marks=pytest.mark.slow) for norm in ("per_depth", "shared", "by_depth")),
    ],
)
def test_a_run_from_pretrained_weights_ends_in_a_bundle_that_walks(
    tiny: TinyArchive, tmp_path: Path, name: str, batch_norm: str
) -> None:
    model = {
        "backbone": f"timm/{name}",
        "weights": weights_of(name, tmp_path),
        "base_px": 32,
        "batch_norm": batch_norm,
        "drop_path": 0.2,
        "norm_momentum": 0.05,
    }
    run(tiny, tiny.settings(tmp_path / "run", model=model, location={"epochs": 0}, rivals={"train": ()}))
    network = read_bundle(tmp_path / "run" / "bundle").network
    assert network.settings.batch_norm == batch_norm
    assert network.settings.pixels.mean == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    answer = load_bundle(tmp_path / "run" / "bundle").classify(images)
    assert answer.logits.shape == (2, 3)
    assert [len(trail) for trail in answer.trails] == [3, 3]


def test_weights_for_a_backbone_that_is_not_timms_are_refused(tiny: TinyArchive, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    settings = tiny.settings(
        tmp_path / "run", model={"base_px": 32, "weights": tmp_path / "model.safetensors"}
    )
    with pytest.raises(InvalidRunFile, match="gives weights to backbone 'plain': weights are for timm/NAME"):
        run(tiny, settings)
