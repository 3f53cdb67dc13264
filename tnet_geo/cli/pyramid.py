"""`tnet-geo pyramid build`: make what is read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

import tnet_geo
from tnet_geo.cli.groups import group
from tnet_geo.cli.progress import progress
from tnet_geo.cli.show import show

__all__ = ["app"]

app = group("Make what is read: scenes at all their resolutions.")


class Codec(StrEnum):
    """How chunks are compressed."""

    fast = "fast"
    interop = "interop"


@app.command()
def build(
    manifest: Annotated[Path, Argument(metavar="MANIFEST", help="Table of sites.")],
    out: Annotated[Path, Option("--out", "-o", help="Archive; a second run adds what is missing.")],
    half_px: Annotated[int, Option(help="Half the side of a tile, in pixels.", min=1)] = 112,
    workers: Annotated[int | None, Option(help="Processes; one per usable core by default.", min=1)] = None,
    scheduler: Annotated[str | None, Option(help="Address of a running Dask scheduler.")] = None,
    codec: Annotated[Codec, Option(help="fast, or the plainest that other readers open.")] = Codec.fast,
    json: Annotated[bool, Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write one sealed pyramid per scene.

    Scenes that cannot be read are set aside with their reason (exit status 3) and listed in failed.csv of the
    archive.

    Example: tnet-geo pyramid build sites.parquet -o ARCHIVE --half-px 32
    """
    with progress("scenes") as bar:
        report = tnet_geo.build_archive(
            manifest,
            out,
            half_px=half_px,
            workers=workers,
            scheduler=scheduler,
            codec=codec.value,
            progress=bar,
        )
    show(report, as_json=json)
    raise Exit(report.exit_code)
