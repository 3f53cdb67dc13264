"""The manifest: the table of sites, strict in what it takes, Parquet or CSV."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
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
}
REQUIRED = ("site_id", "scene")
WINDOW = ("row_off", "col_off", "height", "width")
SPLITS = ("train", "val", "test")


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

    def scenes(self) -> dict[str, str]:
        """Source of every scene by scene_id, in the order of their first sites."""
        return {site.scene_id: site.scene for site in self.sites}

    @cached_property
    def _labels(self) -> dict[str | None, set[str]]:
        found: dict[str | None, set[str]] = {}
        for site in self.sites:
            if site.label is not None:
                found.setdefault(site.split, set()).add(site.label)
        return found

    def classes(self) -> tuple[str, ...]:
        """Labels of the training split, sorted; of all sites where nothing is marked for training.

        Raises:
            InvalidManifest: validation or test holds a label that training lacks, or nothing is labelled.
        """
        labels = self._labels
        known = labels.get("train") or set().union(*labels.values())
        if not known:
            raise InvalidManifest(self.path, "has no labelled site", "give column `label` values")
        for split in ("val", "test"):
            strange = sorted(labels.get(split, set()) - known)
            if strange:
                what = f"has the label {strange[0]!r} in split {split} that no training site has"
                raise InvalidManifest(self.path, what, "label training sites with it, or drop those sites")
        return tuple(sorted(known))


def scene_id_of(scene: str) -> str:
    """The default name of a scene: its file name and a hash of the path as written in the manifest.

    >>> scene_id_of("north/yard 7.tif")
    'yard_7-5c5e6eef'
    """
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", Path(scene).stem).lstrip("._-") or "scene"
    return f"{stem}-{hashlib.sha256(scene.encode()).hexdigest()[:8]}"


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest. Relative scenes are relative to the manifest's folder.

    Raises:
        InvalidManifest: missing or unreadable file, missing or unknown column, duplicate or empty id,
            impossible split or window, one scene_id for two scenes, no rows.
    """
    name = str(path)
    table = _typed(name, _read_table(Path(path)))
    _check_columns(name, table)
    return Manifest(_sites(name, table, Path(path).absolute().parent), name)


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            return parquet.read_table(path)
        if path.suffix.lower() == ".csv":
            text = csv.ConvertOptions(
                column_types={key: pa.string() for key in COLUMNS}, strings_can_be_null=True, null_values=[""]
            )
            return csv.read_csv(path, convert_options=text)
    except (OSError, pa.ArrowInvalid) as error:
        cause = str(error).splitlines()[0]
        raise InvalidManifest(str(path), f"cannot be read ({cause})", "name a Parquet or CSV file") from error
    raise InvalidManifest(str(path), "is neither .parquet nor .csv", "name a Parquet or CSV file")


def _typed(name: str, table: pa.Table) -> pa.Table:
    """The table with every column of COLUMNS, in its type."""
    for column in table.column_names:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0)[0]
            raise InvalidManifest(name, f"has the unknown column {column!r}", f"did you mean {near!r}; known are {', '.join(COLUMNS)}")
    for column in REQUIRED:
        if column not in table.column_names:
            raise InvalidManifest(name, f"has no column {column!r}", f"add it; it has {', '.join(table.column_names)}")
    columns = {}
    for column, kind in COLUMNS.items():
        if column not in table.column_names:
            columns[column] = pa.chunked_array([pa.nulls(len(table), kind)])
            continue
        try:
            columns[column] = pc.cast(table[column], kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            cause = str(error).splitlines()[0]
            raise InvalidManifest(name, f"has a wrong value in column {column!r} ({cause})", f"make it {kind}") from error
    return pa.table(columns)


def _check_columns(name: str, table: pa.Table) -> None:
    if not len(table):
        raise InvalidManifest(name, "has no rows", "add sites")
    for column in REQUIRED:
        empty = pc.or_kleene(pc.is_null(table[column]), pc.equal(pc.utf8_length(table[column]), 0))
        if pc.any(empty, min_count=0).as_py():
            row = pc.index(pc.fill_null(empty, True), True).as_py()
            raise InvalidManifest(name, f"has no {column} in row {row + 1}", "fill it in")
    counts = pc.value_counts(table["site_id"])
    if len(counts) < len(table):
        double = next(entry["values"] for entry in counts.to_pylist() if entry["counts"] > 1)
        raise InvalidManifest(name, f"has the site_id {double!r} more than once", "make ids unique")
    strange = pc.drop_null(pc.filter(table["split"], pc.invert(pc.is_in(table["split"], pa.array([*SPLITS, None])))))
    if len(strange):
        raise InvalidManifest(name, f"has the split {strange[0].as_py()!r}", f"use {', '.join(SPLITS)} or nothing")
    _check_windows(name, table)


def _check_windows(name: str, table: pa.Table) -> None:
    given = [pc.cast(pc.is_valid(table[column]), pa.int8()) for column in WINDOW]
    count = pc.add(pc.add(given[0], given[1]), pc.add(given[2], given[3]))
    partial = pc.and_(pc.greater(count, 0), pc.less(count, 4))
    negative = pc.or_(
        pc.less(pc.min_element_wise(table["row_off"], table["col_off"]), 0),
        pc.less(pc.min_element_wise(table["height"], table["width"]), 1),
    )
    for wrong, what in ((partial, "a partial window"), (pc.fill_null(negative, False), "an impossible window")):
        row = pc.index(wrong, True).as_py()
        if row >= 0:
            site = table["site_id"][row].as_py()
            remedy = f"give all of {', '.join(WINDOW)} in native pixels, or none for the whole scene"
            raise InvalidManifest(name, f"has {what} at site {site!r}", remedy)


def _sites(name: str, table: pa.Table, folder: Path) -> list[Site]:
    columns = {column: table[column].to_pylist() for column in COLUMNS}
    sites: list[Site] = []
    places: dict[str, tuple[str, str]] = {}
    owners: dict[str, str] = {}
    for n, (site_id, scene) in enumerate(zip(columns["site_id"], columns["scene"], strict=True)):
        if scene not in places:
            places[scene] = (scene if "://" in scene else os.path.normpath(folder / scene), scene_id_of(scene))
        source, default = places[scene]
        scene_id = columns["scene_id"][n] or default
        if owners.setdefault(scene_id, source) != source:
            raise InvalidManifest(name, f"has the scene_id {scene_id!r} for two scenes", "make scene ids unique")
        rows = [columns[column][n] for column in WINDOW]
        window = None if rows[0] is None else Window(*rows)
        label, split, date = columns["label"][n], columns["split"][n], columns["date"][n]
        sites.append(Site(site_id, source, scene_id, window, label, split, date))
    return sites


def write_manifest(rows: Iterable[Mapping[str, object]], path: str | Path) -> Manifest:
    """Write rows (keys of COLUMNS) as a manifest, all of it or nothing, and give it back checked.

    Raises:
        OutputExists: the file is there.
        InvalidManifest: the suffix is neither .parquet nor .csv, or the rows break the schema.
    """
    target = Path(path)
    if target.exists():
        raise OutputExists(str(target))
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(list(COLUMNS.items())))
    draft = target.with_name(f".{uuid4().hex}{target.suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if target.suffix.lower() == ".csv":
            csv.write_csv(table, draft)
        else:
            parquet.write_table(table, draft, compression="zstd")
        checked = read_manifest(draft)
        draft.rename(target)
    except InvalidManifest as error:
        raise InvalidManifest(str(target), error.what, error.remedy) from error
    finally:
        draft.unlink(missing_ok=True)
    return Manifest(checked.sites, str(target))
