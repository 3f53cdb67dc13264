"""Pictures in memory: units, canvas, reduction, and what comes back."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.networks import small_bundle
from tests.rasters import random_pixels
from tnet_geo.errors import ArchiveMismatch, SiteMismatch
from tnet_geo.inference import Classifier
from tnet_geo.inference.crops import walk_crops
from tnet_geo.inference.pictures import picture_reader
from tnet_geo.model import Bundle, NetworkSettings, TraversalNetwork, WalkSettings
from tnet_geo.model.facts import BundleFacts
from tnet_geo.model.settings import LocationSettings
from tnet_geo.pyramid import MemoryReader


def images(count: int = 2, side: int = 128) -> np.ndarray:
    return np.stack([random_pixels(seed, (side, side)).transpose(1, 2, 0) for seed in range(count)])


def with_facts(**facts: object) -> Bundle:
    bundle = small_bundle()
    return replace(bundle, facts=bundle.facts.model_copy(update=facts))


def test_trails_begin_at_the_root_and_evidence_adds_up() -> None:
    bundle = small_bundle(walk=WalkSettings(keep=(2, 1)))
    found = Classifier(bundle).classify(images())
    assert found.logits.shape == found.probabilities.shape == (2, 3)
    for n, (trail, evidence) in enumerate(zip(found.trails, found.evidence, strict=True)):
        assert trail[0] == (2, 0, 0, 1.0)
        assert [step.level for step in trail] == [2, 1, 1, 0, 0][: len(trail)]
        best = int(found.logits[n].argmax())
        bias = bundle.network.classifier.bias[best].item()
        assert sum(evidence) + bias == pytest.approx(float(found.logits[n, best]), abs=1e-5)


def test_floats_are_taken_in_the_bundles_units_or_from_zero_to_one() -> None:
    classifier = Classifier(small_bundle())
    expected = classifier.classify(images()).logits
    same, shares = images().astype(np.float64), images() / 255
    # archives round every level to whole numbers, floats are not rounded
    np.testing.assert_allclose(classifier.classify(same).logits, expected, atol=0.05)
    np.testing.assert_allclose(
        classifier.classify(shares).logits, classifier.classify(same).logits, atol=1e-4
    )


def test_no_pictures_are_no_answers() -> None:
    found = Classifier(small_bundle()).classify(images()[:0])
    assert found.logits.shape == (0, 3)
    assert found.trails == ()


def test_a_single_picture_without_its_batch_is_refused_by_its_shape() -> None:
    with pytest.raises(SiteMismatch, match=r"the shape \(128, 128, 3\)"):
        Classifier(small_bundle()).classify(images()[0])


def test_a_canvas_fits_pictures_of_any_size_into_its_square() -> None:
    facts = with_facts(canvas="fit:64").facts
    reader = picture_reader(random_pixels(1, (150, 90)).transpose(1, 2, 0), facts)
    assert reader.spec.shape == (64, 64)
    already = random_pixels(2, (64, 64))
    np.testing.assert_array_equal(picture_reader(already.transpose(1, 2, 0), facts).level(0)[0], already)


def test_a_published_canvas_is_interpolated_without_antialiasing_and_without_rounding() -> None:
    facts = with_facts(canvas="fit:64", reduction="central").facts
    picture = random_pixels(1, (150, 90))
    found = picture_reader(picture.transpose(1, 2, 0), facts).level(0)[0]
    rows, cols = (np.clip((np.arange(64) + 0.5) * side / 64 - 0.5, 0, side - 1) for side in (150, 90))
    row, col = rows.astype(int), cols.astype(int)  # by the definition, at one pixel after another
    for y, x in ((0, 0), (13, 40), (63, 63)):
        down, across = rows[y] - row[y], cols[x] - col[x]
        square = picture[:, row[y] :, col[x] :][:, :2, :2].astype(np.float64)
        square = np.pad(square, ((0, 0), (0, 2 - square.shape[1]), (0, 2 - square.shape[2])), mode="edge")
        pair = square[:, :, 0] * (1 - across) + square[:, :, 1] * across
        expected = pair[:, 0] * (1 - down) + pair[:, 1] * down
        np.testing.assert_allclose(found[:, y, x], expected, atol=1e-3)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_central_reduction_is_bilinear_interpolation_without_antialiasing(level: int) -> None:
    pixels = random_pixels(4, (128, 128)).astype(np.float32)
    reader = MemoryReader.central(pixels, half_px=8)
    side = 128 >> level
    expected = functional.interpolate(
        torch.from_numpy(pixels)[None], (side, side), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(reader.level(level)[0], expected[0], atol=1e-4)


def test_windows_off_the_lattice_are_cropped_and_no_archive_serves_them() -> None:
    torch.manual_seed(0)
    settings = NetworkSettings(
        base_px=64,
        classes=3,
        depths=2,
        location=LocationSettings(form="cells", cells=(0, 1, 3, 5, 7), fraction=0.35),
    )
    network = TraversalNetwork(settings).eval()
    walk = WalkSettings(keep=(3,), duplicates="twice", order="window")
    facts = BundleFacts(classes=("a", "b", "c"), canvas="fit:128", network=settings, walk=walk)
    classifier = Classifier(Bundle(facts, network))
    found = classifier.classify(images())
    assert all(len(trail) == 4 and trail[0].probability == 1 for trail in found.trails)
    pixels = torch.from_numpy(images()[0].transpose(2, 0, 1).copy())[None]
    alone = walk_crops(network, network.scale(pixels, torch.ones(1, 128, 128))[0], walk)
    np.testing.assert_allclose(alone.output.logits[0], found.logits[0], atol=1e-6)
    with pytest.raises(ArchiveMismatch, match="5 x 5 windows"):
        classifier.check(SimpleNamespace(place="archive"))  # type: ignore[arg-type]
