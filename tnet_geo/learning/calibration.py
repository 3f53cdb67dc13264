"""Confidence that means what it says: temperatures fitted on validation, and the error that is left.

A walk that a budget ends early answers from fewer looks, and is less sure than it seems: each number of
looks has a temperature of its own.

Sources: Guo et al., On Calibration of Modern Neural Networks (ICML 2017); the site of unknown class is
Platt's correction of his targets (1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from tnet_geo.inference import Budget, Engine
from tnet_geo.inference.budgets import NO_BUDGET
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.model import TraversalNetwork, WalkSettings, read_bundle
from tnet_geo.trail import Failure

__all__ = [
    "AFTER",
    "BEFORE",
    "calibrate",
    "calibration_error",
    "fit_temperature",
    "logits_so_far",
    "temperatures_so_far",
]

BEFORE, AFTER = "calibration_error_before", "calibration_error_after"
"""Of `BundleFacts.metrics`: without and with the temperature, on the validation sites."""
_BINS = 15
_COLDEST, _HOTTEST = 0.01, 100.0
_HALVINGS = 60
_MOST_LOOKS = 32
"""Numbers of looks with a temperature of their own; what changes beyond them is little, and dense walks,
which nobody ends early, have thousands."""
_FEWEST = 20
"""Sites whose walks go on, from which a temperature is fitted; where there are fewer, all sites count."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """What logits [n, classes] are divided by so that softmax gives the labels [n] the most likelihood.

    The negative log-likelihood is convex in 1 / temperature, so that its only minimum is found by halving.
    One site of unknown class, seen by the mean of all logits, is counted with them: where every label
    is right already, likelihood alone would grow without an end and claim certainty for ever after.
    """
    z = logits.double() - logits.double().mean(dim=1, keepdim=True)
    if z.abs().max() == 0:
        return 1.0
    wanted = torch.nn.functional.one_hot(labels, z.shape[1]).double()
    wanted += (1 / z.shape[1] - wanted) / (len(z) + 1)

    def slope(sharpness: float) -> float:
        """Of the mean negative log-likelihood over 1 / temperature."""
        return float(((torch.softmax(sharpness * z, dim=1) - wanted) * z).sum())

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(f"{(low * high) ** -0.5:.6g}")


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error: how far confidence is from accuracy, over 15 bins of confidence.

    probabilities [n, classes], labels int64 [n].
    """
    if probabilities.shape[1] < 2:
        return 0.0
    import_module("tnet_geo.model.torchvision_schemas")  # must come before torchmetrics
    classification = import_module("torchmetrics.functional.classification")  # seconds, only where needed
    error = classification.multiclass_calibration_error(
        probabilities, labels, num_classes=probabilities.shape[1], n_bins=_BINS, norm="l1"
    )
    return float(error)


def calibrate(path: Path, sites: Sequence[LabelledSite], device: torch.device) -> None:
    """Give a bundle its temperatures, once: its walks over validation sites are made anew for that.

    A bundle that has them is left alone, so that a run that goes on does not fit again.
    """
    bundle = read_bundle(path)
    facts, network = bundle.facts, bundle.network.on(device)
    if AFTER in facts.metrics:
        return
    labels = torch.tensor([site.label for site in sites])
    logits, looks = logits_so_far(network, facts.walk, sites, device)
    temperatures = temperatures_so_far(logits, looks, labels)
    best_first: tuple[float, ...] = ()
    if facts.walk.policy == "location" and facts.walk.keep:
        likeliest = logits_so_far(network, facts.walk, sites, device, Budget(tiles=_MOST_LOOKS))
        best_first = temperatures_so_far(*likeliest, labels)
    errors = {
        name: calibration_error(torch.softmax(logits[:, -1].double() / divisor, dim=1), labels)
        for name, divisor in ((BEFORE, 1.0), (AFTER, temperatures[-1]))
    }
    fitted = {
        "temperature": temperatures[-1],
        "temperatures": temperatures,
        "temperatures_best_first": best_first,
        "metrics": facts.metrics | errors,
    }
    replace(bundle, facts=facts.model_copy(update=fitted)).save(path, replace=True)


def temperatures_so_far(logits: Tensor, looks: Tensor, labels: Tensor) -> tuple[float, ...]:
    """After 1, 2, ... looks, from the walks that go on then; the last one from all walks as they end."""
    found = []
    for count in range(1, logits.shape[1]):
        going_on = looks > count
        some = going_on if int(going_on.sum()) >= _FEWEST else torch.ones_like(going_on)
        found.append(fit_temperature(logits[some, count - 1], labels[some]))
    return (*found, fit_temperature(logits[:, -1], labels))


def logits_so_far(
    network: TraversalNetwork,
    walk: WalkSettings,
    sites: Sequence[LabelledSite],
    device: torch.device,
    budget: Budget = NO_BUDGET,
) -> tuple[Tensor, Tensor]:
    """What walks over labelled sites would answer after 1, 2, ... looks, and how many looks they had.

    Logits float32 [sites, looks, classes], looks int64 [sites]. There are as many as the longest walk has,
    but at most 32: the last one stands for whole walks. A site whose walk is shorter keeps its answer. Of
    dense walks there is only the whole.
    """
    most = 1 if walk.policy == "dense" else _MOST_LOOKS
    rows, looks = [], []
    engine = Engine(network.eval(), walk, budget=budget, device=device)
    for result in engine.walk(site.task for site in sites):
        if isinstance(result, Failure):  # loaded before, so this is damage that came later
            raise RuntimeError(result.reason)
        looks.append(len(result.walk.looked))
        beginnings = _beginnings(network, result.walk.features, min(looks[-1], most) - 1)
        rows.append(torch.cat([beginnings, result.output.logits]))
    longest = max(len(row) for row in rows)
    padded = [torch.cat([row, row[-1:].expand(longest - len(row), -1)]) for row in rows]
    return torch.stack(padded), torch.tensor(looks)


@torch.inference_mode()
def _beginnings(network: TraversalNetwork, features: Tensor, count: int) -> Tensor:
    """Logits [count, classes] of the first 1, 2, ... `count` looks of one walk; features [looks, F]."""
    first = features[:count].to(network.classifier.weight.device)
    if not count:
        return torch.empty(0, network.settings.classes)
    seen = torch.ones(count, count, dtype=torch.bool, device=first.device).tril()
    return network.aggregate(first.expand(count, -1, -1), seen).logits.cpu()
