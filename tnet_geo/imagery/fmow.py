"""A copy of fMoW, Functional Map of the World, as a manifest: one site per box, or per picture.

Traps that this reader knows: boxes are `[x, y, width, height]`, also as one object instead of a list; ID -1
repeats a box; boxes reach beyond their pictures; false detections are no class; pictures lack their JSON,
JSON their pictures; test and seq say no class, the ground truth does; the published order of the classes is
not the alphabet, so labels are names, never numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tnet_geo.errors import InvalidDataSet, OutputExists, SourceUnreadable, UsageError
from tnet_geo.grid import Window
from tnet_geo.imagery.context import with_context
from tnet_geo.imagery.datasets import data_set
from tnet_geo.imagery.fmow_layout import KINDS, Found, Picture, pictures_in, site_folders
from tnet_geo.imagery.fmow_truth import (
    RAW_ID,
    GroundTruth,
    Truth,
    boxes_of,
    find_ground_truth,
    open_ground_truth,
)
from tnet_geo.imagery.manifest import Site, folder_of, scene_id_of, scene_text, write_manifest
from tnet_geo.imagery.raster import open_raster
from tnet_geo.imagery.report import LeftOut, ManifestReport, report_of

__all__ = ["KINDS", "FmowOptions", "manifest_from_fmow"]

FALSE_DETECTION = "false_detection"
SMALLEST_PX = 3
"""The published baseline skips boxes of width or height 2 or less."""
_THREADS, _FOLDERS_A_TASK = 8, 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FmowOptions:
    """What of fMoW becomes a site.

    kind              `rgb`, `msrgb` or `ms`; `all` takes every kind that is there
    context           widen boxes by the published rule (`imagery.context`)
    whole             one site per picture, without box, as the published networks were tested
    false_detections  take boxes of the label false_detection too
    """

    kind: str = "rgb"
    context: bool = False
    whole: bool = False
    false_detections: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: an unknown kind, or a context of no box.
        """
        if self.kind not in {*KINDS, "all"}:
            raise UsageError(f"--kind {self.kind} is unknown: name one of {', '.join(KINDS)}, all.")
        if self.context and self.whole:
            raise UsageError("--whole takes pictures without their boxes: --context has nothing to widen.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds that are taken."""
        return KINDS if self.kind == "all" else (self.kind,)


@dataclass(slots=True)
class _Part:
    """What comes of some folders."""

    sites: list[Site] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    by_rule: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)


class _Unusable(Exception):
    """Why a picture or a box becomes no site."""


def manifest_from_fmow(
    root: str | Path,
    out: str | Path,
    options: FmowOptions | None = None,
    *,
    ground_truth: str | Path | None = None,
    progress: Progress | None = None,
) -> ManifestReport:
    """Write the manifest of a copy of fMoW-rgb or fMoW-full, whole or in part.

    Sites are windows in native pixels, clipped to their pictures, named by the picture's path and the
    box's ID. Labels are names of the 62 published classes; those of test and seq come from the ground truth
    (by default `groundtruth/` or `groundtruth.tar.bz2` in `root`) and are missing without it, as footprints
    are. Reads every JSON once and no picture. `progress` is told how many folders are done, of how many.

    Raises:
        InvalidDataSet: nothing in `root` is laid out like fMoW, no picture is of the kind asked for, or the
            ground truth cannot be read.
        OutputExists: `out` is there.
    """
    options = options or FmowOptions()
    top = Path(os.path.abspath(root))
    if Path(out).exists():
        raise OutputExists(str(out))
    folders = list(site_folders(str(top)))
    if not folders:
        remedy = "name the folder that holds train, val, test or seq of fMoW"
        raise InvalidDataSet(str(root), "is not laid out like fMoW", remedy)
    place = Path(ground_truth) if ground_truth is not None else find_ground_truth(top)
    truth = open_ground_truth(place, options.kinds) if place is not None else None
    classes = data_set("fmow-rgb").classes  # those of fMoW-full are the same
    known = frozenset((*classes.order, *classes.aside))
    reader = _Reader(str(top), folder_of(out), options, truth, known)
    whole = _Part()
    with ThreadPoolExecutor(_THREADS) as threads:
        tasks = [folders[n : n + _FOLDERS_A_TASK] for n in range(0, len(folders), _FOLDERS_A_TASK)]
        done = 0
        for task, part in zip(tasks, threads.map(reader.read, tasks), strict=True):
            whole.sites += part.sites
            whole.left_out += part.left_out
            whole.by_rule += part.by_rule
            whole.lacking += part.lacking
            done += len(task)
            if progress is not None:
                progress(done, len(folders))
    if not whole.sites:
        what = f"holds no site of kind {options.kind} ({_why(whole)})"
        raise InvalidDataSet(str(root), what, f"choose another --kind of {', '.join(KINDS)}")
    manifest = write_manifest(whole.sites, out)
    return report_of(
        manifest,
        order=classes.order,
        by_rule=whole.by_rule,
        lacking=whole.lacking,
        left_out=whole.left_out,
    )


