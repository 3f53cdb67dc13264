"""A run in a few numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from tnet_geo.results.schema import RunRecord
from tnet_geo.units import bytes_text, seconds_text

__all__ = ["ClassSummary", "Summary", "summarise"]

SITES = """
    WITH walks AS (
        SELECT site_id, sum((height // (1 << level)) ** 2) AS pixels
        FROM trails GROUP BY site_id
    )
    SELECT
        count(*) AS answered,
        avg(confidence) AS confidence,
        avg(tiles) AS tiles,
        avg(bytes_decoded) AS bytes,
        avg(pixels / (height * width)) AS pixel_fraction,
        count(expected) AS known,
        count(*) FILTER (label = expected) AS correct
    FROM predictions LEFT JOIN walks USING (site_id)
"""

CLASSES = """
    WITH answers AS (
        SELECT
            label,
            count(*) AS sites,
            avg(confidence) AS confidence,
            count(*) FILTER (expected IS NOT NULL) AS checked,
            count(*) FILTER (label = expected) AS correct
        FROM predictions GROUP BY label
    ), truth AS (
        SELECT expected AS label, count(*) AS expected
        FROM predictions WHERE expected IS NOT NULL GROUP BY expected
    )
    SELECT
        label,
        coalesce(sites, 0) AS sites,
        confidence,
        coalesce(expected, 0) AS expected,
        coalesce(checked, 0) AS checked,
        coalesce(correct, 0) AS correct
    FROM answers FULL JOIN truth USING (label)
    ORDER BY label
"""


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """One class among the answers."""

    label: str
    sites: int
    """Answered as this class."""
    confidence: float | None
    """Mean over those."""
    expected: int
    """Sites that the manifest says are of this class."""
    checked: int
    """Of `sites`, those whose truth the manifest knows."""
    correct: int

    @property
    def precision(self) -> float | None:
        """Share of right ones among the answers whose truth is known."""
        return self.correct / self.checked if self.checked else None

    @property
    def recall(self) -> float | None:
        """Share of this class's sites that were found."""
        return self.correct / self.expected if self.expected else None


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished run in a few numbers; means are over answered sites, None where there are none."""

    run: str
    selected: int
    answered: int
    set_aside: int
    known: int
    """Answered sites whose class the manifest knows."""
    correct: int
    accuracy: float | None
    """`correct` over `known`."""
    confidence: float | None
    tiles: float | None
    """Looked at per site."""
    bytes: float | None
    """Decoded per site."""
    pixel_fraction: float | None
    """Pixels read at any level over native pixels of the site."""
    seconds: float
    """Wall time of the run."""
    classes: tuple[ClassSummary, ...]

    def lines(self) -> list[str]:
        """The same for people."""
        counts = f"{self.selected} sites selected, {self.answered} answered, {self.set_aside} set aside"
        text = [f"run {self.run}: {counts}"]
        if self.accuracy is not None:
            text.append(f"accuracy {self.accuracy:.3f} ({self.correct} of {self.known} whose class is known)")
        if self.tiles is not None:
            share = f"{self.pixel_fraction or 0:.1%} of the pixels"
            cost = f"{self.tiles:.2f} tiles, {bytes_text(self.bytes or 0)}, {share}"
            text.append(f"per site {cost}; {seconds_text(self.seconds)} in all")
        width = max((len(row.label) for row in self.classes), default=0)
        text += ["", f"{'class':{width}}  sites  confidence  expected  precision  recall"]
        for row in self.classes:
            sure, precision, recall = map(_figure, (row.confidence, row.precision, row.recall))
            counted = f"{row.label:{width}}  {row.sites:5}  {sure:>10}  {row.expected or '':>8}"
            text.append(f"{counted}  {precision:>9}  {recall:>6}".rstrip())
        return text


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def summarise(record: RunRecord, query: Callable[[str], pa.Table]) -> Summary:
    """Ask the tables of a run for its numbers; every class of the bundle has a row."""
    whole = query(SITES).to_pylist()[0]
    found = {row["label"]: ClassSummary(**row) for row in query(CLASSES).to_pylist()}
    labels = dict.fromkeys((*record.classes, *found))  # the bundle's order, then labels that it lacks
    return Summary(
        run=record.id,
        selected=record.selected,
        set_aside=record.set_aside,
        seconds=record.seconds,
        accuracy=whole["correct"] / whole["known"] if whole["known"] else None,
        classes=tuple(found.get(label, ClassSummary(label, 0, None, 0, 0, 0)) for label in labels),
        **whole,
    )
