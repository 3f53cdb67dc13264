"""Arithmetic of all sites, corrected by what walks over some of them took: a ratio estimate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tnet_geo.operations.estimating.probe import Walked
from tnet_geo.operations.forecasting.forecast import Cost, expected_total
from tnet_geo.operations.forecasting.survey import Known, Survey

__all__ = ["Probed", "corrected"]


@dataclass(frozen=True, slots=True)
class Probed:
    """Sites that one worker was given, and what became of the first of them."""

    share: Sequence[Known]
    walked: Walked

    @property
    def known(self) -> Sequence[Known]:
        """Those that were walked, in the order of `walked.each`."""
        return self.share[: len(self.walked.each)]


def corrected(found: Survey, probed: Sequence[Probed]) -> tuple[Cost, tuple[float, float]]:
    """What all sites take, without time and multiply-accumulates, and how sure tiles and bytes are.

    Of each the arithmetic of all sites is multiplied by the ratio of what was measured to the arithmetic of
    the sites that were walked, which is exact where all of them were. How sure: standard errors of sampling
    without replacement, as shares of tiles and of bytes; NaN where one walk alone says nothing of that.

    Source: Cochran, "Sampling Techniques" (3rd edition, 1977), chapter 6.
    """
    pairs = [pair for one in probed for pair in zip(one.known, one.walked.each, strict=True)]
    if not pairs:
        return expected_total(found), (math.nan, math.nan)
    expected = np.array([_facts(known) for known, _ in pairs])
    took = np.array([(cost.tiles, cost.decisions, cost.bytes_decoded) for _, cost in pairs], dtype=float)
    read = [(one.walked.read.bytes_fetched, one.walked.read.requests) for one in probed]
    sums = [*took.sum(axis=0), *np.sum(read, axis=0)]
    every = np.array(list(map(_facts, found.known)))
    totals = [found.total(column) for column in every.T]
    whole = expected.sum(axis=0)
    numbers = [
        round(total * got / least) if least else 0
        for total, got, least in zip(totals, sums, whole, strict=True)
    ]
    cost = Cost(found.sites, *numbers)
    errors = [
        math.hypot(
            found.error([_facts(known)[n] for known in found.known]),
            _error(expected[:, n], took[:, n], found),
        )
        for n in (0, 2)
    ]
    return cost, (errors[0], errors[1])


def _facts(known: Known) -> tuple[float, ...]:
    """In the order of the fields of a `Cost`, from tiles on."""
    walk = known.expected
    return walk.tiles, walk.decisions, walk.bytes_decoded, known.fetched, known.requests


def _error(expected: NDArray[np.float64], took: NDArray[np.float64], found: Survey) -> float:
    """Standard error of the ratio as a share of it, from the sites walked of those that are known."""
    count, known = len(took), len(found.known)
    if count == known or not took.sum():
        return 0.0
    if count < 2:
        return math.nan
    rest = took - expected * took.sum() / expected.sum()
    spread = math.sqrt(float((rest**2).sum()) / (count - 1))
    return spread * math.sqrt((1 - count / known) / count) / float(took.mean())
