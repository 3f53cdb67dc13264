"""`tnet-geo results query|summary|report|picture`: ask what came out."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import tnet_geo
from tnet_geo.cli.groups import group
from tnet_geo.cli.show import show, write_new
from tnet_geo.errors import UsageError

__all__ = ["app"]

app = group("Ask what came out.")

ResultsFolder = Annotated[Path, Argument(metavar="RESULTS", help="What classify wrote.")]


ArchiveNow = Annotated[Path | None, Option("--archive", help="Archive, if it has moved since.")]


class Format(StrEnum):
    """How a table is written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


@app.command()
def query(
    results: ResultsFolder,
    sql: Annotated[str, Argument(metavar="SQL", help="One SELECT.")],
    format: Annotated[Format, Option(help="How to write the rows.")] = Format.table,  # noqa: A002 - the flag's name
    out: Annotated[Path | None, Option("--out", "-o", help="File instead of stdout.")] = None,
) -> None:
    """Ask in SQL.

    Tables: predictions, trails, failed. Nothing can be written, no other file and no network can be reached.

    Example: tnet-geo results query RESULTS "SELECT label, count(*) FROM predictions GROUP BY 1"
    """
    from tnet_geo.results.render import render

    if format is Format.parquet and out is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal: name a file with -o.")
    content = render(tnet_geo.Results.open(results).query(sql), format.value)
    if out is None:
        sys.stdout.buffer.write(content)
    else:
        write_new(out, content)


@app.command()
def summary(
    results: ResultsFolder,
    json: Annotated[bool, Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Count and weigh the answers.

    Sites per class, confidence, accuracy where the truth is known, and what it cost.

    Example: tnet-geo results summary RESULTS
    """
    show(tnet_geo.Results.open(results).summary(), as_json=json)


@app.command()
def report(
    results: ResultsFolder,
    out: Annotated[Path, Option("--out", "-o", help="The page to write.")],
    archive: ArchiveNow = None,
) -> None:
    """Write one page that works offline.

    Figures, and pictures with the walks drawn on them.

    Example: tnet-geo results report RESULTS -o report.html
    """
    from tnet_geo.results.report import write_report

    write_report(tnet_geo.Results.open(results), out, archive=archive)
    print(out)


@app.command()
def picture(
    results: ResultsFolder,
    site: Annotated[str, Argument(metavar="SITE", help="Id of a site.")],
    out: Annotated[Path, Option("--out", "-o", help="The PNG to write.")],
    archive: ArchiveNow = None,
) -> None:
    """Draw the walk of one site on its picture.

    Example: tnet-geo results picture RESULTS SITE -o walk.png
    """
    from tnet_geo.results.drawing import picture as draw

    write_new(out, draw(tnet_geo.Results.open(results), site, archive=archive))
    print(out)
