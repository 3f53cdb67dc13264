"""`tnet-geo evaluate`: the walk beside its rivals."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

import tnet_geo
from tnet_geo.cli.budgets import Bytes, Deadline, Keep, StopAt, Tiles, budget_of, keep_of
from tnet_geo.cli.progress import progress
from tnet_geo.cli.show import show

__all__ = ["Accepted", "Split", "evaluate"]


class Split(StrEnum):
    """Parts of a manifest."""

    train = "train"
    val = "val"
    test = "test"
    seq = "seq"


class Contradiction(StrEnum):
    """What pixels may contradict a bundle in."""

    canvas = "canvas"
    dtype = "dtype"
    gsd = "gsd"
    reduction = "reduction"
    value_range = "value_range"


Accepted = Annotated[
    list[Contradiction] | None,
    Option("--accept", help="Take pixels that differ so from the bundle's as they are; may be repeated."),
]


def evaluate(
    run_dir: Annotated[Path, Argument(metavar="RUN", help="Folder of a finished training run.")],
    archive: Annotated[Path | None, Option(help="Archive, instead of the run's.")] = None,
    manifest: Annotated[Path | None, Option(help="Table of sites, instead of the run's.")] = None,
    split: Annotated[Split, Option(help="Which sites.")] = Split.test,
    out: Annotated[Path | None, Option("--out", "-o", help="JSON file for the figures.")] = None,
    accept: Accepted = None,
    keep: Keep = None,
    tiles: Tiles = None,
    stop_at: StopAt = None,
    size: Bytes = None,
    deadline: Deadline = None,
    curve: Annotated[
        Path | None, Option(help="PNG for accuracy against tiles, under budgets of every kind.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Compare the walk with three rivals.

    Accuracy, tiles, bytes, seconds per site and calibration error of the walk, and of rivals trained on the
    same sites: the root tile alone, random walks with as many tiles, and a dense sliding window at native
    resolution. Budgets are for the walk alone.

    Example: tnet-geo evaluate runs/first -o evaluation.json

    Example: tnet-geo evaluate runs/first --curve curve.png
    """
    kept, budget = keep_of(keep), budget_of(tiles, stop_at, size, deadline)
    with progress("settings") as bar:
        report = tnet_geo.evaluate(
            run_dir,
            archive=archive,
            manifest=manifest,
            split=split.value,
            out=out,
            accept=[word.value for word in accept or ()],
            keep=kept,
            budget=budget,
            curve=curve,
            progress=bar,
        )
    show(report, as_json=json)
    raise Exit(report.exit_code)
