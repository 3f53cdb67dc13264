"""Whether a manifest can be worked with: its schema, its files, its windows, its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tnet_geo.errors import InvalidManifest, SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.manifest import SPLITS, Manifest, Site, read_manifest
from tnet_geo.imagery.raster import NO_VALID_PIXELS, RasterInfo, RasterSource, open_raster

__all__ = ["ManifestCheck", "Problem", "check_manifest"]

SHOWN = 20
_AHEAD = 1024
"""Scenes that wait for a thread: a million futures at once would cost more than the manifest."""
_STRIP_BYTES = 64 * 2**20

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    kind  schema, unreadable, outside, twice, label, mixed
    item  the site, scene, label or manifest that it is about
    """

    kind: str
    item: str
    what: str


@dataclass(frozen=True)
class ManifestCheck:
    """What a manifest holds, and what is wrong with it.

    classes  sites by label and split
    pixels   scenes by bands and type of their pixels, such as `3 x uint8`
    sides    shortest and longest side of a scene, in pixels
    crs      scenes by reference system; `none` are those without georeference
    dates    first and last date by split
    gsd      smallest and largest ground sampling distance, metres a pixel
    deep     whether every pixel was decoded
    """

    manifest: str
    sites: int = 0
    scenes: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pixels: Mapping[str, int] = field(default_factory=dict)
    sides: tuple[int, int] | None = None
    crs: Mapping[str, int] = field(default_factory=dict)
    dates: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    gsd: tuple[float, float] | None = None
    deep: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    def exit_code(self) -> int:
        """5 where something is wrong."""
        return 5 if self.problems else 0

    def lines(self) -> list[str]:
        """For people: a table of classes by split, what the scenes are, and the first problems."""
        lines = [f"{self.manifest}: {self.sites} sites in {self.scenes} scenes"]
        lines += _table(self.classes, self.splits)
        lines += [f"pixels: {_counts(self.pixels)}"] if self.pixels else []
        lines += [f"sides: {self.sides[0]} to {self.sides[1]} px"] if self.sides else []
        lines += [f"crs: {_counts(self.crs)}"] if self.crs else []
        lines += [f"gsd: {self.gsd[0]:g} to {self.gsd[1]:g} m"] if self.gsd else []
        lines += [f"dates, {split}: {first} to {last}" for split, (first, last) in self.dates.items()]
        if not self.problems:
            return [*lines, "every pixel could be read" if self.deep else "nothing is wrong"]
        lines.append(f"wrong: {_counts(Counter(problem.kind for problem in self.problems))}")
        lines += [f"  {one.kind} {one.item}: {one.what}" for one in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"  and {len(self.problems) - SHOWN} more: --json names all")
        return lines


def check_manifest(
    path: str | Path, *, deep: bool = False, threads: int = 8, progress: Progress | None = None
) -> ManifestCheck:
    """Check a manifest and open every scene of it: headers alone, or with `deep` every pixel.

    Wrong are: a broken schema, scenes that cannot be opened (with `deep` also: decoded, or without any valid
    pixel), windows that leave their scenes, the same window twice, labels that training lacks, and scenes
    of different bands or types of pixels. `progress` is told how many scenes are done, of how many.

    Raises:
        InvalidManifest: the file is not there.
    """
    try:
        manifest = read_manifest(path)
    except InvalidManifest as error:
        if not Path(path).is_file():
            raise
        return ManifestCheck(str(path), problems=(Problem("schema", str(path), error.what),))
    headers, problems = _headers(manifest, deep, threads, progress)
    problems += _outside(manifest, headers)
    problems += _twice(manifest)
    problems += [
        Problem("label", label, f"{count} sites in {split} and none in train")
        for split, labels in manifest.untrained().items()
        for label, count in labels.items()
    ]
    pixels = Counter(f"{info.bands} x {info.dtype}" for info in headers.values())
    if len(pixels) > 1:
        problems.append(Problem("mixed", manifest.path, f"scenes of {_counts(pixels)}"))
    return _summary(manifest, headers, deep, tuple(problems))