def _why(part: _Part) -> str:
    reasons = part.by_rule + Counter(left.reason for left in part.left_out)
    return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "no picture"


@dataclass(frozen=True)
class _Reader:
    """Folders in, sites out; nothing is shared between threads but the ground truth, which is only read."""

    root: str
    home: Path
    """Where the manifest will lie."""
    options: FmowOptions
    truth: GroundTruth | None
    known: frozenset[str]
    """Labels that fMoW has."""

    def read(self, folders: list[str]) -> _Part:
        """The sites of some folders."""
        part = _Part()
        for folder in folders:
            pictures, strange = pictures_in(self.root, folder)
            part.left_out += [LeftOut(path, "not_a_file_of_fmow") for path in strange]
            for picture, found in pictures.items():
                if picture.kind not in self.options.kinds:
                    part.by_rule[f"kind_{picture.kind}"] += 1
                    continue
                try:
                    self._picture(picture, found, part)
                except _Unusable as reason:
                    part.left_out.append(LeftOut(picture.path, str(reason)))
        return part

    def _picture(self, picture: Picture, found: Found, part: _Part) -> None:
        if found.metadata is None:
            raise _Unusable("no_metadata")
        if found.image is None:
            raise _Unusable("image_missing")
        record = _record(f"{self.root}/{picture.folder}/{found.metadata}")
        scene = f"{self.root}/{picture.folder}/{found.image}"
        truth = self.truth.of(picture) if self.truth is not None else None
        boxes = list(self._boxes(picture, record, truth, part))
        if not boxes:
            return
        shape = _shape(record, scene)
        about = _about(record, part.lacking)
        scene_id = scene_id_of(scene_text(scene, self.home))
        for name, box, label in self._whole(picture, boxes) if self.options.whole else boxes:
            try:
                window = None if self.options.whole else self._window(box, shape)
            except _Unusable as reason:
                part.left_out.append(LeftOut(name, str(reason)))
                continue
            footprint = _footprint(truth, window, shape)
            part.lacking["label"] += label is None
            part.lacking["footprint"] += footprint is None
            date, gsd, country, cloud = about
            part.sites.append(
                Site(
                    name, scene, scene_id, window, label, picture.split, date, gsd, country, footprint, cloud
                )
            )

    def _boxes(
        self, picture: Picture, record: Mapping[str, Any], truth: Truth | None, part: _Part
    ) -> Iterator[tuple[str, Any, str | None]]:
        """Name of the site, box as written and label of each box that a rule does not leave out."""
        boxes = boxes_of(record)
        if not boxes:
            raise _Unusable("no_box")
        seen: set[str] = set()
        for place, box in enumerate(boxes):
            number = box.get("ID")
            if number == RAW_ID:
                part.by_rule["raw_annotation"] += 1
                continue
            label = _label(picture, box, truth)
            name = f"{picture.path}/{place if number is None or str(number) in seen else number}"
            seen.add(name.rpartition("/")[2])
            if label == FALSE_DETECTION and not self.options.false_detections:
                part.by_rule[FALSE_DETECTION] += 1
            elif label is not None and label not in self.known:
                part.left_out.append(LeftOut(name, "unknown_class"))
            elif not self.options.whole and _too_small(box.get("box")):
                part.by_rule["box_too_small"] += 1
            else:
                yield name, box.get("box"), label

    def _whole(
        self, picture: Picture, boxes: list[tuple[str, Any, str | None]]
    ) -> list[tuple[str, Any, str | None]]:
        labels = {label for _, _, label in boxes}
        labels = labels - {FALSE_DETECTION} or labels
        if len(labels) > 1:
            raise _Unusable("several_labels")
        return [(picture.path, None, labels.pop())]

    def _window(self, box: Any, shape: tuple[int, int]) -> Window:
        left, top, width, height = _numbers(box)
        right, bottom = math.ceil(left + width), math.ceil(top + height)
        left, top = math.floor(left), math.floor(top)
        asked = Window(top, left, bottom - top, right - left)
        if self.options.context:
            window = with_context(asked, shape)
        else:
            inside = Window(
                max(0, top),
                max(0, left),
                min(shape[0], bottom) - max(0, top),
                min(shape[1], right) - max(0, left),
            )
            window = inside if min(inside.height, inside.width) > 0 else None
        if window is None:
            raise _Unusable("box_outside_picture")
        return window


