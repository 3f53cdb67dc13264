"""`tnet-geo manifest folder|fmow|stac|windows|check`: make the table of sites, and check it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from tnet_geo.cli.groups import group
from tnet_geo.cli.progress import progress
from tnet_geo.cli.show import show

__all__ = ["app"]

app = group("Make the table of sites.")

Out = Annotated[Path, Option("--out", "-o", help="The manifest to write: .parquet or .csv.")]
Json = Annotated[bool, Option("--json", help="Print the report as JSON.")]


class Kind(StrEnum):
    """Pictures of fMoW."""

    rgb = "rgb"
    msrgb = "msrgb"
    ms = "ms"
    all = "all"


@app.command()
def folder(
    root: Annotated[Path, Argument(metavar="ROOT", help="Folder with one folder of images per class.")],
    out: Out,
    val: Annotated[float, Option(help="Share of sites for validation.")] = 0.2,
    test: Annotated[float, Option(help="Share of sites for testing.")] = 0.2,
    json: Json = False,
) -> None:
    """Take every image of a folder as a site.

    The name of an image's folder is its label. Reads GeoTIFF, JPEG and PNG. The split follows from a hash of
    the site's id: images that come later do not move those that are there.

    Example: tnet-geo manifest folder IMAGES -o sites.parquet
    """
    from tnet_geo.imagery import manifest_from_folder, report_of

    show(report_of(manifest_from_folder(root, out, val=val, test=test)), as_json=json)


@app.command()
def fmow(
    root: Annotated[Path, Argument(metavar="ROOT", help="Folder that holds train, val, test or seq.")],
    out: Out,
    kind: Annotated[Kind, Option(help="Pan-sharpened, multispectral as RGB, multispectral.")] = Kind.rgb,
    context: Annotated[bool, Option("--context", help="Widen boxes by the published rule.")] = False,
    whole: Annotated[bool, Option("--whole", help="One site per picture, without its box.")] = False,
    false_detections: Annotated[
        bool, Option("--false-detections", help="Take boxes of this label too.")
    ] = False,
    ground_truth: Annotated[
        Path | None, Option(help="Folder or groundtruth.tar.bz2; by default the one in ROOT.")
    ] = None,
    json: Json = False,
) -> None:
    """Take every box of a copy of fMoW as a site.

    Reads fMoW-rgb and fMoW-full, whole or in part. What lacks its picture or its JSON is left out by name
    (exit status 3). Labels of test and seq come from the ground truth.

    Example: tnet-geo manifest fmow fmow-rgb -o fmow.parquet
    """
    from tnet_geo.imagery import FmowOptions, manifest_from_fmow

    options = FmowOptions(kind.value, context, whole, false_detections)
    with progress("folders") as bar:
        report = manifest_from_fmow(root, out, options, ground_truth=ground_truth, progress=bar)
    show(report, as_json=json)
    raise Exit(report.exit_code)


@app.command()
def stac(
    source: Annotated[str, Argument(metavar="SOURCE", help="Catalogue, collection, items: path or http(s).")],
    out: Out,
    asset: Annotated[str | None, Option(help="Key of the asset that is an item's raster.")] = None,
    label: Annotated[str | None, Option(help="Property that is an item's label.")] = None,
    val: Annotated[float, Option(help="Share of sites for validation.")] = 0.0,
    test: Annotated[float, Option(help="Share of sites for testing.")] = 0.0,
    json: Json = False,
) -> None:
    """Take every item of a STAC catalogue as a site.

    Without --asset: the raster of role visual, or else data, or else the only one. Items without it are left
    out by name (exit status 3). Needs the extra tnet-geo[stac].

    Example: tnet-geo manifest stac catalog.json -o sites.parquet --label land_use
    """
    from tnet_geo.imagery import manifest_from_stac

    report = manifest_from_stac(source, out, asset=asset, label=label, val=val, test=test)
    show(report, as_json=json)
    raise Exit(report.exit_code)


@app.command()
def windows(
    table: Annotated[
        Path, Argument(metavar="TABLE", help="CSV, GeoJSON, GeoPackage or GeoParquet, one window per row.")
    ],
    out: Out,
    layer: Annotated[str | None, Option(help="Layer of a GeoPackage that has several.")] = None,
    json: Json = False,
) -> None:
    """Take every row of a table as a site.

    A row names a window of a scene of any size.

    Columns: site_id, scene; row_off, col_off, height, width in pixels, or min_x, min_y, max_x, max_y and
    perhaps crs, or the shape of the row; label, split and date if known. GeoJSON and GeoPackage need the
    extra tnet-geo[gis].

    Example: tnet-geo manifest windows windows.csv -o sites.parquet
    """
    from tnet_geo.imagery import manifest_from_windows, report_of

    show(report_of(manifest_from_windows(table, out, layer=layer)), as_json=json)


@app.command()
def check(
    manifest: Annotated[Path, Argument(metavar="MANIFEST", help="Table of sites.")],
    deep: Annotated[bool, Option("--deep", help="Read every pixel, not headers alone.")] = False,
    threads: Annotated[int, Option(help="Scenes that are opened at once.", min=1)] = 8,
    json: Json = False,
) -> None:
    """Find out whether a manifest can be worked with.

    Its schema, whether its scenes open, windows that leave them, the same pixels twice, labels that training
    lacks, mixed bands and types. Exit status 5 where something is wrong.

    Example: tnet-geo manifest check sites.parquet
    """
    from tnet_geo.imagery import check_manifest

    with progress("scenes") as bar:
        report = check_manifest(manifest, deep=deep, threads=threads, progress=bar)
    show(report, as_json=json)
    raise Exit(report.exit_code)
