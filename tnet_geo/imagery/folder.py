"""A folder of images as a manifest: one site per image, labelled by the folder that it lies in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tnet_geo.errors import NoImages, UsageError
from tnet_geo.imagery.manifest import Manifest, write_manifest
from tnet_geo.imagery.splits import split_of

__all__ = ["SUFFIXES", "manifest_from_folder"]

SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png")


def manifest_from_folder(root: str | Path, out: str | Path, *, val: float = 0.2, test: float = 0.2) -> Manifest:
    """Write the manifest of all GeoTIFF, JPEG and PNG images below `root`.

    A site's id is its path below `root` without suffix, its label the name of its folder, its split a hash
    of its id: `val` and `test` are the shares to expect. Scenes below the manifest's folder are written
    relative to it, so that both can be moved together.

    Raises:
        NoImages: there is no image in a folder below `root`.
        UsageError: the shares are negative or leave nothing to train on.
        OutputExists: `out` is there.
    """
    if min(val, test) < 0 or val + test >= 1:
        raise UsageError(f"--val {val} and --test {test} leave nothing to train on: let them sum to less than 1.")
    top = Path(root)
    images = sorted(
        path
        for path in top.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.parent != top and path.is_file() and not path.name.startswith(".")
    )
    if not images:
        raise NoImages(str(top), ", ".join(SUFFIXES))
    home = Path(out).absolute().parent
    ids = Counter(path.relative_to(top).with_suffix("").as_posix() for path in images)

    def row(path: Path) -> dict[str, object]:
        inside = path.relative_to(top)
        site_id = inside.with_suffix("").as_posix()
        site_id = site_id if ids[site_id] == 1 else inside.as_posix()  # a.jpg beside a.png
        place = path.absolute()
        scene = place.relative_to(home) if place.is_relative_to(home) else place
        label = path.parent.name
        return {"site_id": site_id, "scene": scene.as_posix(), "label": label, "split": split_of(site_id, val, test)}

    return write_manifest([row(path) for path in images], out)
