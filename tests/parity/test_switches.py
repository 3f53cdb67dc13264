"""Every switch has a published value, which leaves parity untouched, and other values that do something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.conftest import Numbers
from tnet_geo.errors import InvalidCheckpoint
from tnet_geo.grid import Tile
from tnet_geo.inference import Classifier
from tnet_geo.inference.walks import path_centre, position_in
from tnet_geo.model import Bundle, BundleFacts, NetworkSettings, TraversalNetwork, WalkSettings
from tnet_geo.model.named import named_model
from tnet_geo.model.places import Places
from tnet_geo.model.published import load_published, published_layout, published_names, read_variables
from tnet_geo.pyramid import MemoryReader

NAMED = named_model("tnet_fmow")


@dataclass(frozen=True)
class Switch:
    """A setting, its published value, and another one."""

    name: str
    published: Any
    other: Any

    def __str__(self) -> str:
        return f"{self.name}={self.other}"


ANSWERS = [
    Switch("position.coordinates", "path", "lattice"),
    Switch("location.tap", "blocks.3", "blocks.3.0"),
    Switch("location.cells", (2, 6, 10), (3, 6, 9)),
    Switch("location.scores", "unit", "free"),
    Switch("location.fraction", 0.5, 0.35),
    Switch("reduction", "central", "mean"),
]
"""The other value answers otherwise with the same weights."""

BEGINS_THERE = [
    Switch("location.temperature", "fixed", "learned"),
    Switch("location.position", False, True),
    Switch("location.parent", False, True),
]
"""The other value has weights of its own, which begin where nothing is changed."""

WEIGHTS = [
    Switch("backbone", "timm/tf_efficientnet_b0", "timm/tf_efficientnet_b1"),
    Switch("aggregation", "mean", "feature_weighting"),
    Switch("aggregation", "mean", "gated_attention"),
    Switch("aggregation", "mean", "ltpa"),
    Switch("position.form", "code", "centre"),
    Switch("position.form", "code", "concat"),
    Switch("position.form", "code", "none"),
    Switch("position.divisor", 4, 2),
    Switch("location.form", "cells", "context"),
    Switch("location.tap", "blocks.3", "auto"),
    Switch("feature_norm", "none", "layer"),
    Switch("batch_norm", "by_depth", "per_depth"),
]
"""The other value is a network that the published weights do not fit."""

TRAINING = [
    Switch("batch_norm", "by_depth", "shared"),
    Switch("norm_momentum", 0.01, None),
    Switch("dropout", 0.5, 0.0),
    Switch("drop_path", 0.5, 0.0),
    Switch("tile_dropout", 0.0, 0.5),
    Switch("location.stop_gradient", True, False),
]
"""The other value trains otherwise, and answers alike."""

ORDER = Switch("walk.order", "window", "best")
DUPLICATES = Switch("walk.duplicates", "twice", "once")


def with_switch(switch: Switch, value: Any) -> BundleFacts:
    """The published model with one switch at a value."""
    table = NAMED.model_dump()
    *path, last = switch.name.split(".")
    place = table if switch.name == "reduction" or path == ["walk"] else table["network"]
    for part in path:
        place = place[part]
    place[last] = value
    return BundleFacts(
        classes=NAMED.classes,
        canvas=NAMED.canvas,
        reduction=table["reduction"],
        network=NetworkSettings(**table["network"]),
        walk=WalkSettings(**table["walk"]),
    )


def value_of(switch: Switch) -> Any:
    place: Any = NAMED if switch.name == "reduction" or switch.name.startswith("walk.") else NAMED.network
    for part in switch.name.split("."):
        place = getattr(place, part)
    return place


@pytest.fixture(scope="module")
def published(parity: Path) -> dict[str, np.ndarray]:
    return read_variables(parity / "weights_tnet_fmow.npz")


@dataclass(frozen=True)
class Found:
    logits: np.ndarray
    trail: tuple[tuple[int, int, int, float], ...]

    def is_near(self, other: Found) -> bool:
        """Within 1e-4, with the same tiles in the same order."""
        ours, theirs = np.array(self.trail), np.array(other.trail)
        return (
            np.array_equal(ours[:, :3], theirs[:, :3])
            and bool(np.abs(ours[:, 3] - theirs[:, 3]).max() <= 1e-4)
            and bool(np.abs(self.logits - other.logits).max() <= 1e-4)
        )


Ask = Callable[..., Found]


@pytest.fixture(scope="module")
def ask(images: np.ndarray, published: dict[str, np.ndarray]) -> Ask:
    """What a model with the published weights answers to a picture; equal questions are asked once."""
    known: dict[tuple[str, int, tuple[int, ...]], Found] = {}

    def answer(facts: BundleFacts, picture: int = 0, keep: tuple[int, ...] = (2, 1)) -> Found:
        facts = facts.model_copy(update={"walk": facts.walk.model_copy(update={"keep": keep})})
        key = facts.model_dump_json(), picture, keep
        if key not in known:
            network = TraversalNetwork(facts.network)
            plain = TraversalNetwork(NAMED.network)
            load_published(plain, published, origin="weights")
            network.load_state_dict(network.state_dict() | plain.state_dict())
            classifier = Classifier(Bundle(facts, network.eval()), runtime="eager", batch_looks=2 * keep[-1])
            found = classifier.classify(images[picture : picture + 1])
            known[key] = Found(found.logits, tuple(tuple(step) for step in found.trails[0]))
        return known[key]

    return answer


@pytest.fixture(scope="module")
def expected(numbers: Numbers) -> Callable[..., Found]:
    """What the published code answers."""

    def of(name: str, picture: int = 0) -> Found:
        found = numbers(name)
        depths = sum(key.endswith("_side") for key in found)
        rows: list[tuple[int, int, int, float]] = []
        for depth in range(depths):
            level = depths - 1 - depth
            share = [1.0]
            if depth:
                above = np.take_along_axis(
                    found[f"d{depth - 1}_probs"], found[f"d{depth - 1}_chosen"], axis=1
                )
                share = above.reshape(len(found["logits"]), -1)[picture].tolist()
            origins = found[f"d{depth}_origin_yx"].reshape(len(found["logits"]), -1, 2)[picture] // (
                112 << level
            )
            rows += [(level, int(row), int(col), p) for (row, col), p in zip(origins, share, strict=True)]
        return Found(found["logits"][picture], tuple(rows))

    return of


@pytest.mark.parametrize("switch", [*ANSWERS, *BEGINS_THERE, *WEIGHTS, *TRAINING], ids=str)
def test_the_published_value_leaves_parity_untouched(
    switch: Switch, ask: Ask, expected: Callable[..., Found]
) -> None:
    assert value_of(switch) == switch.published
    found = ask(with_switch(switch, switch.published))
    assert found.is_near(expected("forward_896"))


@pytest.mark.parametrize("switch", ANSWERS, ids=str)
def test_another_value_answers_otherwise(switch: Switch, ask: Ask, expected: Callable[..., Found]) -> None:
    found = ask(with_switch(switch, switch.other))
    assert np.isfinite(found.logits).all()
    assert not found.is_near(expected("forward_896"))


def test_windows_come_in_their_order_or_best_first_which_is_of_the_trail_alone(
    ask: Ask, expected: Callable[..., Found], numbers: Numbers
) -> None:
    in_order = ask(with_switch(ORDER, "window"), picture=1, keep=(6, 3))
    best_first = ask(with_switch(ORDER, "best"), picture=1, keep=(6, 3))
    assert in_order.is_near(expected("forward_896_keep63"))
    windows = [3 * row + col for _, row, col, _ in best_first.trail[1:7]]
    assert windows == numbers("forward_896_keep63")["d0_chosen_by_prob"][0].tolist() != sorted(windows)
    assert {step[:3] for step in best_first.trail} == {step[:3] for step in in_order.trail}
    np.testing.assert_allclose(best_first.logits, in_order.logits, rtol=0, atol=1e-4)


def test_duplicates_are_looked_at_twice_or_once(ask: Ask, expected: Callable[..., Found]) -> None:
    twice = ask(with_switch(DUPLICATES, "twice"), picture=1, keep=(6, 3))
    assert twice.is_near(expected("forward_896_keep63"))
    once = ask(with_switch(DUPLICATES, "once"), picture=1, keep=(6, 3))
    assert (len(twice.trail), len(once.trail)) == (25, 22)
    assert {step[:3] for step in once.trail} == {step[:3] for step in twice.trail}
    assert np.abs(once.logits - twice.logits).max() > 1e-3


@pytest.mark.parametrize("switch", BEGINS_THERE, ids=str)
def test_another_value_begins_at_parity(switch: Switch, ask: Ask, expected: Callable[..., Found]) -> None:
    facts = with_switch(switch, switch.other)
    own = set(TraversalNetwork(facts.network).state_dict())
    assert own - set(TraversalNetwork(NAMED.network).state_dict())
    assert ask(facts).is_near(expected("forward_896"))


@pytest.mark.parametrize("switch", WEIGHTS, ids=str)
def test_published_weights_do_not_fit_another_value(switch: Switch, published: dict[str, np.ndarray]) -> None:
    network = TraversalNetwork(with_switch(switch, switch.other).network)
    with pytest.raises((InvalidCheckpoint, KeyError)):
        load_published(network, published, origin="weights")


@pytest.mark.parametrize("switch", TRAINING, ids=str)
def test_another_value_of_training_answers_alike(
    switch: Switch, ask: Ask, expected: Callable[..., Found]
) -> None:
    assert ask(with_switch(switch, switch.other)).is_near(expected("forward_896"))


# In training mode, on the batch of the fixture: three canvases of 448 px.


@dataclass(frozen=True)
class Step:
    features: Tensor
    logits: Tensor
    child_logits: Tensor
    network: TraversalNetwork


Train = Callable[..., Step]


@pytest.fixture(scope="module")
def train(numbers: Numbers, images: np.ndarray, published: dict[str, np.ndarray]) -> Train:
    """Roots and chosen children of all canvases through a network in training, in one batch."""
    chosen = numbers("train_448")["d0_chosen"]
    root = Tile(1, 0, 0)
    windows = [(n, int(k)) for n, row in enumerate(chosen) for k in row]
    tiles = [(n, root, (0, 0)) for n in range(3)]
    tiles += [(n, Tile(0, k // 3, k % 3), (k // 3, k % 3)) for n, k in windows]
    readers = [
        MemoryReader.central(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32), 112)
        for image in images[:, ::2, ::2]
    ]
    pixels = torch.cat([torch.from_numpy(readers[n].read([tile]).pixels) for n, tile, _ in tiles])
    depth = torch.tensor([1 - tile.level for _, tile, _ in tiles])
    places = Places(
        depth,
        torch.tensor([position_in(root, tile) for _, tile, _ in tiles]),
        torch.tensor([path_centre(path, 1 - tile.level) for _, tile, path in tiles]),
    )
    site = torch.tensor([n for n, _, _ in tiles])

    def step(**changed: Any) -> Step:
        update = {"depths": 2, "dropout": 0.0, "drop_path": 0.0} | changed
        stop = update.pop("stop_gradient", True)
        location = NAMED.network.location.model_copy(update={"stop_gradient": stop})
        network = TraversalNetwork(NAMED.network.model_copy(update=update | {"location": location})).train()
        load_published(network, published, origin="weights")
        torch.manual_seed(0)
        inputs = network.scale(pixels, torch.ones(len(pixels), 224, 224))
        output = network.look(inputs, places)
        bags = torch.stack([output.features[site == n] for n in range(3)])
        logits = network.aggregate(bags, torch.ones(bags.shape[:2], dtype=torch.bool)).logits
        return Step(output.features, logits, output.child_logits, network)

    return step


def distance(found: Tensor, expected: np.ndarray) -> float:
    """The largest difference as a share of the largest number."""
    return float(np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def parity_step(train: Train) -> Step:
    return train()


def test_in_training_the_published_values_leave_parity_untouched(parity_step: Step, numbers: Numbers) -> None:
    expected = numbers("train_448")
    assert distance(parity_step.features[:3], expected["d0_feature"]) < 1e-4
    assert distance(parity_step.features[3:], expected["d1_feature"]) < 1e-4
    assert distance(parity_step.logits, expected["logits"]) < 1e-4
    probabilities = torch.softmax(parity_step.child_logits[:3], dim=1)
    assert distance(probabilities, expected["d0_probs"]) < 1e-4


def test_in_training_statistics_move_as_published_and_otherwise_with_another_momentum(
    parity_step: Step, train: Train, numbers: Numbers
) -> None:
    def worst(network: TraversalNetwork) -> float:
        state = network.state_dict()
        return max(
            distance(
                torch.from_numpy(published_layout(name, state[ours])), numbers("train_448")[f"after/{name}"]
            )
            for ours, name in published_names(network).items()
            if name.endswith(("moving_mean", "moving_variance"))
        )

    assert worst(parity_step.network) < 1e-4
    assert worst(train(norm_momentum=None).network) > 1e-2


@pytest.mark.parametrize(
    "changed",
    [{"batch_norm": "shared"}, {"drop_path": 0.5}, {"dropout": 0.5}, {"tile_dropout": 0.5}],
    ids=lambda changed: next(iter(changed)),
)
def test_in_training_another_value_is_felt(changed: dict[str, Any], train: Train, numbers: Numbers) -> None:
    assert distance(train(**changed).logits, numbers("train_448")["logits"]) > 1e-2


def test_the_location_head_trains_the_backbone_only_where_its_gradient_is_not_stopped(train: Train) -> None:
    for stop in (True, False):
        step = train(stop_gradient=stop)
        own = step.network.location.get_parameter("first.weight")
        stem = step.network.backbone.get_parameter("net.conv_stem.weight")
        of_own, of_stem = torch.autograd.grad(step.child_logits[:, 0].sum(), [own, stem], allow_unused=True)
        assert of_own.abs().max() > 0
        assert (of_stem is None) == stop
