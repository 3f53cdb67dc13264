"""`tnet-geo pyramid check|repair|export`: look after what is stored, and hand it to others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from tnet_geo.cli.progress import progress
from tnet_geo.cli.show import show

__all__ = ["check", "export", "repair"]

Place = Annotated[str, Argument(metavar="ARCHIVE", help="Folder or s3://bucket/prefix.")]
AsJson = Annotated[bool, Option("--json", help="Print the report as JSON.")]


class Target(StrEnum):
    """What scenes are exported to."""

    cog = "cog"


def check(
    archive: Place,
    readers: Annotated[
        bool, Option("--readers", help="Open scenes with every reader installed instead.")
    ] = False,
    sample: Annotated[
        int | None, Option(help="Read so many shards, drawn anew; with --readers so many scenes.", min=1)
    ] = None,
    json: AsJson = False,
) -> None:
    """Find what is damaged, missing or strange.

    Every seal, every document, every byte of every shard, and the catalogue. Exit status 5 if anything
    is wrong. Nothing is changed.

    Example: tnet-geo pyramid check ARCHIVE
    """
    if readers:
        from tnet_geo.pyramid.verdicts import check_readers

        verdicts = check_readers(archive, **({} if sample is None else {"scenes": sample}))
        show(verdicts, as_json=json)
        raise Exit(verdicts.exit_code)
    from tnet_geo.pyramid.check import check_archive

    with progress("shards") as bar:
        report = check_archive(archive, sample=sample, progress=bar)
    show(report, as_json=json)
    raise Exit(report.exit_code)


def repair(
    archive: Place,
    manifest: Annotated[
        Path | None, Option(help="Table of sites that names the sources: for native pixels.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write anew what check finds, and nothing else.

    Shards become what they were, byte for byte: from the finer level, the native ones from their unchanged
    source. What cannot be mended is named with its reason (exit status 3).

    Example: tnet-geo pyramid repair ARCHIVE --manifest sites.parquet
    """
    from tnet_geo.pyramid.repair import repair_archive

    with progress("scenes") as bar:
        report = repair_archive(archive, manifest, progress=bar)
    show(report, as_json=json)
    raise Exit(report.exit_code)


def export(
    archive: Place,
    out: Annotated[
        Path, Option("--out", "-o", help="Folder of the files; a second run adds what is missing.")
    ],
    _to: Annotated[Target, Option("--to", help="Cloud-Optimised GeoTIFFs.")] = Target.cog,
    scene: Annotated[
        list[str] | None, Option(help="Id of a scene or packed site; may be repeated. Default: all.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write scenes as files that all GIS software opens.

    One file per scene, its overviews being the stored levels. Scenes that cannot be read are set aside with
    their reason (exit status 3).

    Example: tnet-geo pyramid export ARCHIVE --to cog -o COGS
    """
    from tnet_geo.pyramid.export import export_cogs

    with progress("scenes") as bar:
        report = export_cogs(archive, out, scenes=scene or (), progress=bar)
    show(report, as_json=json)
    raise Exit(report.exit_code)
