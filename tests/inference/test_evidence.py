"""Evidence is exact: bias and shares are the logit, within what float32 loses when it adds them up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.networks import small_network
from tests.rasters import random_pixels
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.inference.budgets import NO_BUDGET, Budget
from tnet_geo.inference.classifier import Classifier
from tnet_geo.model import Bundle, BundleFacts, WalkSettings
from tnet_geo.pyramid import MemoryReader, TileReader
from tnet_geo.trail import Answer

UNIT = 2.0**-24
"""Half the distance from 1 to the next float32."""
AGGREGATIONS = ("mean", "feature_weighting", "gated_attention", "ltpa")
BUDGETS = {
    "keep": NO_BUDGET,
    "tiles": Budget(tiles=40),
    "stop_at": Budget(stop_at=0.5),
    "bytes": Budget(bytes=6 * 4 * 16 * 16 * 3),
    "deadline": Budget(deadline=0.0),
}


class OneScene:
    """An archive of one scene in memory."""

    place, canvas = "memory", "native"

    def __init__(self, reader: TileReader) -> None:
        self._reader = reader

    def check_lattice(self, half_px: int) -> None:
        assert half_px == self._reader.spec.half_px

    def adopt(self, site: Site) -> Site:
        return site

    def reader(self, scene_id: str, half_px: int | None = None) -> TileReader:
        return self._reader

    def digest(self, scene_id: str) -> str | None:
        return None


@pytest.fixture(scope="module")
def scene() -> OneScene:
    return OneScene(MemoryReader.of(random_pixels(9, (300, 420)), 16))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_bias_and_evidence_are_the_logit_for_every_aggregation_and_budget(
    aggregation: str, budget: str, scene: OneScene
) -> None:
    network = small_network(3, aggregation=aggregation)
    facts = BundleFacts(classes=("a", "b", "c"), network=network.settings, walk=WalkSettings(keep=(2, 2, 1)))
    classifier = Classifier(Bundle(facts, network, digest="0" * 64), budget=BUDGETS[budget])
    windows = (None, Window(10, 20, 200, 100), Window(250, 300, 50, 120), Window(3, 5, 20, 20))
    sites = [Site(f"site {n}", "", "scene", window) for n, window in enumerate(windows)]
    most = 0
    for answer in classifier.answer(scene, sites):
        assert isinstance(answer, Answer)
        parts = [answer.bias, *(look.evidence for look in answer.trail.looks)]
        logit = answer.logits[facts.classes.index(answer.label)]
        bound = len(parts) * UNIT * math.fsum(map(abs, parts))
        assert abs(math.fsum(parts) - logit) <= bound
        assert bound < 1e-4
        assert all(abs(math.fsum(parts) - part - logit) > bound for part in parts)  # none can be left out
        most = max(most, len(parts) - 1)
    assert most == {"tiles": 40, "deadline": 1}.get(budget, most)


def test_pictures_in_memory_have_the_same_law() -> None:
    network = small_network(3, aggregation="ltpa")
    facts = BundleFacts(classes=("a", "b", "c"), network=network.settings, walk=WalkSettings(keep=(2, 2, 1)))
    bundle = Bundle(facts, network, digest="0" * 64)
    pictures = random_pixels(4, (100, 140)).transpose(1, 2, 0)[None]
    found = Classifier(bundle).classify(np.ascontiguousarray(pictures))
    best = int(found.logits[0].argmax())
    parts = [network.classifier.bias[best].item(), *found.evidence[0]]
    bound = len(parts) * UNIT * math.fsum(map(abs, parts))
    assert abs(math.fsum(parts) - float(found.logits[0, best])) <= bound < 1e-4
