"""One step of training the published way: terms, gradients, statistics and Adam as the published code's.

Dropout and stochastic depth are 0, in the fixtures and here: nobody can compare what chance drops. The
step is computed in double precision: the published code rounded to single, which alone moves an entry
of a gradient by 8e-5 of the largest, and rounding of our own beside it would decide by chance whether
the bound is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.conftest import Numbers
from tnet_geo.grid import Tile, Window, children
from tnet_geo.inference import SiteTask
from tnet_geo.learning import published
from tnet_geo.learning.augmentation import Augmentation
from tnet_geo.learning.optimisers import published_adam
from tnet_geo.learning.published import FollowedWalks, PublishedStage
from tnet_geo.learning.published_losses import (
    LookRows,
    PublishedTerms,
    PublishedWeights,
    published_terms,
    sum_of_squares,
    top_one,
)
from tnet_geo.learning.settings import AugmentationSettings, PublishedSettings
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.learning.stages import Draw, Room, optimise, take_step
from tnet_geo.model import TraversalNetwork
from tnet_geo.model.named import named_model
from tnet_geo.model.published import load_published, published_layout, published_names
from tnet_geo.pyramid import MemoryReader

RELATIVE = 1e-4
close = partial(pytest.approx, rel=RELATIVE)

NOTHING = 1e-6
"""Gradients that are zero but for rounding: of betas that nothing but a further normalisation reads."""

STEPS = {
    448: PublishedSettings(epochs=1),
    896: PublishedSettings(epochs=1, walk_class=0.05, walk_reward=0.05, look_depths=2),
}
canvases = pytest.mark.parametrize("canvas_px", [448, 896])


def stage_of(canvas_px: int, numbers: Numbers, images: np.ndarray) -> PublishedStage:
    """The published weights, and the fixture's images as sites; the stage is ready for its first step."""
    named = named_model("tnet_fmow" if canvas_px == 896 else "tnet_fmow_448")
    network = TraversalNetwork(named.network.model_copy(update={"dropout": 0.0, "drop_path": 0.0}))
    baseline = load_published(network, numbers("weights_tnet_fmow"), origin="weights_tnet_fmow.npz")
    labels = numbers(f"train_{canvas_px}")["labels"]
    step = 896 // canvas_px
    sites = []
    for n, label in enumerate(labels):
        pixels = images[n, ::step, ::step].transpose(2, 0, 1).astype(np.float32)
        reader = MemoryReader.central(pixels, network.settings.base_px // 2)
        task = SiteTask(f"image {n}", reader, Window(0, 0, canvas_px, canvas_px))
        sites.append(LabelledSite(n, task, int(label), Tile(reader.spec.levels - 1, 0, 0)))
    plain = Augmentation(AugmentationSettings(turns=False, brightness=0, contrast=0), "float32")
    room = Room(network, sites, sites, plain, named.walk, 0, torch.device("cpu"))
    assert baseline is not None
    return PublishedStage(room, STEPS[canvas_px], baseline)


def in_double(stage: PublishedStage) -> PublishedStage:
    stage.modules.double()
    for layer in stage.modules.modules():  # codes of places are single precision, as the published ones
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda layer, given: (given[0].to(layer.weight),))
    return stage


@dataclass(frozen=True)
class Step:
    """Everything that one step showed, and what the published code showed."""

    stage: PublishedStage
    walks: FollowedWalks
    terms: PublishedTerms
    loss: float
    gradients: dict[str, np.ndarray]
    """By published name and in its layout."""
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


def variables_of(network: TraversalNetwork) -> dict[str, np.ndarray]:
    state = network.state_dict()
    names = published_names(network).items()
    return {variable: published_layout(variable, state[name]).copy() for name, variable in names}