def _record(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a million of them
            record = json.loads(file.read())
    except (OSError, ValueError) as error:
        raise _Unusable("damaged_metadata") from error
    if not isinstance(record, dict):
        raise _Unusable("damaged_metadata")
    return record


def _label(picture: Picture, box: Mapping[str, Any], truth: Truth | None) -> str | None:
    """What the box says itself; otherwise the ground truth, and in train and val the folder."""
    label = box.get("category")
    if isinstance(label, str) and label:
        return label
    found = truth.labels.get(box.get("ID", RAW_ID)) if truth is not None else None
    return found or picture.category


def _numbers(box: Any) -> tuple[float, float, float, float]:
    """X, y, width, height."""
    try:
        left, top, width, height = (float(number) for number in box)
    except (TypeError, ValueError) as error:
        raise _Unusable("box_of_no_numbers") from error
    if not all(map(math.isfinite, (left, top, width, height))):
        raise _Unusable("box_of_no_numbers")
    return left, top, width, height


def _too_small(box: Any) -> bool:
    try:
        return min(_numbers(box)[2:]) < SMALLEST_PX
    except _Unusable:
        return False


def _shape(record: Mapping[str, Any], scene: str) -> tuple[int, int]:
    """Rows and columns: as the JSON says, and only where it does not, as the picture does."""
    rows, cols = record.get("img_height"), record.get("img_width")
    if isinstance(rows, int) and isinstance(cols, int) and min(rows, cols) > 0:
        return rows, cols
    try:
        with open_raster(scene) as raster:
            return raster.info.shape
    except SourceUnreadable as error:
        raise _Unusable("picture_unreadable") from error


def _about(
    record: Mapping[str, Any], lacking: Counter[str]
) -> tuple[str | None, float | None, str | None, float | None]:
    """Date, metres a pixel, country and percent of clouds; None for what is not there or cannot be."""
    date, country = record.get("timestamp"), record.get("country_code")
    gsd, cloud = _number(record.get("gsd")), _number(record.get("cloud_cover"))
    about = (
        date if isinstance(date, str) and _is_time(date) else None,
        gsd if gsd is not None and gsd > 0 else None,
        country if isinstance(country, str) and country else None,
        cloud if cloud is not None and 0 <= cloud <= 100 else None,
    )
    for name, value in zip(("date", "gsd", "country", "cloud_cover"), about, strict=True):
        lacking[name] += value is None
    return about


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _footprint(truth: Truth | None, window: Window | None, shape: tuple[int, int]) -> str | None:
    """The window's part of the picture's rectangle, counterclockwise; pictures of fMoW lie in EPSG:4326."""
    if truth is None or truth.bounds is None:
        return None
    west, south, east, north = truth.bounds
    window = window or Window(0, 0, *shape)
    across, down = (east - west) / shape[1], (north - south) / shape[0]
    w, e = west + window.col * across, west + window.right * across
    n, s = north - window.row * down, north - window.bottom * down
    corners = ((w, s), (e, s), (e, n), (w, n), (w, s))
    return f"POLYGON (({', '.join(f'{x:.9f} {y:.9f}' for x, y in corners)}))"
