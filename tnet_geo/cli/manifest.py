"""`tnet-geo manifest folder|windows`: make the table of sites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from tnet_geo.cli.groups import group
from tnet_geo.cli.show import show_manifest

__all__ = ["app"]

app = group("Make the table of sites.")

Out = Annotated[Path, Option("--out", "-o", help="The manifest to write: .parquet or .csv.")]


@app.command()
def folder(
    root: Annotated[Path, Argument(metavar="ROOT", help="Folder with one folder of images per class.")],
    out: Out,
    val: Annotated[float, Option(help="Share of sites for validation.")] = 0.2,
    test: Annotated[float, Option(help="Share of sites for testing.")] = 0.2,
) -> None:
    """Take every image of a folder as a site.

    The name of an image's folder is its label. Reads GeoTIFF, JPEG and PNG. The split follows from a hash of
    the site's id: images that come later do not move those that are there.

    Example: tnet-geo manifest folder IMAGES -o sites.parquet
    """
    from tnet_geo.imagery import manifest_from_folder

    show_manifest(manifest_from_folder(root, out, val=val, test=test))


@app.command()
def windows(
    table: Annotated[Path, Argument(metavar="TABLE", help="CSV, one window of a scene per row.")],
    out: Out,
) -> None:
    """Take every row of a table as a site.

    A row names a window of a scene of any size.

    Columns: site_id, scene; row_off, col_off, height, width in pixels, or min_x, min_y, max_x, max_y and
    perhaps crs; label, split and date if known.

    Example: tnet-geo manifest windows windows.csv -o sites.parquet
    """
    from tnet_geo.imagery import manifest_from_windows

    show_manifest(manifest_from_windows(table, out))
