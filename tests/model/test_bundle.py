"""Bundles: what is saved is what comes back, and nothing else loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.networks import small_bundle, small_network
from tests.rasters import random_pixels
from tnet_geo.errors import InvalidBundle, InvalidRunFile, OutputExists, SiteMismatch
from tnet_geo.inference import Classifier, load_bundle
from tnet_geo.model import NetworkSettings, TraversalNetwork, read_bundle
from tnet_geo.model.location import child_pooling


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return small_bundle(4).save(tmp_path / "bundle")


def images(count: int = 3) -> np.ndarray:
    return np.stack([random_pixels(seed, (128, 96)).transpose(1, 2, 0) for seed in range(count)])


def test_a_saved_bundle_gives_bit_identical_answers(saved: Path) -> None:
    before = Classifier(small_bundle(4)).classify(images())
    after = load_bundle(saved).classify(images())
    np.testing.assert_array_equal(before.logits, after.logits)
    assert before.labels == after.labels
    assert before.trails == after.trails
    np.testing.assert_allclose(after.probabilities.sum(axis=1), 1, rtol=1e-6)


def test_a_bundle_is_two_files_and_neither_can_hold_code(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["bundle.toml", "model.safetensors"]


def test_a_bundle_is_never_overwritten_unasked_and_replaced_whole_when_asked(saved: Path) -> None:
    with pytest.raises(OutputExists):
        small_bundle(5).save(saved)
    small_bundle(5).save(saved, replace=True)
    expected = small_network(5).classifier.weight
    assert torch.equal(read_bundle(saved).network.classifier.weight, expected)
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1", "version = 7", "has format version 7, this tnet-geo reads version 1"),
        ("classes = 3", "classes = 4", "has weights that do not load"),
        ("[network]", "[network]\ncolour = 1", "has a wrong entry network.colour"),
        ("weights_sha256 =", "weights_sha1 =", "has a wrong entry weights_sha1"),
        ("[network", "[[network", "has no readable bundle.toml"),
    ],
)
def test_another_version_or_a_changed_entry_is_refused_by_name(
    saved: Path, old: str, new: str, said: str
) -> None:
    facts = saved / "bundle.toml"
    text = facts.read_text()
    assert old in text
    facts.write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidBundle) as refusal:
        read_bundle(saved)
    assert said in str(refusal.value)
    assert refusal.value.exit_code == 4


def test_damaged_weights_and_an_empty_folder_are_refused(saved: Path, tmp_path: Path) -> None:
    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InvalidBundle, match="damaged weights"):
        read_bundle(saved)
    with pytest.raises(InvalidBundle, match=r"no readable bundle\.toml"):
        read_bundle(tmp_path)


def test_pictures_of_other_bands_or_types_are_refused_by_both_sides_names() -> None:
    classifier = Classifier(small_bundle())
    with pytest.raises(
        SiteMismatch, match=r"image 0 has 3 bands of uint16, but the bundle was trained on 3 of uint8"
    ):
        classifier.classify(images().astype(np.uint16))


@pytest.mark.parametrize("cells", [4, 8, 14, 7])
def test_every_child_is_scored_by_the_cells_of_its_footprint(cells: int) -> None:
    fine = 28  # a multiple of four times every side: whole cells there are parts of cells here
    weights = child_pooling(cells).reshape(9, cells, cells)
    for k in range(9):
        box = torch.zeros(4 * fine, 4 * fine)
        row, col = k // 3 * fine, k % 3 * fine
        box[row : row + 2 * fine, col : col + 2 * fine] = 1
        side = 4 * fine // cells
        share = box.reshape(cells, side, cells, side).sum(dim=(1, 3))
        torch.testing.assert_close(weights[k], share / share.sum())


def test_timm_backbones_are_tapped_at_the_deepest_map_of_eight_cells() -> None:
    for base_px, cells in ((64, 8), (128, 8), (96, 12)):
        network = TraversalNetwork(
            NetworkSettings(backbone="timm/tf_efficientnet_lite0", base_px=base_px, classes=2, depths=2)
        ).eval()
        tap, end = network.backbone(torch.zeros(1, 3, base_px, base_px))
        assert tap.shape[-1] == cells
        assert tuple(end.shape) == (1, 1280)


def test_an_unknown_timm_model_is_refused_with_names_that_exist() -> None:
    with pytest.raises(InvalidRunFile, match=r"timm/efficientnet_x.*efficientnet_"):
        TraversalNetwork(NetworkSettings(backbone="timm/efficientnet_x", classes=2, depths=2))
