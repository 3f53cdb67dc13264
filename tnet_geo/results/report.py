"""A run as one page that works offline: figures, rivals, and walks drawn on their pictures."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined

from tnet_geo.errors import InvalidArchive, OutputExists, Refused, SetAside
from tnet_geo.grid import Window
from tnet_geo.results.drawing import scenes_of
from tnet_geo.results.marks import Mark, depth_colour, marks_of, resolution_text
from tnet_geo.results.query import Results
from tnet_geo.results.scenery import Picture, Scenes, scenery_of
from tnet_geo.results.walks import Walk
from tnet_geo.trail import Look
from tnet_geo.units import bytes_text, seconds_text

__all__ = ["write_report"]

GENERATOR = "tnet-geo report"
"""Stands in the page's head; only pages that say so are overwritten."""

MOST_REASONS = 100
"""Sites set aside that are listed; the rest is in failed.csv."""

MOST_LOOKS = 24
"""Looks of a walk that are listed; of longer walks those that weigh most."""

MOST_CLASSES = 15
"""Classes up to which the table of confusions is shown."""

CONFUSIONS = """
    SELECT expected, label, count(*) AS sites FROM predictions WHERE expected IS NOT NULL GROUP BY ALL
"""

CHOICE = "SELECT site_id, label, expected, confidence FROM predictions ORDER BY site_id"


@dataclass(frozen=True, slots=True)
class _Sheet:
    """One walk as the page shows it; without pictures where its scene cannot be read."""

    walk: Walk
    shares: tuple[tuple[str, float], ...]
    """The most probable classes, the first one being the answer."""
    ground: Window | None = None
    beyond: bool = False
    picture: str = ""
    crops: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    trouble: str = ""

    @property
    def looks(self) -> list[Look]:
        """Those that are listed."""
        return self.walk.weightiest(MOST_LOOKS)

    @property
    def reach(self) -> float:
        """The largest evidence, for or against: the length of a whole bar."""
        return max(abs(look.evidence) for look in self.walk.looks) or 1.0


def write_report(
    results: Results,
    out: str | Path,
    *,
    comparison: Mapping[str, Mapping[str, float]] | None = None,
    sites: int = 12,
    archive: Scenes | str | Path | None = None,
    title: str | None = None,
    question: str | None = None,
) -> Path:
    """Write the page, all of it or nothing; gives its path.

    comparison: by name (walk, root, random, dense) the accuracy, and per site the tiles, bytes,
        pixel_fraction and seconds of ways to look at the same sites.
    sites: how many walks are shown; wrong answers come first and take up to half of them.
    archive: where the scenes are now, if not where the run found them. Without it the page says so in
        the place of the pictures.
    title, question: what stands on top instead of our words.

    Raises:
        OutputExists: `out` is there and is not such a page.
    """
    path = Path(out)
    if path.exists() and not _is_ours(path):
        raise OutputExists(str(path))
    summary, record = results.summary(), results.record
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            generator=GENERATOR,
            title=title or "What the walks found",
            question=question or _question(record.classes, record.selected),
            record=record,
            summary=summary,
            comparison=_charts(comparison) if comparison else None,
            confusions=_confusions(results),
            depths=_depths(results),
            sheets=_sheets(results, sites, archive),
            failures=results.failures(),
            most_reasons=MOST_REASONS,
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tnet_geo.results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": bytes_text,
        "duration": seconds_text,
        "percent": _percent,
        "moment": _moment,
        "signed": lambda value: f"{value:+.2f}".replace("-", "\u2212"),
        "resolution": resolution_text,
        "depth_colour": depth_colour,
    }
    return environment


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR}"'.encode() in file.read(2048)


def _question(classes: Sequence[str], selected: int) -> str:
    sites = "one site" if selected == 1 else f"{selected:,} sites"
    return f"Which of {len(classes)} classes is each of {sites}, and where does one have to look to tell?"


def _percent(share: float | None, digits: int = 1) -> str:
    """A share of one; full and nothing without digits behind the point."""
    if share is None:
        return "\u2013"
    return f"{share:.0%}" if share in (0, 1) else f"{share:.{digits}%}"


