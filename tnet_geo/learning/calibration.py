"""Confidence that means what it says: a temperature fitted on validation, and the error that is left.

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

from tnet_geo.learning.sites import LabelledSite
from tnet_geo.learning.stages import walk_logits
from tnet_geo.model import read_bundle

__all__ = ["AFTER", "BEFORE", "calibrate", "calibration_error", "fit_temperature"]

BEFORE, AFTER = "calibration_error_before", "calibration_error_after"
"""Of `BundleFacts.metrics`: without and with the temperature, on the validation sites."""
_BINS = 15
_COLDEST, _HOTTEST = 0.01, 100.0
_HALVINGS = 60


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
    """Give a bundle its temperature, once: its walks over validation sites are made anew for that.

    A bundle that has one is left alone, so that a run that goes on does not fit again.
    """
    bundle = read_bundle(path)
    facts = bundle.facts
    if AFTER in facts.metrics:
        return
    logits, labels, _ = walk_logits(bundle.network.on(device), facts.walk, sites, device)
    temperature = fit_temperature(logits, labels)
    errors = {
        name: calibration_error(torch.softmax(logits.double() / divisor, dim=1), labels)
        for name, divisor in ((BEFORE, 1.0), (AFTER, temperature))
    }
    fitted = facts.model_copy(update={"temperature": temperature, "metrics": facts.metrics | errors})
    replace(bundle, facts=fitted).save(path, replace=True)
