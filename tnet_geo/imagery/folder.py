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
    top = os.path.abspath(root)
    images = _images(top)
    if not images:
        raise NoImages(str(root), ", ".join(SUFFIXES))
    home = folder_of(out)
    stems = [os.path.splitext(name)[0] for name in images]  # noqa: PTH122 - strings: there may be a million
    ids = Counter(stems)

    def site(name: str, stem: str) -> Site:
        scene = f"{top}/{name}"
        site_id = stem if ids[stem] == 1 else name  # a.jpg beside a.png
        label = name.rsplit("/", 2)[-2]
        scene_id = scene_id_of(scene_text(scene, home))
        return Site(site_id, scene, scene_id, label=label, split=split_of(site_id, val, test))

    return write_manifest(map(site, images, stems), out)


def _images(top: str) -> list[str]:
    """Images in folders below `top`, relative to it, in the order of their paths; no file is touched."""
    found = []
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if folder == top:
            continue
        below = folder[len(top) :].strip("/")
        images = (name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [f"{below}/{name}" for name in images]
    return sorted(found, key=lambda name: name.split("/"))