@pytest.fixture(scope="module", params=[448, 896])
def step(request: pytest.FixtureRequest, numbers: Numbers, images: np.ndarray) -> Step:
    """One real step of the stage, by the optimiser that training takes; what it computes is noted."""
    stage = in_double(stage_of(request.param, numbers, images))
    network, sites = stage.room.network, stage.room.sites
    before = variables_of(network)
    walks: list[FollowedWalks] = []
    terms: list[PublishedTerms] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "follow_walks", noted(published.follow_walks, walks))
        patch.setattr(published, "published_terms", noted(published.published_terms, terms))
        optimizer, _ = optimise(stage, 1)
        loss = take_step(stage, stage.loss(sites, Draw(stage.room, 0), 0.0), optimizer)
    names = published_names(network)
    gradients = {
        names[name]: published_layout(names[name], weight.grad)
        for name, weight in network.named_parameters()
        if weight.grad is not None
    }
    after, expected = variables_of(network), numbers(f"train_{request.param}")
    return Step(stage, walks[0], terms[0], loss, gradients, before, after, expected)


def noted(function: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    """The same function, whose results are kept."""

    def call(*given: Any) -> Any:
        results.append(function(*given))
        return results[-1]

    return call


def worst(ours: Any, published: np.ndarray) -> float:
    """Largest difference, relative to the largest published entry."""
    return float(np.abs(np.asarray(ours) - published).max() / np.abs(published).max())


def test_terms_total_and_baseline(step: Step) -> None:
    found = [step.terms.walk_class, step.terms.look_class, step.terms.walk_policy, step.terms.look_policy]
    keys = ("ce", "ce_per_feature", "reinforce", "reinforce_per_feature")
    assert [term.item() for term in found] == close([float(step.expected[f"term_{key}"]) for key in keys])
    assert step.loss == close(float(step.expected["total"]))
    assert step.stage.baseline == close(float(step.expected["baseline_after"]))


def test_walks_in_training_choose_what_the_published_code_chose(step: Step) -> None:
    looks, logits = step.walks.looks, step.walks.logits.detach()
    depths = int(looks.depth.max()) + 1
    for depth in range(depths - 1):
        assert chosen_below(step, depth) == step.expected[f"d{depth}_chosen"].tolist()
    for depth in range(depths):
        alone = looks.logits.detach()[looks.depth == depth]
        assert worst(alone, step.expected[f"d{depth}_logits_per_feature"]) < RELATIVE
    assert worst(logits, step.expected["logits"]) < RELATIVE
    summed = logits.new_zeros(len(logits)).index_add(0, looks.site, looks.log_probability.detach())
    assert worst(summed[:, None], step.expected["sum_log_prob"]) < RELATIVE


def chosen_below(step: Step, depth: int) -> list[list[int]]:
    """Indices of the children that every look of a depth led to, in the order of looks."""
    found = []
    for looked in (walk.looked for walk in step.walks.walks):
        for row, wish in enumerate(looked):
            if wish.depth == depth:
                below = children(wish.tile)
                found.append([below.index(child.tile) for child in looked if child.parent == row])
    return found


def test_norms_of_all_gradients(step: Step) -> None:
    names = [str(name) for name in step.expected["names"]]
    assert sorted(step.gradients) == sorted(names)
    for name, norm in zip(names, step.expected["grad_norm"], strict=True):
        ours = np.linalg.norm(step.gradients[name].astype(np.float64))
        if norm < NOTHING:
            assert ours < NOTHING, name
        else:
            assert ours == close(norm), name


def test_whole_gradients(step: Step) -> None:
    whole = [key for key in step.expected if key.startswith("grad/")]
    assert len(whole) == 27
    for key in whole:
        assert worst(step.gradients[key.removeprefix("grad/")], step.expected[key]) < RELATIVE, key


def test_statistics_move_once_for_every_depth_in_its_order(step: Step) -> None:
    moved = [key for key in step.expected if key.startswith("after/")]
    assert len(moved) == 98
    for key in moved:
        name = key.removeprefix("after/")
        assert worst(step.after[name], step.expected[key]) < RELATIVE, key
        assert (step.after[name] != step.before[name]).any(), key


def test_first_step_of_adam(step: Step) -> None:
    for key in [key for key in step.expected if key.startswith("adam1/")]:
        name = key.removeprefix("adam1/")
        assert worst(step.after[name], step.expected[key]) < RELATIVE, key


def test_total_and_statistics_in_single_precision(numbers: Numbers, images: np.ndarray) -> None:
    stage, expected = stage_of(896, numbers, images), numbers("train_896")
    with torch.no_grad():
        loss = stage.loss(stage.room.sites, Draw(stage.room, 0), 0.0)
    assert loss.item() == close(float(expected["total"]))
    assert stage.baseline == close(float(expected["baseline_after"]))
    after = variables_of(stage.room.network)
    for key in [key for key in expected if key.startswith("after/")]:
        assert worst(after[key.removeprefix("after/")], expected[key]) < RELATIVE, key


@canvases
def test_adam_steps_as_keras_does_where_gradients_are_the_published_ones(
    canvas_px: int, numbers: Numbers
) -> None:
    published, weights = numbers(f"train_{canvas_px}"), numbers("weights_tnet_fmow")
    for key in [key for key in published if key.startswith("adam1/")]:
        name = key.removeprefix("adam1/")
        weight = torch.nn.Parameter(torch.from_numpy(weights[name].copy()))
        weight.grad = torch.from_numpy(published[f"grad/{name}"])
        published_adam([{"params": [weight], "lr": 1e-3}]).step()
        # A few units in the last place of the weights: the step itself is a thousandth.
        assert weight.detach().numpy() == pytest.approx(published[key], abs=3e-7)


def test_sum_of_squares_that_l2_multiplies(numbers: Numbers, images: np.ndarray) -> None:
    network = stage_of(448, numbers, images).room.network
    assert sum_of_squares(network).item() == close(float(numbers("train_448")["l2_sum_of_squares"]))


@canvases
def test_the_losses_alone_on_what_the_published_network_gave(canvas_px: int, numbers: Numbers) -> None:
    arrays, settings = numbers(f"train_{canvas_px}"), STEPS[canvas_px]
    weights = PublishedWeights(
        settings.walk_class, settings.walk_reward, settings.policy, settings.look_depths
    )
    labels = torch.from_numpy(arrays["labels"])
    looks = looks_of(arrays, len(labels))
    baseline = torch.from_numpy(arrays["baseline_before"])
    terms = published_terms(torch.from_numpy(arrays["logits"]), labels, looks, baseline, weights)
    tight = partial(pytest.approx, rel=1e-5)
    assert terms.walk_class.item() == tight(float(arrays["term_ce"]))
    assert terms.look_class.item() == tight(float(arrays["term_ce_per_feature"]))
    assert terms.walk_policy.item() == tight(float(arrays["term_reinforce"]))
    assert terms.look_policy.item() == tight(float(arrays["term_reinforce_per_feature"]))
    assert terms.total(weights).item() == tight(float(arrays["total"]))
    assert terms.baseline.item() == tight(float(arrays["baseline_after"]))


def looks_of(arrays: dict[str, np.ndarray], sites: int) -> LookRows:
    """The fixture's looks, depth by depth, image-major."""
    depths = sum(key.endswith("_logits_per_feature") for key in arrays)
    logits = [torch.from_numpy(arrays[f"d{d}_logits_per_feature"]) for d in range(depths)]
    logs: list[Tensor] = [torch.zeros(sites)]
    logs += [torch.from_numpy(arrays[f"d{d}_log_prob_chosen"]).flatten() for d in range(depths - 1)]
    return LookRows(
        site=torch.cat([torch.arange(sites).repeat_interleave(len(rows) // sites) for rows in logits]),
        depth=torch.cat([torch.full((len(rows),), d) for d, rows in enumerate(logits)]),
        logits=torch.cat(logits),
        log_probability=torch.cat(logs),
    )


def test_rewards_with_ties(numbers: Numbers) -> None:
    arrays = numbers("layers")
    logits = torch.from_numpy(arrays["reward/logits"])
    for labels, value in (("labels", "value"), ("labels_alt", "value_alt")):
        rewards = top_one(logits, torch.from_numpy(arrays[f"reward/{labels}"]))
        assert rewards.bool().tolist() == arrays[f"reward/{value}"].tolist()
