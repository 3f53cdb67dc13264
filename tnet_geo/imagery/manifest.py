"""The manifest: the table of sites, strict in what it takes, Parquet or CSV."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from tnet_geo.errors import InvalidManifest, OutputExists
from tnet_geo.grid import Window

__all__ = ["COLUMNS", "SPLITS", "Manifest", "Site", "read_manifest", "scene_id_of", "write_manifest"]

COLUMNS = {
    "site_id": pa.string(),
    "scene": pa.string(),
    "scene_id": pa.string(),
    "label": pa.string(),
    "split": pa.string(),
    "row_off": pa.int64(),
    "col_off": pa.int64(),
    "height": pa.int64(),
    "width": pa.int64(),
    "date": pa.string(),
    "gsd": pa.float64(),
    "country": pa.string(),
    "footprint": pa.string(),
    "cloud_cover": pa.float64(),
}
REQUIRED = ("site_id", "scene")
WINDOW = ("row_off", "col_off", "height", "width")
ABOUT = ("gsd", "country", "footprint", "cloud_cover")
"""What a site need not say of itself: these columns are written where one site says it."""
SPLITS = ("train", "val", "test", "seq")


@dataclass(frozen=True, slots=True)
class Site:
    """What gets one answer: a window of one scene."""

    site_id: str
    scene: str
    """Path of the source raster, absolute, or its URI."""
    scene_id: str
    """Name of its pyramid."""
    window: Window | None = None
    """None: the whole scene."""
    label: str | None = None
    split: str | None = None
    date: str | None = None
    gsd: float | None = None
    """Ground sampling distance: metres a pixel of the scene."""
    country: str | None = None
    """ISO 3166-1 alpha-3 as found; some of fMoW's do not exist."""
    footprint: str | None = None
    """Of the site, not of its scene: WKT POLYGON or MULTIPOLYGON in OGC:CRS84, x is longitude."""
    cloud_cover: float | None = None
    """Percent, 0 to 100."""


class Manifest:
    """Sites in the order of their table."""

    def __init__(self, sites: Sequence[Site], path: str) -> None:
        self.sites = tuple(sites)
        self.path = path

    def __len__(self) -> int:
        return len(self.sites)

    def select(self, split: str | None) -> Manifest:
        """The sites of one split; None: all."""
        if split is None:
            return self
        return Manifest([site for site in self.sites if site.split == split], self.path)

    def scenes(self) -> Mapping[str, str]:
        """Source of every scene by scene_id, in the order of their first sites."""
        return {site.scene_id: site.scene for site in self.sites}

    def classes(self) -> tuple[str, ...]:
        """Labels of the training split, sorted; of all sites where nothing labelled is for training.

        Raises:
            InvalidManifest: another split holds a label that training lacks, or nothing is labelled.
        """
        labels = self.labels()
        known = set(labels.get("train", ())) or set().union(*labels.values())
        if not known:
            raise InvalidManifest(self.path, "has no labelled site", "give column `label` values")
        # Leaving such sites out by ourselves would make every figure better than it is.
        for split, strange in self.untrained().items():
            label, sites = next(iter(strange.items()))
            others = f" (and {len(strange) - 1} more such labels)" if len(strange) > 1 else ""
            what = f"has the label {label!r} in split {split} that no training site has{others}"
            remedy = (
                f"give some of them to train, or leave the {sites} in {split} out by giving them no split"
            )
            raise InvalidManifest(self.path, what, remedy)
        return tuple(sorted(known))

    def labels(self) -> dict[str | None, dict[str, int]]:
        """Number of sites by split and label; sites without label do not count."""
        counts = Counter((site.split, site.label) for site in self.sites if site.label is not None)
        labels: dict[str | None, dict[str, int]] = {}
        for (split, label), count in sorted(counts.items(), key=str):
            labels.setdefault(split, {})[label] = count
        return labels

    def untrained(self) -> dict[str, dict[str, int]]:
        """Labels that training lacks, with their sites, by split; nothing where there is no training."""
        labels = self.labels()
        trained = labels.get("train")
        strange = {
            split: {label: count for label, count in labels.get(split, {}).items() if label not in trained}
            for split in SPLITS
            if trained
        }
        return {split: found for split, found in strange.items() if found}


def scene_id_of(scene: str) -> str:
    """The default name of a scene: its file name and a hash of the path as written in the manifest.

    >>> scene_id_of("north/yard 7.tif")
    'yard_7-5c5e6eef'
    """
    file = scene.rpartition("/")[2]  # not a Path: there may be a million scenes
    stem = file.rpartition(".")[0] or file
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", stem).lstrip("._-") or "scene"
    return f"{stem}-{hashlib.sha256(scene.encode()).hexdigest()[:8]}"


