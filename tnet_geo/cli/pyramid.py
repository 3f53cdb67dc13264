"""`tnet-geo pyramid plan|build`: make what is read."""

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

app = group("Make what is read, and look after it: scenes at all their resolutions.")


class Codec(StrEnum):
    """How chunks are compressed."""

    fast = "fast"
    interop = "interop"


class DigestOf(StrEnum):
    """What stands for the bytes of a remote source."""

    content = "content"
    etag = "etag"


Table = Annotated[Path, Argument(metavar="MANIFEST", help="Table of sites.")]
Out = Annotated[
    str, Option("--out", "-o", help="Archive: a folder or s3://bucket/prefix; what is missing is added.")
]
HalfPx = Annotated[int, Option(help="Half the side of a tile, in pixels.", min=1)]
Workers = Annotated[int | None, Option(help="Processes; one per usable core by default.", min=1)]
Memory = Annotated[
    str | None, Option(help="What one worker may take, e.g. 2GiB; its share of the machine's by default.")
]
Scheduler = Annotated[str | None, Option(help="Address of a running Dask scheduler.")]
CodecOption = Annotated[Codec, Option(help="fast, or the plainest that other readers open.")]
Packs = Annotated[bool, Option("--packs", help="Gather scenes of at most 1024 pixels in shared files.")]
Canvas = Annotated[
    str, Option(help="native, or fit:N: every site with its context as a square of N pixels, packed.")
]
SourceDigest = Annotated[DigestOf, Option(help="Of remote sources: their content, or their size and ETag.")]
AsJson = Annotated[bool, Option("--json", help="Print the report as JSON.")]


@app.command()
def plan(
    manifest: Table,
    out: Out,
    half_px: HalfPx = 112,
    workers: Workers = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    codec: CodecOption = Codec.fast,
    packs: Packs = False,
    canvas: Canvas = "native",
    source_digest: SourceDigest = DigestOf.content,
    json: AsJson = False,
) -> None:
    """Say what `pyramid build` would do with the same options; nothing is written.

    Tasks, bytes, files, the memory of a worker, and the time, from a rate measured here in a few seconds.

    Example: tnet-geo pyramid plan sites.parquet -o ARCHIVE --workers 4
    """
    from tnet_geo.operations import plan_archive

    report = plan_archive(
        manifest,
        out,
        half_px=half_px,
        workers=workers,
        memory=memory,
        scheduler=scheduler,
        codec=codec.value,
        packs=packs,
        canvas=canvas,
        source_digest=source_digest.value,
    )
    show(report, as_json=json)
    raise Exit(report.exit_code)


@app.command()
def build(
    manifest: Table,
    out: Out,
    half_px: HalfPx = 112,
    workers: Workers = None,
    memory: Memory = None,
    scheduler: Scheduler = None,
    codec: CodecOption = Codec.fast,
    packs: Packs = False,
    canvas: Canvas = "native",
    source_digest: SourceDigest = DigestOf.content,
    json: AsJson = False,
) -> None:
    """Write one sealed pyramid per scene.

    Scenes that cannot be read or written are set aside with their reason (exit status 3) and listed in
    failed.csv of the archive. What does not fit into the workers' memory is refused (exit status 4).

    Example: tnet-geo pyramid build sites.parquet -o ARCHIVE --half-px 32
    """
    with progress("scenes") as bar:
        report = tnet_geo.build_archive(
            manifest,
            out,
            half_px=half_px,
            workers=workers,
            memory=memory,
            scheduler=scheduler,
            codec=codec.value,
            packs=packs,
            canvas=canvas,
            source_digest=source_digest.value,
            progress=bar,
        )
    show(report, as_json=json)
    raise Exit(report.exit_code)
