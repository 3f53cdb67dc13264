"""Confidence that means what it says: the temperature, the error that is left, and when it is fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.archives import CLASSES, TinyArchive
from tests.networks import small_bundle, small_network
from tests.rasters import random_pixels
from tnet_geo.grid import Window, root_of
from tnet_geo.inference import Engine, SiteTask, WalkResult, load_bundle
from tnet_geo.learning.calibration import (
    AFTER,
    BEFORE,
    calibrate,
    calibration_error,
    fit_temperature,
    logits_so_far,
    temperatures_so_far,
)
from tnet_geo.learning.sites import LabelledSite, load_sites
from tnet_geo.model import WalkSettings, read_bundle
from tnet_geo.pyramid import MemoryReader
from tnet_geo.trail import Answer


def sure_of(temperature: float, sites: int = 4000, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits `temperature` times too large for labels that were drawn from their softmax."""
    chance = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(sites, classes, generator=chance)
    labels = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=chance).squeeze(1)
    return temperature * logits, labels


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0, 25.0])
def test_the_temperature_that_logits_were_drawn_with_is_found(temperature: float) -> None:
    logits, labels = sure_of(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_it_is_the_least_negative_log_likelihood_of_a_plain_search() -> None:
    logits, labels = sure_of(2.5, sites=600)
    tried = np.geomspace(0.5, 10, 2001)
    losses = [float(torch.nn.functional.cross_entropy(logits / float(t), labels)) for t in tried]
    # One unknown site among 600 is all that stands between the two.
    assert fit_temperature(logits, labels) == pytest.approx(tried[int(np.argmin(losses))], rel=0.02)


def test_no_certainty_is_claimed_for_few_sites_that_were_all_right() -> None:
    labels = torch.tensor([0, 1, 2] * 4)
    logits = 1.5 * torch.nn.functional.one_hot(labels, 3).float()
    confidence = torch.softmax(logits / fit_temperature(logits, labels), dim=1).amax(dim=1)
    # Twelve right of twelve: by the rule of one unknown site among thirteen of three classes.
    assert confidence.tolist() == pytest.approx([1 - 2 / 3 / 13] * 12, abs=1e-3)


def test_logits_that_say_nothing_stay_as_they_are() -> None:
    assert fit_temperature(torch.full((7, 3), 2.0), torch.zeros(7, dtype=torch.long)) == 1.0
    assert fit_temperature(torch.randn(7, 1), torch.zeros(7, dtype=torch.long)) == 1.0


def test_worse_than_chance_ends_in_no_confidence_and_not_in_a_negative_temperature() -> None:
    labels = torch.tensor([0, 1, 2] * 10)
    logits = -3.0 * torch.nn.functional.one_hot(labels, 3).float()
    assert fit_temperature(logits, labels) == pytest.approx(100.0, rel=1e-3)


def test_the_calibration_error_is_the_mean_distance_of_confidence_from_accuracy() -> None:
    confidence = torch.tensor([0.9] * 10 + [0.6] * 10)
    probabilities = torch.stack([confidence, 1 - confidence], dim=1)
    labels = torch.tensor([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)  # 0.9 is right in 0.7, 0.6 in 0.6
    assert calibration_error(probabilities, labels) == pytest.approx((0.2 + 0.0) / 2, abs=1e-6)


def test_one_class_is_always_right() -> None:
    assert calibration_error(torch.ones(4, 1), torch.zeros(4, dtype=torch.long)) == 0.0


def test_the_error_falls_where_a_network_was_too_sure() -> None:
    logits, labels = sure_of(4.0)
    fitted = fit_temperature(logits, labels)
    before, after = (calibration_error(torch.softmax(logits / t, dim=1), labels) for t in (1.0, fitted))
    assert before > 0.15
    assert after < 0.03


@pytest.fixture(scope="module")
def validation(tiny: TinyArchive) -> tuple[LabelledSite, ...]:
    found = load_sites(tiny.manifest, "train", tiny.archive, classes=CLASSES, base_px=32, cache_gib=1)
    return found.sites


@pytest.fixture
def sure(tmp_path: Path) -> Path:
    """An untrained bundle that is far too sure of what it says."""
    bundle = small_bundle(2)
    with torch.no_grad():
        bundle.network.classifier.weight.mul_(40)
    return bundle.save(tmp_path / "bundle")


def test_a_bundle_is_calibrated_by_its_own_walks_and_answers_the_same_labels(
    tiny: TinyArchive, validation: tuple[LabelledSite, ...], sure: Path
) -> None:
    before = load_bundle(sure)
    calibrate(sure, validation, torch.device("cpu"))
    facts = read_bundle(sure).facts
    assert facts.temperature > 1
    assert facts.metrics[AFTER] < facts.metrics[BEFORE]
    sites = tiny.manifest.select("train").sites
    answers = [
        (one, other)
        for one, other in zip(
            before.answer(tiny.archive, sites), load_bundle(sure).answer(tiny.archive, sites), strict=True
        )
        if isinstance(one, Answer) and isinstance(other, Answer)
    ]
    assert len(answers) == len(sites)
    for one, other in answers:
        assert one.logits == other.logits
        assert one.label == other.label
        expected = torch.softmax(torch.tensor(one.logits, dtype=torch.float64) / facts.temperature, dim=0)
        assert other.probabilities == pytest.approx(expected.tolist())
    truth = torch.tensor([CLASSES.index(str(site.label)) for site in sites])
    known = torch.tensor([other.probabilities for _, other in answers])
    assert calibration_error(known, truth) == pytest.approx(facts.metrics[AFTER], abs=1e-6)


def test_a_bundle_that_has_its_temperature_is_left_alone(
    validation: tuple[LabelledSite, ...], sure: Path
) -> None:
    calibrate(sure, validation, torch.device("cpu"))
    files = {file.name: (file.stat().st_ino, file.read_bytes()) for file in sure.iterdir()}
    calibrate(sure, validation[:3], torch.device("cpu"))
    assert {file.name: (file.stat().st_ino, file.read_bytes()) for file in sure.iterdir()} == files


def unlike_sites() -> tuple[LabelledSite, ...]:
    """Sites whose walks have 7, 3 and 1 looks with keep (2, 1, 1)."""
    windows = (Window(0, 0, 200, 256), Window(96, 32, 64, 64), Window(0, 0, 20, 20))
    reader = MemoryReader.of(random_pixels(1, (256, 256)), 16)
    return tuple(
        LabelledSite(n, SiteTask(f"site {n}", reader, window), n, root_of(window, 16))
        for n, window in enumerate(windows)
    )


@pytest.mark.parametrize("aggregation", ["mean", "gated_attention", "feature_weighting", "ltpa"])
def test_what_a_walk_would_answer_after_each_look_is_the_aggregate_of_its_first_looks(
    aggregation: str,
) -> None:
    network, walk, cpu = small_network(4, aggregation=aggregation), WalkSettings(), torch.device("cpu")
    sites = unlike_sites()
    found, counts = logits_so_far(network, walk, sites, cpu)
    assert counts.tolist() == [7, 3, 1]
    assert found.shape == (3, 7, 3)
    results = list(Engine(network, walk).walk(site.task for site in sites))
    for result, rows, looks in zip(results, found, (7, 3, 1), strict=True):
        assert isinstance(result, WalkResult)
        assert len(result.walk.looked) == looks
        for count, row in enumerate(rows, start=1):
            first = result.walk.features[None, :count]
            with torch.inference_mode():
                plain = network.aggregate(first, torch.ones(first.shape[:2], dtype=torch.bool)).logits[0]
            torch.testing.assert_close(row, plain, atol=1e-5, rtol=1e-5)
        assert torch.equal(rows[looks - 1 :], result.output.logits.expand(8 - looks, -1))


def test_each_number_of_looks_has_a_temperature_and_the_last_one_is_that_of_whole_walks(
    tiny: TinyArchive, validation: tuple[LabelledSite, ...], sure: Path
) -> None:
    cpu = torch.device("cpu")
    before = read_bundle(sure)
    logits, _ = logits_so_far(before.network, before.facts.walk, validation, cpu)
    labels = torch.where(torch.arange(len(validation)) % 4 > 0, logits[:, 0].argmax(dim=1), 0)
    agreed = [replace(site, label=int(label)) for site, label in zip(validation, labels, strict=True)]
    calibrate(sure, agreed, cpu)
    facts = read_bundle(sure).facts
    assert len(facts.temperatures) == logits.shape[1] == 3  # 64 px scenes: the root and two children
    assert facts.temperatures == tuple(fit_temperature(logits[:, n], labels) for n in range(3))
    assert len(set(facts.temperatures)) == 3
    assert facts.temperatures[-1] == facts.temperature
    assert facts.temperatures_of(best_first=False) == facts.temperatures
    best = facts.temperatures_of(best_first=True)
    assert len(best) == 10  # of these scenes: the root and all its children
    assert (best[0], best[1]) == facts.temperatures[:2]
    # the third look of a best-first walk is at the second child, as that of a walk that keeps two is
    assert best[2] == facts.temperature


def test_walks_that_are_whole_have_no_say_in_what_unfinished_ones_are_worth() -> None:
    """40 sites right with one look and no more, 40 that guess after one look and are right after two."""
    guess, sure = torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0]])
    labels = torch.tensor([0] * 40 + [0, 1] * 20)
    after_one = torch.cat([sure.expand(40, 2), guess.expand(40, 2)])
    after_two = torch.where(labels[:, None] == 0, sure, sure.flip(1))
    looks = torch.tensor([1] * 40 + [2] * 40)
    first, whole = temperatures_so_far(torch.stack([after_one, after_two], dim=1), looks, labels)
    assert first == pytest.approx(100.0, rel=1e-3)  # half of them wrong: they know nothing
    assert whole == fit_temperature(after_two, labels) < 2
    few = torch.tensor([1] * 70 + [2] * 10)
    pooled, _ = temperatures_so_far(torch.stack([after_one, after_two], dim=1), few, labels)
    assert pooled == fit_temperature(after_one, labels)


def test_long_and_dense_walks_are_not_fitted_look_by_look() -> None:
    reader = MemoryReader.of(random_pixels(2, (256, 256)), 16)
    site = LabelledSite(
        0, SiteTask("site", reader, Window(0, 0, 256, 256)), 0, root_of(Window(0, 0, 256, 256), 16)
    )
    for walk, looks in ((WalkSettings(keep=(9,)), 32), (WalkSettings(policy="dense"), 1)):
        found, counts = logits_so_far(small_network(4), walk, [site], torch.device("cpu"))
        assert found.shape == (1, looks, 3)
        (result,) = Engine(small_network(4), walk).walk([site.task])
        assert isinstance(result, WalkResult)
        assert int(counts[0]) == len(result.walk.looked) > 32
        assert torch.equal(found[0, -1:], result.output.logits)
