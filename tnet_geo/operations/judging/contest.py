"""One way to look, on all sites of a split: how often it is right, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tnet_geo.errors import InvalidManifest
from tnet_geo.imagery import Site
from tnet_geo.inference import Classifier
from tnet_geo.learning.calibration import calibration_error
from tnet_geo.pyramid import SceneArchive
from tnet_geo.trail import Answer, Failure

__all__ = ["Contest", "Contestant", "contest", "contest_lines"]


@dataclass(frozen=True)
class Contestant:
    """One way to look, on all sites of a split; everything but accuracy is per site."""

    accuracy: float
    tiles: float
    bytes: float
    """Decoded."""
    pixel_fraction: float
    """Pixels read at any level over native pixels of the site."""
    seconds: float
    """Wall time, reading included, one process."""
    calibration_error_before: float
    """Expected calibration error of confidence, over all sites, as if the bundle had no temperature"""
    calibration_error_after: float
    """and with the temperature that was fitted on validation."""


@dataclass(frozen=True)
class Contest:
    """A contestant, and what it answered."""

    row: Contestant
    answers: Sequence[Answer]
    failures: Sequence[Failure]


def contest_lines(contestants: Mapping[str, Contestant]) -> list[str]:
    """One line per way to look, for people."""
    lines = [f"{'':8}  accuracy    tiles     bytes   pixels   ms a site  calibration error, before and after"]
    for name, row in contestants.items():
        cost = f"{row.tiles:7.2f}  {row.bytes:8.0f}  {row.pixel_fraction:6.1%}  {1000 * row.seconds:10.2f}"
        errors = f"{row.calibration_error_before:17.3f}  {row.calibration_error_after:9.3f}"
        lines.append(f"{name:8}  {row.accuracy:8.3f}  {cost}  {errors}")
    return lines


def contest(classifier: Classifier, archive: SceneArchive, sites: Sequence[Site]) -> Contest:
    """Answer labelled sites, and hold the answers against the labels.

    Raises:
        InvalidManifest: no site at all can be answered.
    """
    truth = {site.site_id: site for site in sites}
    list(classifier.answer(archive, sites[:1]))  # the first pass of a process pays for warming up
    begun = time.perf_counter()
    outcomes = list(classifier.answer(archive, sites))
    seconds = (time.perf_counter() - begun) / len(sites)
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if not answers:
        failure = next(outcome for outcome in outcomes if isinstance(outcome, Failure))
        raise InvalidManifest("", "has no site that can be answered", failure.reason.rstrip("."))
    area = (2 * classifier.half_px) ** 2
    fractions = [
        len(answer.trail) * area / _native_pixels(truth[answer.site_id], archive) for answer in answers
    ]
    count = len(answers)
    before, after = _calibration_errors(answers, truth, classifier.classes)
    row = Contestant(
        accuracy=sum(answer.label == truth[answer.site_id].label for answer in answers) / count,
        tiles=sum(len(answer.trail) for answer in answers) / count,
        bytes=sum(answer.bytes_decoded for answer in answers) / count,
        pixel_fraction=sum(fractions) / count,
        seconds=seconds,
        calibration_error_before=before,
        calibration_error_after=after,
    )
    return Contest(row, answers, [outcome for outcome in outcomes if isinstance(outcome, Failure)])


def _calibration_errors(
    answers: Sequence[Answer], truth: Mapping[str, Site], classes: Sequence[str]
) -> tuple[float, float]:
    """Of confidence without and with the bundle's temperature, over sites of known classes."""
    place = {label: n for n, label in enumerate(classes)}
    known = [answer for answer in answers if truth[answer.site_id].label in place]
    if not known:
        return 0.0, 0.0
    labels = torch.tensor([place[str(truth[answer.site_id].label)] for answer in known])
    logits = torch.tensor([answer.logits for answer in known], dtype=torch.float64)
    calibrated = torch.tensor([answer.probabilities for answer in known], dtype=torch.float64)
    return calibration_error(torch.softmax(logits, dim=1), labels), calibration_error(calibrated, labels)


def _native_pixels(site: Site, archive: SceneArchive) -> int:
    stored = archive.adopt(site)
    if stored.window is not None:
        return stored.window.height * stored.window.width
    rows, cols = archive.reader(stored.scene_id).spec.shape
    return rows * cols
