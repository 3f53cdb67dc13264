"""`tnet-geo estimate`: what `classify` would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from tnet_geo.cli.budgets import Bytes, Deadline, Keep, StopAt, Tiles, budget_of, keep_of
from tnet_geo.cli.classify import Precision, Runtime
from tnet_geo.cli.evaluate import Accepted, Split
from tnet_geo.cli.show import show

__all__ = ["estimate"]


def estimate(
    archive: Annotated[str, Option(help="Archive of pyramids, or COGs: folder, file, .txt list, URL.")],
    bundle: Annotated[Path, Option(help="Trained model.")],
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
    probe: Annotated[float, Option(help="Seconds of walks that are timed.")] = 10.0,
    price_hour: Annotated[float | None, Option(help="Of one machine for an hour.", min=0)] = None,
    price_requests: Annotated[float | None, Option(help="Of a thousand requests.", min=0)] = None,
    price_gb: Annotated[float | None, Option(help="Of a gigabyte over the network.", min=0)] = None,
    json: Annotated[bool, Option("--json", help="Print the estimate as JSON.")] = False,
) -> None:
    """Say what `classify` with the same options would take; nothing is written.

    Tiles, bytes, requests, multiply-accumulates and time, from arithmetic and a probe that walks some of
    the sites here; with prices, money for a million sites.

    Example: tnet-geo estimate --archive ARCHIVE --manifest sites.parquet --bundle BUNDLE --workers 4

    Example: tnet-geo estimate --archive s3://bucket/cogs --bundle BUNDLE --price-hour 0.40 --price-gb 0.09
    """
    from tnet_geo import operations

    report = operations.estimate(
        archive=archive,
        manifest=manifest,
        bundle=bundle,
        split=None if split is None else split.value,
        keep=keep_of(keep),
        budget=budget_of(tiles, stop_at, size, deadline),
        workers=workers,
        scheduler=scheduler,
        device=device,
        accept=[word.value for word in accept or ()],
        runtime=runtime.value,
        precision=precision.value,
        probe=probe,
        prices=operations.Prices(price_hour, price_requests, price_gb),
    )
    show(report, as_json=json)
    raise Exit(report.exit_code)
