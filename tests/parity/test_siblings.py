"""The published siblings for ImageNet and birds are settings of the same network, and walk over pictures."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.archives import TinyArchive
from tnet_geo.errors import ArchiveMismatch
from tnet_geo.inference import Classification, Classifier
from tnet_geo.model import Bundle, BundleFacts, TraversalNetwork
from tnet_geo.model.named import named_model


@cache
def answer(name: str, side: int) -> tuple[Classifier, Classification]:
    """What a freshly made named model answers to a picture of noise."""
    named = named_model(name)
    torch.manual_seed(0)
    facts = BundleFacts(**{field: getattr(named, field) for field in type(named).model_fields})
    classifier = Classifier(
        Bundle(facts, TraversalNetwork(named.network).eval()), runtime="eager", batch_looks=1
    )
    picture = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return classifier, classifier.classify(picture)


@pytest.mark.parametrize(("name", "side", "keep"), [("tnet_imagenet", 224, 3), ("tnet_cub", 448, 5)])
def test_windows_are_chosen_among_twenty_five_of_which_none_can_be_sure(
    name: str, side: int, keep: int
) -> None:
    classifier, found = answer(name, side)
    assert classifier.walk.keep == (keep,)
    trail = found.trails[0]
    assert tuple(trail[0]) == (1, 0, 0, 1.0)
    windows = [5 * row + col for _, row, col, _ in trail[1:]]
    assert len(windows) == keep
    assert windows == sorted(set(windows))
    assert max(windows) < 25
    # Scores of unit length: what the likeliest of 25 windows can reach.
    assert all(1 / 25 < step[3] < 0.1037 for step in trail[1:])


@pytest.mark.parametrize(("name", "side"), [("tnet_imagenet", 224), ("tnet_cub", 448)])
def test_evidence_of_looks_adds_up_to_the_logit(name: str, side: int) -> None:
    classifier, found = answer(name, side)
    best = int(found.logits[0].argmax())
    bias = classifier.bundle.network.classifier.bias[best].item()
    np.testing.assert_allclose(bias + sum(found.evidence[0]), found.logits[0, best], rtol=1e-5, atol=1e-5)


def test_an_archive_cannot_serve_windows_that_do_not_lie_on_its_lattice(tiny: TinyArchive) -> None:
    classifier, _ = answer("tnet_cub", 448)
    with pytest.raises(ArchiveMismatch, match=r"3 x 3 windows of one half, but 5 x 5 windows of 0\.35"):
        classifier.check(tiny.archive)
