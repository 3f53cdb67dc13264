"""`tnet-geo classify`: answer every site."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Exit, Option

import tnet_geo
from tnet_geo.cli.budgets import Bytes, Deadline, Keep, StopAt, Tiles, budget_of, keep_of
from tnet_geo.cli.evaluate import Accepted, Split
from tnet_geo.cli.show import show

__all__ = ["Precision", "Runtime", "classify"]


class Runtime(StrEnum):
    """Eager PyTorch, or something faster that answers alike within a bound."""

    folded = "folded"
    eager = "eager"
    compiled = "compiled"
    onnx = "onnx"


class Precision(StrEnum):
    """Of convolutions and products."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def classify(
    archive: Annotated[str, Option(help="Archive of pyramids, or COGs: folder, file, .txt list, URL.")],
    bundle: Annotated[Path, Option(help="Trained model.")],
    out: Annotated[Path, Option("--out", "-o", help="Results; a second run adds what is missing.")],
    manifest: Annotated[
        Path | None, Option(help="Table of sites; without one, every COG of the archive is a site.")
    ] = None,
    split: Annotated[Split | None, Option(help="Only these sites.")] = None,
    keep: Keep = None,
    tiles: Tiles = None,
    stop_at: StopAt = None,
    size: Bytes = None,
    deadline: Deadline = None,
    workers: Annotated[
        int | None, Option(help="Processes; by default one per GPU, or per usable core.", min=1)
    ] = None,
    scheduler: Annotated[str | None, Option(help="Address of a running Dask scheduler.")] = None,
    device: Annotated[
        str, Option(help="auto (GPUs where there are any), cpu, cuda, or one as cuda:1.")
    ] = "auto",
    accept: Accepted = None,
    runtime: Annotated[Runtime, Option(help="What computes looks.")] = Runtime.folded,
    precision: Annotated[Precision, Option(help="Of that.")] = Precision.float32,
    json: Annotated[bool, Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Answer every site of a manifest.

    Only the tiles that a walk looks at are read. Sites that cannot be answered, and those whose pixels
    contradict what the bundle was trained on, are set aside with their reason (exit status 3).
    Cloud-Optimised GeoTIFFs are read as they are, through their own overviews. Stopped at any moment, the
    same command goes on from what is published.

    Example: tnet-geo classify --archive ARCHIVE --manifest sites.parquet --bundle BUNDLE -o RESULTS

    Example: tnet-geo classify --archive s3://bucket/cogs --bundle BUNDLE -o RESULTS

    Example: tnet-geo classify --archive COGS --bundle BUNDLE -o RESULTS --tiles 12 --deadline 2h
    """
    report = tnet_geo.classify(
        archive=archive,
        manifest=manifest,
        bundle=bundle,
        out=out,
        split=None if split is None else split.value,
        keep=keep_of(keep),
        budget=budget_of(tiles, stop_at, size, deadline),
        workers=workers,
        scheduler=scheduler,
        device=device,
        accept=[word.value for word in accept or ()],
        runtime=runtime.value,
        precision=precision.value,
    )
    show(report, as_json=json)
    raise Exit(report.exit_code)