def _moment(text: str) -> str:
    """A moment of ISO 8601 for people, in UTC; what is none stays as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{moment.astimezone(UTC):%Y-%m-%d, %H:%M} UTC"


def _charts(comparison: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Rows of the table, and per panel one bar per way to look, as shares of the longest."""
    kinds: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
        ("accuracy", "Accuracy", "higher is better", _percent),
        ("pixel_fraction", "Pixels read", "of each site's native pixels; lower is cheaper", _percent),
        ("bytes", "Bytes decoded", "per site; lower is cheaper", bytes_text),
        ("seconds", "Time", "per site, reading included; lower is faster", seconds_text),
    )
    panels = []
    for key, heading, note, words in kinds:
        values = {name: row[key] for name, row in comparison.items() if key in row}
        longest = 1.0 if key == "accuracy" else max(values.values(), default=0.0) or 1.0
        bars = [(name, value / longest, words(value)) for name, value in values.items()]
        panels.append({"heading": heading, "note": note, "bars": bars})
    return {"rows": comparison, "panels": panels}


def _confusions(results: Results) -> dict[str, Any] | None:
    """Counts by true and answered class, if the truth is known and the table is not too wide."""
    rows = results.query(CONFUSIONS).to_pylist()
    known = {row["expected"] for row in rows} | {row["label"] for row in rows}
    labels = list(dict.fromkeys((*results.record.classes, *sorted(known))))
    if not rows or len(labels) > MOST_CLASSES:
        return None
    counts = {(row["expected"], row["label"]): row["sites"] for row in rows}
    totals = {label: sum(counts.get((label, other), 0) for other in labels) for label in labels}
    return {"labels": labels, "counts": counts, "totals": totals}


def _depths(results: Results) -> list[dict[str, Any]]:
    """Per depth the levels and the looks per site."""
    rows = results.query("""
        SELECT depth, min(level) AS finest, max(level) AS coarsest, count(*) AS looks
        FROM trails GROUP BY depth ORDER BY depth
    """)
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def _sheets(results: Results, count: int, archive: Scenes | str | Path | None) -> list[_Sheet]:
    walks = results.walks(_chosen(results.query(CHOICE).to_pylist(), count))
    classes = results.record.classes
    try:
        scenes = scenes_of(results, archive)
    except InvalidArchive as error:
        return [_Sheet(walk, _shares(walk, classes), trouble=str(error)) for walk in walks]
    return [_sheet(walk, scenes, _shares(walk, classes)) for walk in walks]


def _chosen(rows: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Sites to show: the wrong ones that were surest first, up to half; then right ones of all classes.

    Right ones are taken class by class in turn, by site. Where there are not enough of a kind, the
    other fills up.
    """
    wrong = [row for row in rows if row["expected"] is not None and row["expected"] != row["label"]]
    wrong.sort(key=lambda row: -row["confidence"])
    shown = {row["site_id"] for row in wrong}
    by_class: dict[str, list[str]] = {}
    for row in rows:
        if row["site_id"] not in shown:
            by_class.setdefault(row["label"], []).append(row["site_id"])
    others = [site for turn in zip_longest(*by_class.values()) for site in turn if site is not None]
    first = [row["site_id"] for row in wrong[: max(count // 2, count - len(others))]]
    return first + others[: count - len(first)]


def _shares(walk: Walk, classes: Sequence[str], count: int = 4) -> tuple[tuple[str, float], ...]:
    ranked = sorted(zip(classes, walk.probabilities, strict=True), key=lambda pair: -pair[1])
    return tuple(ranked[:count])


def _sheet(walk: Walk, scenes: Scenes, shares: tuple[tuple[str, float], ...]) -> _Sheet:
    try:
        scenery = scenery_of(walk, scenes)
    except (SetAside, Refused) as error:
        return _Sheet(walk, shares, trouble=str(error))
    listed = walk.weightiest(MOST_LOOKS)
    return _Sheet(
        walk,
        shares,
        ground=scenery.ground,
        beyond=scenery.beyond,
        picture=_data_uri(scenery.picture, quality=86),
        crops=tuple(_data_uri(scenery.crops[look.order], quality=92) for look in listed),
        marks=tuple(mark for mark in marks_of(walk, scenery.ground) if mark.look in listed),
    )


def _data_uri(picture: Picture, quality: int) -> str:
    """A picture as a JPEG within the page; colours are kept at full resolution for small objects."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, content = cv2.imencode(".jpg", picture[..., ::-1], settings)
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
