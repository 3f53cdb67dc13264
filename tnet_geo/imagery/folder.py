"""A folder of images as a manifest: one site per image, labelled by the folder that it lies in."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from tnet_geo.errors import NoImages
from tnet_geo.imagery.manifest import Manifest, Site, folder_of, scene_id_of, scene_text, write_manifest
from tnet_geo.imagery.splits import check_shares, split_of

__all__ = ["SUFFIXES", "manifest_from_folder"]

SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png")


def manifest_from_folder(
    root: str | Path, out: str | Path, *, val: float = 0.2, test: float = 0.2
) -> Manifest:
    """Write the manifest of all GeoTIFF, JPEG and PNG images in the folders below `root`.

    A site's id is its path below `root` without suffix, its label the name of its folder, its split a hash
    of its id: `val` and `test` are the shares to expect. Images right in `root` have no class and are left
    out, as is what begins with a dot.

    Raises:
        NoImages: there is no image in a folder below `root`.
        UsageError: the shares are negative or leave nothing to train on.
        OutputExists: `out` is there.
    """
    check_shares(val, test)
    top = Path(os.path.abspath(root))
    images = _images(top)
    if not images:
        raise NoImages(str(root), ", ".join(SUFFIXES))
    home = folder_of(out)
    ids = Counter(_stem(path, top) for path in images)

    def site(path: Path) -> Site:
        stem = _stem(path, top)
        site_id = stem if ids[stem] == 1 else path.relative_to(top).as_posix()  # a.jpg beside a.png
        scene_id = scene_id_of(scene_text(str(path), home))
        split = split_of(site_id, val, test)
        return Site(site_id, str(path), scene_id, label=path.parent.name, split=split)

    return write_manifest(map(site, images), out)


def _images(top: Path) -> list[Path]:
    """Images in folders below `top`, in the order of their paths."""
    found = (path for path in top.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    parts = ((path, path.relative_to(top).parts) for path in found)
    return sorted(
        path for path, names in parts if len(names) > 1 and not any(n.startswith(".") for n in names)
    )


def _stem(path: Path, top: Path) -> str:
    return path.relative_to(top).with_suffix("").as_posix()
