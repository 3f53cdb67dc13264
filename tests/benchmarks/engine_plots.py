"""The plots of the engine's figures, from the JSON of a run.

python tests/benchmarks/engine_plots.py FIGURES.json docs/images
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"walk": "#0b6e4f", "dense": "#c1440e", "whole": "#3a5a98"}
NAMES = {"walk": "walk, keep (2, 1, 1, ...)", "dense": "dense sliding window", "whole": "reading all pixels"}


def plots(figures: Mapping[str, Any], folder: Path) -> None:
    """Whatever these figures are enough for: cost.png and engine.png."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(figures))  # keys are text, as in the file
    if "seconds_per_site" in plain:
        _cost(plain, folder / "cost.png")
    if "rates" in plain:
        _engine(plain, folder / "engine.png")


def _cost(figures: dict[str, Any], path: Path) -> None:
    """Seconds and bytes of a site over its side."""
    picture = Figure(figsize=(9.6, 3.8), layout="constrained")
    times, sizes = picture.subplots(1, 2)
    for name, values in figures["seconds_per_site"].items():
        _line(times, values, name)
    times.set_ylabel("seconds a site")
    slope, tiles = figures["time_slope"], figures["tiles_per_site"]
    first, last = (list(tiles.values())[n] for n in (0, -1))
    times.set_title(f"walk: {first:g} to {last:g} tiles, slope {slope:g} against pixels", fontsize=10)
    _line(sizes, figures["bytes_decoded_per_site"], "walk")
    _line(sizes, figures["bytes_of_native_pixels"], "whole")
    sizes.set_ylabel("bytes a site")
    sizes.set_title("decoded, of real content", fontsize=10)
    for axes in (times, sizes):
        sides = [int(side) for side in tiles]
        axes.set(xscale="log", yscale="log", xlabel="side of a site, native pixels")
        axes.set_xticks(sides, [f"{side:,}".replace(",", " ") for side in sides], fontsize=8)
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    _signed(picture, figures)
    picture.savefig(path, dpi=150)


def _line(axes: Axes, values: Mapping[str, float], name: str) -> None:
    sides = [int(side) for side in values]
    axes.plot(sides, list(values.values()), marker="o", color=COLOURS[name], label=NAMES[name])


def _engine(figures: dict[str, Any], path: Path) -> None:
    """Looks a second of every way, by runtime."""
    rates = figures["rates"]
    picture = Figure(figsize=(9.6, 3.4), layout="constrained")
    for axes, (runtime, found) in zip(
        picture.subplots(1, len(rates), squeeze=False)[0], rates.items(), strict=True
    ):
        ways = found["looks_per_second"]
        names = list(ways)[::-1]
        best = ways["memory"]
        bars = axes.barh(names, [ways[name] for name in names], color=[_colour(name) for name in names])
        axes.bar_label(
            bars, [f"{ways[name]:g}  ({ways[name] / best:.0%})" for name in names], padding=3, fontsize=8
        )
        axes.axvline(best, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_xlim(0, 1.3 * max(ways.values()))
        axes.set_title(f"runtime {runtime}", fontsize=10)
        axes.set_xlabel("looks a second, one thread")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    _signed(picture, figures)
    picture.savefig(path, dpi=150)


def _colour(name: str) -> str:
    if name == "memory":
        return "#888888"
    return COLOURS["dense" if name.startswith("loop") else "walk"]


def _signed(picture: Figure, figures: dict[str, Any]) -> None:
    """What it was measured on, in small letters."""
    where = figures["gpu"] or figures["machine"]
    picture.supxlabel(
        f"efficientnet_b0, tiles of 224 px; {where}; {figures['date']}", fontsize=7, color="#555555"
    )


if __name__ == "__main__":
    mpl.use("agg")
    plots(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
