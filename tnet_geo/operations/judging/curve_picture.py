"""The curve of accuracy against tiles as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from tnet_geo.operations.judging.contest import Contestant
from tnet_geo.operations.judging.curve import CurvePoint, Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curve_picture"]

INK, MUTED, LINE = "#1c2227", "#5f6870", "#d5d9d6"
STYLES: Mapping[Family, tuple[str, str, str]] = {
    "tiles": ("#1d6f8a", "o", "--tiles N: best first"),
    "tiles and stop-at": ("#7b4ea3", "D", "--tiles N --stop-at C"),
    "keep": ("#c07a12", "s", "--keep k,1"),
    "stop-at": ("#b8433a", "^", "--stop-at C"),
    "bytes": ("#4f8a3d", "v", "--bytes SIZE"),
    "deadline": ("#8a8f94", "P", "--deadline TIME"),
}
"""Colour, marker and words of each kind of budget: markers tell lines apart where colours do not."""


def curve_picture(
    points: Sequence[CurvePoint], contestants: Mapping[str, Contestant], *, sites: int
) -> bytes:
    """A PNG: a line for each kind of budget, a mark for each contestant of the table."""
    figure = Figure(figsize=(8.2, 4.8), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.125, 0.895, 0.79))
    for family, (colour, marker, words) in STYLES.items():
        some = sorted((p for p in points if p.family == family), key=lambda point: point.row.tiles)
        if some:
            _draw_line(axes, some, colour, marker, words)
    most = max(row.tiles for row in contestants.values())
    for name, row in contestants.items():
        _draw_contestant(axes, name, row, most)
    _dress(axes, sites)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _draw_line(axes: Axes, points: Sequence[CurvePoint], colour: str, marker: str, words: str) -> None:
    tiles = [point.row.tiles for point in points]
    accuracy = [point.row.accuracy for point in points]
    errors = [point.standard_error for point in points]
    axes.errorbar(
        tiles,
        accuracy,
        yerr=errors,
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.6,
        elinewidth=0.7,
        alpha=0.9,
        label=words,
    )


def _draw_contestant(axes: Axes, name: str, row: Contestant, most: float) -> None:
    axes.plot([row.tiles], [row.accuracy], marker="*", markersize=11, color=INK, linestyle="none", zorder=5)
    inwards = row.tiles == most  # what stands furthest right has its name on the left
    axes.annotate(
        name,
        (row.tiles, row.accuracy),
        xytext=(-7 if inwards else 7, -11),
        textcoords="offset points",
        ha="right" if inwards else "left",
        size=9,
        weight="bold",
        color=INK,
        zorder=6,
    )


def _dress(axes: Axes, sites: int) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0, 1.04)
    axes.set_xlabel("tiles looked at per site, mean", color=INK)
    axes.set_ylabel("accuracy", color=INK)
    axes.set_title(f"{sites} sites; bars: one standard error", size=9, color=MUTED, loc="right", pad=6)
    axes.set_title("Accuracy against tiles", size=11, color=INK, weight="bold", loc="left", pad=6)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8.5, frameon=True, edgecolor=LINE)