def _summary(
    manifest: Manifest, headers: Mapping[str, RasterInfo], deep: bool, problems: tuple[Problem, ...]
) -> ManifestCheck:
    splits = Counter(site.split or "no split" for site in manifest.sites)
    labels = Counter((site.label or "no label", site.split or "no split") for site in manifest.sites)
    classes: dict[str, dict[str, int]] = {}
    for (label, split), count in sorted(labels.items()):
        classes.setdefault(label, {})[split] = count
    dates: dict[str, tuple[str, str]] = {}
    for name in (*SPLITS, None):
        known = [site.date for site in manifest.sites if site.date is not None and site.split == name]
        if known:
            dates[name or "no split"] = min(known), max(known)
    distances = [site.gsd for site in manifest.sites if site.gsd is not None]
    sides = [side for info in headers.values() for side in info.shape]
    return ManifestCheck(
        manifest=manifest.path,
        sites=len(manifest),
        scenes=len(manifest.scenes()),
        splits={name: splits[name] for name in (*SPLITS, "no split") if splits[name]},
        classes=classes,
        pixels=_most_first(f"{info.bands} x {info.dtype}" for info in headers.values()),
        sides=(min(sides), max(sides)) if sides else None,
        crs=_most_first(_crs_name(info) for info in headers.values()),
        dates=dates,
        gsd=(min(distances), max(distances)) if distances else None,
        deep=deep,
        problems=problems,
    )


def _headers(
    manifest: Manifest, deep: bool, threads: int, progress: Progress | None
) -> tuple[dict[str, RasterInfo], list[Problem]]:
    """Header by scene_id of the scenes that can be read, and what is wrong with the others."""
    scenes = manifest.scenes()
    headers: dict[str, RasterInfo] = {}
    problems = []

    def opened(scene: str) -> RasterInfo | SourceUnreadable:
        try:
            with open_raster(scene) as raster:
                return _decoded(raster) if deep else raster.info
        except SourceUnreadable as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        names: Iterator[str] = iter(scenes)
        while some := list(islice(names, _AHEAD)):
            for name, found in zip(some, pool.map(opened, [scenes[name] for name in some]), strict=True):
                if isinstance(found, RasterInfo):
                    headers[name] = found
                else:
                    problems.append(Problem("unreadable", scenes[name], found.cause))
            if progress is not None:
                progress(len(headers) + len(problems), len(scenes))
    return headers, problems


def _decoded(raster: RasterSource) -> RasterInfo:
    """Read all pixels in strips of whole blocks.

    Raises:
        SourceUnreadable: some cannot be decoded, or none is valid.
    """
    info = raster.info
    row_bytes = info.shape[1] * info.bands * 8
    blocks = max(1, _STRIP_BYTES // (row_bytes * info.block_shape[0]))
    rows = min(info.shape[0], blocks * info.block_shape[0])
    valid = False
    for top in range(0, info.shape[0], rows):
        window = Window(top, 0, min(rows, info.shape[0] - top), info.shape[1])
        _, share = raster.read(window)
        valid = valid or share is None or bool(share.any())
    if not valid:
        raise SourceUnreadable(info.source, NO_VALID_PIXELS)
    return info


def _outside(manifest: Manifest, headers: Mapping[str, RasterInfo]) -> list[Problem]:
    problems = []
    for site in manifest.sites:
        info = headers.get(site.scene_id)
        if info is None or site.window is None or Window(0, 0, *info.shape).contains(site.window):
            continue
        at = site.window
        what = (
            f"rows {at.row} to {at.bottom} and columns {at.col} to {at.right} of a scene of "
            f"{info.shape[0]} rows and {info.shape[1]} columns"
        )
        problems.append(Problem("outside", site.site_id, what))
    return problems


def _twice(manifest: Manifest) -> list[Problem]:
    """Sites of the same pixels: in two splits they would be learnt by heart and tested on."""
    first: dict[tuple[str, Window | None], Site] = {}
    problems = []
    for site in manifest.sites:
        other = first.setdefault((site.scene, site.window), site)
        if other is not site:
            there = f" of split {other.split or 'none'}" if other.split != site.split else ""
            problems.append(Problem("twice", site.site_id, f"has the pixels of {other.site_id}{there}"))
    return problems


def _crs_name(info: RasterInfo) -> str:
    if info.crs is None:
        return "none"
    return info.crs if len(info.crs) < 40 else "a system without a code"


def _most_first(names: Iterator[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _table(classes: Mapping[str, Mapping[str, int]], splits: Mapping[str, int]) -> list[str]:
    """Sites by label, a column for each split."""
    rows = [
        ("class", *splits),
        *((name, *(str(of.get(s, 0)) for s in splits)) for name, of in classes.items()),
    ]
    rows.append(("all", *map(str, splits.values())))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
        if splits
    ]
