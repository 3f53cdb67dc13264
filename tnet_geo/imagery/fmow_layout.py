"""Where the files of fMoW lie: paths as pictures, and the walk over a copy of it.

    train|val/<category>/<category>_<n>/<category>_<n>_<view>_<kind>.<suffix>
    test|seq/<7 digits>/<7 digits>_<view>_<kind>.<suffix>

fMoW-rgb has the kinds rgb and msrgb as .jpg, fMoW-full rgb and ms as .tif; each picture has a .json of its
own name. Numbers start again in every split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["KINDS", "LABELLED", "SPLITS", "Found", "Picture", "pictures_in", "read_path", "site_folders"]

KINDS = ("rgb", "msrgb", "ms")
LABELLED = ("train", "val")
"""Splits whose paths name the class; the others have anonymous numbers."""
SPLITS = (*LABELLED, "test", "seq")
_SUFFIXES = ("jpg", "jpeg", "tif", "tiff")
_PATH = re.compile(
    r"(?P<split>train|val|test|seq)/(?:(?P<category>[^/]+)/)?(?P<site>[^/]+)/"
    rf"(?P=site)_(?P<view>\d+)_(?P<kind>{'|'.join(KINDS)})\.(?P<suffix>json|{'|'.join(_SUFFIXES)})"
)


@dataclass(frozen=True, slots=True, order=True)
class Picture:
    """One view of one place, in one kind."""

    split: str
    category: str | None
    """Folder of train and val; None: test and seq do not say."""
    site: str
    view: int
    kind: str

    @property
    def folder(self) -> str:
        """Below the root of the data set."""
        return "/".join(part for part in (self.split, self.category, self.site) if part)

    @property
    def name(self) -> str:
        """Of its files, without suffix."""
        return f"{self.site}_{self.view}_{self.kind}"

    @property
    def path(self) -> str:
        """Below the root of the data set, without suffix."""
        return f"{self.folder}/{self.name}"


@dataclass(slots=True)
class Found:
    """Which of a picture's two files are there: their names in its folder."""

    image: str | None = None
    metadata: str | None = None


def read_path(path: str) -> tuple[Picture, str] | None:
    """The picture and the suffix of a file below the root of the data set; None: not one of a picture's.

    >>> read_path("val/zoo/zoo_3/zoo_3_11_msrgb.json")
    (Picture(split='val', category='zoo', site='zoo_3', view=11, kind='msrgb'), 'json')
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    split, category, site, view, kind, suffix = match.groups()
    if split in LABELLED:
        right = category is not None and site.removeprefix(f"{category}_").isdecimal()
    else:
        right = category is None and site.isdecimal()
    return (Picture(split, category, site, int(view), kind), suffix) if right else None


def site_folders(root: str) -> Iterator[str]:
    """Folders of sites below `root`, relative to it, in the order of their numbers; none is looked into."""
    for split in SPLITS:
        if not os.path.isdir(f"{root}/{split}"):  # noqa: PTH112 - as the scans below: strings, a million of them
            continue
        parents = (
            [f"{split}/{name}" for name in _folders(f"{root}/{split}")] if split in LABELLED else [split]
        )
        for parent in parents:
            for name in _folders(f"{root}/{parent}"):
                yield f"{parent}/{name}"


def pictures_in(root: str, folder: str) -> tuple[dict[Picture, Found], list[str]]:
    """Pictures of one site's folder in order of view and kind, and files that are none of a picture's.

    One scan of the folder, and no call for any file in it.
    """
    pictures: dict[Picture, Found] = {}
    strange = []
    with os.scandir(f"{root}/{folder}") as entries:
        for name in sorted(entry.name for entry in entries if not entry.name.startswith(".")):
            read = read_path(f"{folder}/{name}")
            if read is None:
                strange.append(f"{folder}/{name}")
                continue
            picture, suffix = read
            found = pictures.setdefault(picture, Found())
            if suffix == "json":
                found.metadata = name
            else:
                found.image = name
    return dict(sorted(pictures.items(), key=lambda item: item[0])), strange


def _folders(path: str) -> list[str]:
    """Names of folders in a folder; shorter ones first, so that zoo_9 comes before zoo_10."""
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return sorted(names, key=lambda name: (name.rstrip("0123456789"), len(name), name))
