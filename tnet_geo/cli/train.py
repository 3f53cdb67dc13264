"""`tnet-geo train`: make a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

import tnet_geo
from tnet_geo.cli.progress import progress
from tnet_geo.cli.show import show

__all__ = ["train"]


def train(
    run_file: Annotated[Path, Argument(metavar="RUN.toml", help="What to train and how.")],
    manifest: Annotated[Path | None, Option(help="Table of sites, instead of the run file's.")] = None,
    archive: Annotated[Path | None, Option(help="Archive, instead of the run file's.")] = None,
    out: Annotated[Path | None, Option("--out", "-o", help="Run folder, instead of the run file's.")] = None,
    fresh: Annotated[bool, Option("--fresh", help="Begin anew instead of going on.")] = False,
    json: Annotated[bool, Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train a network that decides where to look.

    The bundle that is kept is the best over all stages, judged by the walk on the validation sites. Stopped
    or killed, the same command goes on with the same next batch.

    Example: tnet-geo train RUN.toml --manifest sites.parquet --archive ARCHIVE -o runs/first
    """
    with progress("steps") as bar:
        report = tnet_geo.train(
            run_file, manifest=manifest, archive=archive, out=out, resume=not fresh, progress=bar
        )
    show(report, as_json=json)
    raise Exit(report.exit_code)
