"""Training the published way on small archives: what is followed, credited, kept and refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.archives import TinyArchive
from tests.learning_runs import Interrupted, StopAt, figures, run
from tests.networks import small_bundle, small_network
from tests.rasters import random_pixels
from tnet_geo.errors import InvalidBundle, InvalidRunFile
from tnet_geo.grid import Tile, Window
from tnet_geo.inference import Engine, SiteTask, WalkResult
from tnet_geo.learning.augmentation import Augmentation
from tnet_geo.learning.optimisers import published_adam, stepped
from tnet_geo.learning.published import FollowedWalks, PublishedStage, follow_walks
from tnet_geo.learning.published_losses import PublishedWeights, published_terms
from tnet_geo.learning.settings import AugmentationSettings, PublishedSettings, RunSettings, read_run
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.learning.stages import Draw, Room, optimise, take_step
from tnet_geo.model import TraversalNetwork, WalkSettings, read_bundle
from tnet_geo.model.named import named_model
from tnet_geo.pyramid import MemoryReader

PUBLISHED: dict[str, Any] = {
    "aggregation": "mean",
    "feature_norm": "none",
    "batch_norm": "by_depth",
    "position": {"form": "code", "coordinates": "path"},
    "location": {
        "form": "cells",
        "cells": (0, 1, 3),
        "scores": "unit",
        "temperature": "fixed",
        "stop_gradient": True,
    },
}
WALK = WalkSettings(keep=(3, 2), duplicates="twice", order="window")


def site(number: int, side: int = 128) -> LabelledSite:
    reader = MemoryReader.of(random_pixels(number, (side, side)), half_px=16)
    task = SiteTask(f"site {number}", reader, Window(0, 0, side, side))
    return LabelledSite(number, task, number % 3, Tile(reader.spec.levels - 1, 0, 0))


def room_of(network: TraversalNetwork, *, walk: WalkSettings = WALK, turns: bool = True) -> Room:
    """Four sites of three depths, and one that fits a single tile."""
    sites = [*(site(n) for n in range(4)), site(4, side=30)]
    drawn = AugmentationSettings() if turns else AugmentationSettings(turns=False, brightness=0, contrast=0)
    augmentation = Augmentation(drawn, "uint8")
    return Room(network, sites, sites, augmentation, walk, 0, torch.device("cpu"))


def stage_of(network: TraversalNetwork, **settings: Any) -> PublishedStage:
    return PublishedStage(room_of(network), PublishedSettings(epochs=1, **settings))


@pytest.mark.parametrize("walk", [WALK, WalkSettings(keep=(3, 2)), WalkSettings(keep=())])
def test_the_walks_that_are_followed_are_those_of_the_engine(walk: WalkSettings) -> None:
    network = small_network(5, **PUBLISHED)
    room = room_of(network, walk=walk, turns=False)
    with torch.no_grad():
        followed = follow_walks(room, room.sites, Draw(room, 0))
    engine = Engine(network, walk, batch_looks=8)
    for n, found in enumerate(engine.walk(one.task for one in room.sites)):
        assert isinstance(found, WalkResult)
        assert [w.tile for w in followed.walks[n].looked] == [w.tile for w in found.walk.looked]
        torch.testing.assert_close(followed.logits[n], found.output.logits[0], atol=1e-5, rtol=1e-5)


def test_choices_have_the_probability_that_the_walk_gave_them_whatever_was_turned() -> None:
    room = room_of(small_network(6, **PUBLISHED))
    with torch.no_grad():
        followed = follow_walks(room, room.sites, Draw(room, 0))
    wishes = [wish for walk in followed.walks for wish in walk.looked]
    assert followed.looks.depth.tolist() == [wish.depth for wish in wishes]
    # The network adds 1e-10 before the logarithm; roots were not chosen and count as certain.
    shares = followed.looks.log_probability.exp().tolist()
    assert shares == pytest.approx([wish.probability for wish in wishes], rel=1e-5)
    assert followed.looks.site.bincount().tolist() == [1 + 3 + 6] * 4 + [1]


def test_the_backbone_is_called_once_for_each_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network(6, **PUBLISHED)
    room, seen = room_of(network), []
    encode = network.encode

    def noted(inputs: torch.Tensor, depth: torch.Tensor) -> Any:
        seen.append(depth.tolist())
        return encode(inputs, depth)

    monkeypatch.setattr(network, "encode", noted)
    follow_walks(room, room.sites, Draw(room, 0))
    assert seen == [[0] * 5, [1] * 12, [2] * 24]


def test_the_head_learns_from_rewards_alone_and_nothing_else_does() -> None:
    network = small_network(7, **PUBLISHED)
    stage = stage_of(network)
    terms, _, _ = stage.terms(stage.room.sites, Draw(stage.room, 0))
    for loss, learns in (
        (terms.walk_class + terms.look_class, {"backbone", "position", "classifier"}),
        (terms.walk_policy + terms.look_policy, {"location"}),
    ):
        network.zero_grad()
        loss.backward(retain_graph=True)
        moved = {name.split(".")[0] for name, w in network.named_parameters() if w.grad is not None}
        assert moved == learns


@pytest.mark.parametrize(("label", "grows"), [(0, True), (1, False)])
def test_windows_that_led_to_the_right_answer_become_more_probable(label: int, grows: bool) -> None:
    network = small_network(8, **PUBLISHED)
    with torch.no_grad():
        network.classifier.bias.copy_(torch.tensor([5.0, -5.0, -5.0]))  # every look answers class 0
    room = room_of(network, turns=False)
    sites = [replace(one, label=label) for one in room.sites[:4]]

    def chances(walks: FollowedWalks) -> float:
        return float(walks.looks.log_probability.detach()[walks.looks.depth == 1].exp().mean())

    before = follow_walks(room, sites, Draw(room, 0))
    weights = PublishedWeights(walk_class=0.5, walk_reward=0.5, policy=1.0)
    terms = published_terms(before.logits, room.labels(sites), before.looks, torch.tensor(0.5), weights)
    (terms.walk_policy + terms.look_policy).backward()
    with torch.no_grad():
        for weight in network.location.parameters():
            if weight.grad is not None:
                weight.sub_(0.01 * weight.grad)
    after = follow_walks(room, sites, Draw(room, 0))
    assert (chances(after) > chances(before)) == grows


def test_steps_learn_the_sites_that_they_are_shown() -> None:
    network = small_network(8, **PUBLISHED)
    stage = stage_of(network)
    optimizer, _ = optimise(stage, 30)
    sites = stage.room.sites[:4]
    losses = [
        take_step(stage, stage.loss(sites, Draw(stage.room, 0, step), 0.0), optimizer) for step in range(30)
    ]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3


def test_the_baseline_follows_the_rewards_after_it_was_used() -> None:
    stage = stage_of(small_network(9, **PUBLISHED), walk_reward=1.0)
    terms, _, _ = stage.terms(stage.room.sites, Draw(stage.room, 0))
    right = round((terms.baseline.item() - 0.45) / 0.1 * len(stage.room.sites))
    assert 0 <= right <= len(stage.room.sites)
    assert stage.baseline == pytest.approx(0.45 + 0.1 * right / len(stage.room.sites))
    assert stage.modules.state_dict()["rewards.value"].item() == stage.baseline


def test_contrast_and_squares_are_added_as_many_times_as_the_run_says() -> None:
    network = small_network(10, **PUBLISHED)
    plain, more = stage_of(network), stage_of(network, contrastive=50.0, l2=0.01)
    with torch.no_grad():
        terms, contrast, squares = plain.terms(plain.room.sites, Draw(plain.room, 0))
    assert (contrast > 0, squares > 0) == (True, True)
    added = more.total(terms, contrast, squares) - plain.total(terms, contrast, squares)
    assert added.item() == pytest.approx(50 * contrast.item() + 0.01 * squares.item(), rel=1e-4)


def test_single_looks_draw_their_own_dropout_and_the_same_seed_draws_the_same() -> None:
    stage = stage_of(small_network(11, **PUBLISHED, dropout=0.5))
    sites = stage.room.sites[-1:]  # one look: the mean feature is that of the look
    stage.room.network.train()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            found.append(follow_walks(stage.room, sites, Draw(stage.room, 0)))
    assert torch.equal(found[0].looks.logits, found[1].looks.logits)
    assert not torch.equal(found[0].looks.logits, found[2].looks.logits)
    assert not torch.allclose(found[0].looks.logits, found[0].logits)


def test_rates_drop_after_their_shares_of_the_steps() -> None:
    optimizer = published_adam([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0}])
    course, rates = stepped(optimizer, 20, drops=(0.7, 0.85), factor=0.1), []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    assert rates == pytest.approx([1.0] * 14 + [0.1] * 3 + [0.01] * 3)


def test_a_step_is_as_long_as_adam_makes_it_whatever_the_gradient() -> None:
    """Our stages cut long gradients short; the published way does not, and Adam would not notice."""
    stage = stage_of(small_network(12, **PUBLISHED))
    optimizer, _ = optimise(stage, 10)
    bias = stage.room.network.classifier.bias
    before = bias.detach().clone()
    take_step(stage, 1e6 * bias.sum(), optimizer)
    assert bias.grad is not None
    assert bias.grad.tolist() == [1e6] * 3
    torch.testing.assert_close(before - bias.detach(), torch.full_like(before, 1e-3), rtol=1e-3, atol=0)


def settings_of(tiny: TinyArchive, out: Path, **model: Any) -> RunSettings:
    none = {"epochs": 0}
    return tiny.settings(
        out,
        model={"base_px": 32, "dropout": 0.2, **PUBLISHED, **model},
        duplicates="twice",
        order="window",
        dense=none,
        location=none,
        joint=none,
        published={"epochs": 3, "sites_per_step": 8},
        rivals={"train": ()},
    )


@pytest.fixture(scope="module")
def finished(
    tiny: TinyArchive, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunSettings, Sequence[Any]]:
    settings = settings_of(tiny, tmp_path_factory.mktemp("published") / "run")
    return settings, run(tiny, settings)


def test_a_run_keeps_its_best_walk_with_the_baseline(finished: tuple[RunSettings, Sequence[Any]]) -> None:
    settings, rows = finished
    assert [(row.stage, row.epoch) for row in rows] == [("published", n) for n in (1, 2, 3)]
    facts = read_bundle(settings.out / "bundle").facts
    assert facts.walk.duplicates == "twice"
    assert facts.walk.order == "window"
    assert 0 < float(facts.training["reward_baseline"]) < 1
    assert facts.metrics["accuracy"] == max(row.accuracy for row in rows)


@pytest.mark.parametrize("steps", [1, 5])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    tiny: TinyArchive, tmp_path: Path, finished: tuple[RunSettings, Sequence[Any]], steps: int
) -> None:
    settings = finished[0].model_copy(update={"out": tmp_path / "run"})
    with pytest.raises(Interrupted):
        run(tiny, settings, StopAt(steps))
    assert figures(run(tiny, settings)) == figures(finished[1])
    ours, theirs = (read_bundle(one.out / "bundle").facts for one in (settings, finished[0]))
    assert ours.files == theirs.files
    assert ours.training == theirs.training


def test_a_run_begins_with_a_bundle_its_scaling_and_its_baseline(
    tiny: TinyArchive, tmp_path: Path, finished: tuple[RunSettings, Sequence[Any]]
) -> None:
    begin = finished[0].out / "bundle"
    first = read_bundle(begin)
    settings = settings_of(tiny, tmp_path / "run", begin=begin, depths=3)
    still = settings.published.model_copy(update={"rate": 1e-12, "epochs": 1})
    run(tiny, settings.model_copy(update={"published": still}))
    second = read_bundle(tmp_path / "run" / "bundle")
    assert second.facts.network.pixels == first.facts.network.pixels
    for name, weight in first.network.named_parameters():
        assert torch.allclose(weight, second.network.get_parameter(name), atol=1e-6), name
    # One epoch of three steps moves the baseline by at most 1 - 0.9^3 from where it began.
    before, after = (float(one.facts.training["reward_baseline"]) for one in (first, second))
    assert 0 < abs(after - before) < 0.28
    assert abs(after - 0.729 * before) < 0.28


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"aggregation": "ltpa"}, "begins with a bundle of another network (Missing key(s)"),
        ({}, None),
    ],
)
def test_a_run_that_cannot_begin_with_a_bundle_is_refused_before_anything_is_written(
    tiny: TinyArchive,
    tmp_path: Path,
    finished: tuple[RunSettings, Sequence[Any]],
    model: dict[str, Any],
    said: str | None,
) -> None:
    begin = finished[0].out / "bundle"
    if said is None:
        begin, said = small_bundle().save(tmp_path / "other"), "begins with a bundle that knows other classes"
    with pytest.raises(InvalidRunFile) as refusal:
        run(tiny, settings_of(tiny, tmp_path / "run", begin=begin, **model))
    assert said in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_a_beginning_that_is_no_bundle_is_refused(tiny: TinyArchive, tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle):
        run(tiny, settings_of(tiny, tmp_path / "run", begin=tmp_path))


def test_pixels_can_be_scaled_by_the_range_of_their_dtype(tiny: TinyArchive, tmp_path: Path) -> None:
    settings = settings_of(tiny, tmp_path / "run", scaling="range")
    run(tiny, settings.model_copy(update={"published": PublishedSettings(epochs=1)}))
    pixels = read_bundle(tmp_path / "run" / "bundle").facts.network.pixels
    assert (pixels.mean, pixels.std) == ((127.5,) * 3, (127.5,) * 3)


@pytest.mark.parametrize(("name", "looks_alone"), [("tnet_fmow_448", None), ("tnet_fmow", 2)])
def test_the_run_files_of_the_published_network_describe_it(
    project: Path, name: str, looks_alone: int | None
) -> None:
    run_file, named = read_run(project / "configs" / "runs" / f"{name}.toml"), named_model(name)
    ours = run_file.model.model_dump(exclude={"begin", "weights", "scaling", "depths"})
    assert ours == named.network.model_dump(exclude={"classes", "pixels", "depths"})
    assert (run_file.keep, run_file.duplicates, run_file.order) == (
        named.walk.keep,
        named.walk.duplicates,
        named.walk.order,
    )
    assert (run_file.model.scaling, run_file.published.look_depths) == ("range", looks_alone)
