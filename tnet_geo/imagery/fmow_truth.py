"""The released ground truth of fMoW: classes and places of pictures, those of test and seq too.

A folder or `groundtruth.tar.bz2` that holds one JSON per picture, and `test_gt_mapping.json` and
`seq_gt_mapping.json`, lists of `{"input": "test_gt/airport/airport_0", "output": "test/0011978"}`: the truth
of `test/0011978/0011978_3_rgb.jpg` is `test_gt/airport/airport_0/airport_0_3_rgb.json`, folder and prefix
replaced.

Source: documentation of fMoW/dataset, and three public readers that agree.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tnet_geo.errors import InvalidDataSet
from tnet_geo.imagery.fmow_layout import LABELLED, Picture

__all__ = ["RAW_ID", "GroundTruth", "Truth", "boxes_of", "find_ground_truth", "open_ground_truth"]

RAW_ID = -1
"""Boxes of this ID hold the raw annotation of a box that comes again under its own ID."""
_MAPPINGS = ("test_gt_mapping.json", "seq_gt_mapping.json")
_MEMBER = re.compile(r"(?:^|/)((?:train|val|test|seq)(?:_gt)?/.+)\.json$")
_RING = re.compile(r"POLYGON *\(\(([^()]+)\)\)")
_REMEDY = "name the unpacked folder or groundtruth.tar.bz2 of fMoW's release"

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Truth:
    """What the ground truth says of one picture."""

    labels: Mapping[int, str]
    """Class by ID of the box."""
    bounds: Bounds | None
    """West, south, east, north of the picture in OGC:CRS84; None: not known, or not with north up."""


class GroundTruth:
    """Truths of pictures, from an unpacked folder."""

    def __init__(self, folder: Path, folders: Mapping[str, str]) -> None:
        self._folder, self._folders = folder, folders
        self._labelled = {
            split: next((name for name in (f"{split}_gt", split) if (folder / name).is_dir()), split)
            for split in LABELLED
        }

    def of(self, picture: Picture) -> Truth | None:
        """None: the ground truth does not have this picture, or cannot be read."""
        if picture.split in LABELLED:
            path = picture.path.replace(picture.split, self._labelled[picture.split], 1)
        else:
            known = self._folders.get(picture.folder)
            if known is None:
                return None
            path = f"{known}/{known.rpartition('/')[2]}_{picture.view}_{picture.kind}"
        return self._read(path)

    def _read(self, path: str) -> Truth | None:
        try:
            with open(f"{self._folder}/{path}.json", "rb") as file:  # noqa: PTH123 - a million of them
                return _truth(json.loads(file.read()))
        except (OSError, ValueError):
            return None


class ArchivedGroundTruth(GroundTruth):
    """The same from the archive: all that is wanted was read from it, once, from start to end."""

    def __init__(self, archive: Path, kinds: Collection[str]) -> None:
        folders, self._truths = _unpacked(archive, kinds)
        super().__init__(archive, folders)
        self._labelled = {split: split for split in LABELLED}

    def _read(self, path: str) -> Truth | None:
        return self._truths.get(path)


def find_ground_truth(root: Path) -> Path | None:
    """Where the ground truth of a copy of fMoW usually lies; None: there is none."""
    for place in (root / "groundtruth", root, root / "groundtruth.tar.bz2"):
        if (place.is_dir() and any((place / name).is_file() for name in _MAPPINGS)) or place.is_file():
            return place
    return None


def open_ground_truth(place: Path, kinds: Collection[str]) -> GroundTruth:
    """Open the ground truth at `place`, a folder or an archive, for pictures of these kinds.

    Raises:
        InvalidDataSet: it is neither, it has no mapping, or the archive is damaged.
    """
    if place.is_file():
        return ArchivedGroundTruth(place, kinds)
    folders: dict[str, str] = {}
    mappings = [place / name for name in _MAPPINGS if (place / name).is_file()]
    if not mappings:
        raise InvalidDataSet(str(place), f"has no ground truth ({' or '.join(_MAPPINGS)})", _REMEDY)
    for mapping in mappings:
        folders |= _mapping(str(mapping), mapping.read_bytes())
    return GroundTruth(place, folders)


def boxes_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The boxes of a record: a list, or in some files one object by itself."""
    boxes = record.get("bounding_boxes")
    boxes = [boxes] if isinstance(boxes, dict) else boxes
    return [box for box in boxes if isinstance(box, dict)] if isinstance(boxes, list) else []


def _unpacked(archive: Path, kinds: Collection[str]) -> tuple[dict[str, str], dict[str, Truth]]:
    folders: dict[str, str] = {}
    truths: dict[str, Truth] = {}
    endings = tuple(f"_{kind}" for kind in kinds)
    try:
        with tarfile.open(archive, "r|*") as members:  # a stream: what was read is not kept
            for member in members:
                content = members.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                match = _MEMBER.search(member.name)
                if member.name.rpartition("/")[2] in _MAPPINGS:
                    folders |= _mapping(f"{archive}:{member.name}", content.read())
                elif match and match[1].endswith(endings):
                    # train_gt/ and val_gt/ of some releases are train/ and val/ of others.
                    path = re.sub(r"^(train|val)_gt/", r"\1/", match[1])
                    truths[path] = _truth(json.loads(content.read()))
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise InvalidDataSet(str(archive), f"cannot be read ({error})", _REMEDY) from error
    if not folders:
        raise InvalidDataSet(str(archive), f"has no ground truth ({' or '.join(_MAPPINGS)})", _REMEDY)
    return folders, truths


def _mapping(name: str, content: bytes) -> dict[str, str]:
    """Folder in the ground truth by folder of pictures."""
    try:
        return {str(row["output"]): str(row["input"]) for row in json.loads(content)}
    except (ValueError, KeyError, TypeError) as error:
        what = f"is no list of input and output ({type(error).__name__})"
        raise InvalidDataSet(name, what, "fetch fMoW's release of it again") from error


def _truth(record: Any) -> Truth:
    if not isinstance(record, dict):
        raise ValueError("no record")
    labels = {
        box["ID"]: box["category"]
        for box in boxes_of(record)
        if box.get("ID") not in {None, RAW_ID} and isinstance(box.get("category"), str)
    }
    return Truth(labels, _bounds(record.get("raw_location")))


def _bounds(location: Any) -> Bounds | None:
    """Bounds of a rectangle with north up, x being the longitude; None for any other shape."""
    ring = _RING.match(location) if isinstance(location, str) else None
    if ring is None:
        return None
    try:
        points = {(float(x), float(y)) for x, y in (pair.split()[:2] for pair in ring[1].split(","))}
    except ValueError:
        return None
    west, east = min(x for x, _ in points), max(x for x, _ in points)
    south, north = min(y for _, y in points), max(y for _, y in points)
    corners = {(west, south), (west, north), (east, south), (east, north)}
    return (west, south, east, north) if len(points) == 4 and points == corners else None
