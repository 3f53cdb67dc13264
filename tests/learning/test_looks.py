"""What training shows the network is what a walk shows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.networks import small_network
from tests.rasters import random_pixels
from tnet_geo.grid import Tile, Window
from tnet_geo.inference import Engine, SiteTask, WalkResult
from tnet_geo.learning.augmentation import Augmentation
from tnet_geo.learning.looks import LookBatch, LookRequest, look
from tnet_geo.learning.settings import AugmentationSettings
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.model import WalkSettings
from tnet_geo.pyramid import MemoryReader

CPU = torch.device("cpu")
SWITCHES = {
    "position": {"form": "code"},
    "location": {"position": True, "parent": True},
}


def site(number: int) -> LabelledSite:
    reader = MemoryReader.of(random_pixels(number, (128, 128)), half_px=16)
    task = SiteTask(f"site {number}", reader, Window(0, 0, 128, 128))
    return LabelledSite(number, task, 0, Tile(2, 0, 0))


@torch.inference_mode()
def test_looks_of_a_batch_are_those_of_the_walk_with_their_parents_features() -> None:
    network = small_network(2, **SWITCHES)
    sites = [site(n) for n in range(3)]
    engine = Engine(network, WalkSettings(keep=(2, 1)), batch_looks=4)
    walks = [found for found in engine.walk(one.task for one in sites) if isinstance(found, WalkResult)]
    tiles = [tuple(wish.tile for wish in found.walk.looked) for found in walks]
    requests = [LookRequest(one, some) for one, some in zip(sites, tiles, strict=True)]
    output = look(network, LookBatch.read(requests, network, CPU))
    expected = torch.cat([found.walk.features for found in walks])
    torch.testing.assert_close(output.features, expected, atol=1e-5, rtol=1e-5)
    row = 0
    for found in walks:
        for wish in found.walk.looked:
            chosen = output.child_logits[row]
            below = [w for w in found.walk.looked if w.parent is not None and w.depth == wish.depth + 1]
            picks = [w for w in below if found.walk.looked[w.parent or 0] is wish]
            if picks:
                shares = torch.softmax(chosen.double(), dim=0)
                assert picks[0].probability == pytest.approx(float(shares.max()), abs=1e-5)
            row += 1


def test_places_turn_along_with_the_pixels() -> None:
    one = site(1)
    drawn = [Augmentation(AugmentationSettings(), "uint8").draw(seed) for seed in range(8)]
    turned = next(draw for draw in drawn if not np.array_equal(draw.matrix, np.eye(2)))
    tiles = (Tile(1, 0, 2), Tile(0, 0, 6))
    network = small_network(2, **SWITCHES)
    plain, other = (
        LookBatch.read([LookRequest(one, tiles, draw)], network, CPU).places for draw in (None, turned)
    )
    matrix = torch.from_numpy(turned.matrix)
    torch.testing.assert_close(other.centre, plain.centre @ matrix.T)
    torch.testing.assert_close(other.path, plain.path @ matrix.T)
    assert torch.equal(other.depth, plain.depth)