def folder_of(path: str | Path) -> Path:
    """The folder of a file as an absolute path without `..`; links are not followed."""
    return Path(os.path.abspath(path)).parent


def scene_place(scene: str, folder: Path) -> str:
    """Where a scene lies that a table in `folder` names: an absolute path, or the URI as it is."""
    if "://" in scene:
        return scene
    return os.path.normpath(scene if scene.startswith("/") else f"{folder}/{scene}")


def scene_text(place: str, folder: Path) -> str:
    """A place as a manifest in `folder` writes it: relative when below, so that both can move together."""
    return place.removeprefix(f"{folder}/")


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest. Relative scenes are relative to the manifest's folder.

    Raises:
        InvalidManifest: missing or unreadable file, missing or unknown column, duplicate or empty id,
            impossible split, window, date, gsd, footprint or cloud cover, one scene_id for two scenes,
            no rows.
    """
    name = str(path)
    table = _typed(name, _read_table(Path(path)))
    _check_columns(name, table)
    return Manifest(_sites(name, table, folder_of(path)), name)


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            with parquet.ParquetFile(path) as file:  # a folder named a=b above it adds no column this way
                return file.read()
        if path.suffix.lower() == ".csv":
            as_text = {key: pa.string() for key in COLUMNS}
            options = csv.ConvertOptions(column_types=as_text, strings_can_be_null=True, null_values=[""])
            return csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowException) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InvalidManifest(str(path), f"cannot be read ({cause})", "name a Parquet or CSV file") from error
    raise InvalidManifest(str(path), "is neither .parquet nor .csv", "name a Parquet or CSV file")


def _typed(name: str, table: pa.Table) -> pa.Table:
    """The table with every column of COLUMNS, in its type; empty text is none."""
    given = table.column_names
    for column in given:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0)[0]
            remedy = f"did you mean {near!r}; known are {', '.join(COLUMNS)}"
            raise InvalidManifest(name, f"has the unknown column {column!r}", remedy)
        if given.count(column) > 1:
            raise InvalidManifest(name, f"has the column {column!r} more than once", "keep one of them")
    for column in REQUIRED:
        if column not in given:
            raise InvalidManifest(name, f"has no column {column!r}", f"add it; it has {', '.join(given)}")
    columns = {}
    for column, kind in COLUMNS.items():
        if column not in given:
            columns[column] = pa.chunked_array([pa.nulls(len(table), kind)])
            continue
        try:
            values = pc.cast(table[column], kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            what = f"has a wrong value in column {column!r} ({' '.join(str(error).split())})"
            raise InvalidManifest(name, what, f"make it {kind}") from error
        if kind == pa.string():
            values = pc.if_else(pc.equal(values, ""), pa.scalar(None, kind), values)
        columns[column] = values
    return pa.table(columns)


def _check_columns(name: str, table: pa.Table) -> None:
    if not len(table):
        raise InvalidManifest(name, "has no rows", "add sites")
    for column in REQUIRED:
        if table[column].null_count:
            row = pc.index(pc.is_null(table[column]), True).as_py()
            raise InvalidManifest(name, f"has no {column} in row {row + 1}", "fill it in")
    counts = pc.value_counts(table["site_id"])
    if len(counts) < len(table):
        double = counts.field("values")[pc.index(pc.greater(counts.field("counts"), 1), True).as_py()]
        raise InvalidManifest(name, f"has the site_id {double.as_py()!r} more than once", "make ids unique")
    for split in _distinct(table, "split"):
        if split not in SPLITS:
            raise InvalidManifest(name, f"has the split {split!r}", f"use {', '.join(SPLITS)} or nothing")
    for date in _distinct(table, "date"):
        if not _is_date(date):
            remedy = "write ISO 8601, such as 2024-05-31 or 2024-05-31T10:40:00Z"
            raise InvalidManifest(name, f"has the date {date!r}", remedy)
    _check_about(name, table)
    _check_windows(name, table)


def _check_about(name: str, table: pa.Table) -> None:
    gsd, cloud, footprint = (table[column] for column in ("gsd", "cloud_cover", "footprint"))
    # Comparisons with NaN are false, so that what must hold is asked for, not what must not.
    right = {
        "gsd": (pc.and_(pc.greater(gsd, 0), pc.is_finite(gsd)), "metres a pixel, above 0"),
        "cloud_cover": (
            pc.and_(pc.greater_equal(cloud, 0), pc.less_equal(cloud, 100)),
            "percent, 0 to 100",
        ),
        "footprint": (
            pc.match_substring_regex(footprint, r"^(MULTI)?POLYGON *\("),
            "WKT POLYGON or MULTIPOLYGON",
        ),
    }
    for column, (holds, remedy) in right.items():
        row = pc.index(holds, False).as_py()
        if row >= 0:
            site, value = table["site_id"][row].as_py(), table[column][row].as_py()
            raise InvalidManifest(name, f"has the {column} {value!r} at site {site!r}", f"write {remedy}")


def _distinct(table: pa.Table, column: str) -> list[str]:
    values: list[str] = pc.drop_null(pc.unique(table[column])).to_pylist()
    return values


def _is_date(text: str) -> bool:
    """Whether it is ISO 8601, a year or a month alone too."""
    try:
        datetime.fromisoformat(text + "-01-01"[: 10 - len(text)] if len(text) in {4, 7} else text)
    except ValueError:
        return False
    return True


def _check_windows(name: str, table: pa.Table) -> None:
    given = [pc.cast(pc.is_valid(table[column]), pa.int8()) for column in WINDOW]
    count = pc.add(pc.add(given[0], given[1]), pc.add(given[2], given[3]))
    partial = pc.and_(pc.greater(count, 0), pc.less(count, 4))
    impossible = pc.or_(
        pc.less(pc.min_element_wise(table["row_off"], table["col_off"]), 0),
        pc.less(pc.min_element_wise(table["height"], table["width"]), 1),
    )
    for wrong, what in ((partial, "a partial window"), (impossible, "an impossible window")):
        row = pc.index(pc.fill_null(wrong, False), True).as_py()
        if row >= 0:
            site = table["site_id"][row].as_py()
            remedy = f"give all of {', '.join(WINDOW)} in native pixels, or none for the whole scene"
            raise InvalidManifest(name, f"has {what} at site {site!r}", remedy)


def _sites(name: str, table: pa.Table, folder: Path) -> list[Site]:
    columns = {column: table[column].to_pylist() for column in COLUMNS}
    places: dict[str, tuple[str, str]] = {}
    owners: dict[str, str] = {}
    sites: list[Site] = []
    for site_id, scene, scene_id, label, split, row, col, height, width, *about in zip(
        *columns.values(), strict=True
    ):
        if scene not in places:
            places[scene] = scene_place(scene, folder), scene_id_of(scene)
        place, default = places[scene]
        named = scene_id or default
        if owners.setdefault(named, place) != place:
            what = f"has the scene_id {named!r} for two scenes"
            raise InvalidManifest(name, what, "make scene ids unique")
        window = None if row is None else Window(row, col, height, width)
        sites.append(Site(site_id, place, named, window, label, split, *about))
    return sites


def write_manifest(sites: Iterable[Site], path: str | Path) -> Manifest:
    """Write sites as a manifest, all of it or nothing, and give it back as it is read again.

    Scenes below the manifest's folder are written relative to it, so that both can be moved together.

    Raises:
        OutputExists: the file is there.
        InvalidManifest: the suffix is neither .parquet nor .csv, or the sites break the schema.
    """
    target = Path(path)
    name, folder = str(target), folder_of(path)
    if target.exists():
        raise OutputExists(name)
    if target.suffix.lower() not in {".parquet", ".csv"}:
        raise InvalidManifest(name, "is neither .parquet nor .csv", "name a Parquet or CSV file")
    table = _typed(name, _table(list(sites), folder))
    _check_columns(name, table)
    manifest = Manifest(_sites(name, table, folder), name)
    table = table.drop_columns([column for column in ABOUT if table[column].null_count == len(table)])
    folder.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{uuid4().hex}{target.suffix}")
    try:
        if target.suffix.lower() == ".csv":
            csv.write_csv(table, draft)
        else:
            parquet.write_table(table, draft, compression="zstd")
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def _table(sites: Sequence[Site], folder: Path) -> pa.Table:
    values: dict[str, list[Any]] = {
        column: [getattr(site, column) for site in sites] for column in COLUMNS if column not in WINDOW
    }
    values["scene"] = [scene_text(scene, folder) for scene in values["scene"]]
    for column, name in zip(WINDOW, ("row", "col", "height", "width"), strict=True):
        values[column] = [None if site.window is None else getattr(site.window, name) for site in sites]
    return pa.table({column: pa.array(values[column], kind) for column, kind in COLUMNS.items()})
