"""Which overviews of a GeoTIFF are the levels of a pyramid, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

from tnet_geo.errors import OverviewsMissing
from tnet_geo.grid import last_level
from tnet_geo.imagery.bands import Bands
from tnet_geo.imagery.raster import RasterInfo
from tnet_geo.pyramid.handles import HANDLES, Handle
from tnet_geo.pyramid.ranges import RangedFile

__all__ = ["CogFile", "StoredLevel", "open_cog_file"]

MOST_REDUCED_PX = 2048
"""Longest side of a level that is read whole to make the coarser ones in memory."""
BUILD = "build a pyramid of it with `tnet-geo pyramid build`"


@dataclass(frozen=True, slots=True)
class StoredLevel:
    """A level that lies in the file."""

    overview: int | None
    """Which overview, from 0; None: the native image."""
    shape: tuple[int, int]
    block_shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CogFile:
    """What is known of a file after its header was read."""

    info: RasterInfo
    bands: Bands
    levels: tuple[StoredLevel, ...]
    """Those in the file that a pyramid needs, native first."""
    shapes: tuple[tuple[int, int], ...]
    """Rows and columns of all levels; those beyond `levels` are made in memory."""


def open_cog_file(source: str, remote: RangedFile | None, key: tuple[object, ...], half_px: int) -> CogFile:
    """Read the header of a file, and match its overviews with the levels that a lattice step needs.

    Raises:
        SourceUnreadable: it cannot be opened, or no network looks at such pixels.
        OverviewsMissing: it is no GeoTIFF, or a level is neither in it nor small enough to be made.
    """
    if remote is not None and set(remote.sidecars) & {".msk", ".ovr"}:
        what = "has its mask or its overviews in a file beside it, which is read on local disks only"
        raise OverviewsMissing(source, what, f"make it one file with `rio cogeo create`, or {BUILD}")
    with HANDLES.lent((*key, None), lambda: Handle(source, remote, None)) as handle:
        driver = handle.dataset.driver
        if driver != "GTiff":
            raise OverviewsMissing(source, f"is a {driver}, not a Cloud-Optimised GeoTIFF", BUILD)
        info, bands = handle.describe()
        count = len(handle.dataset.overviews(1))
    native = StoredLevel(None, info.shape, info.block_shape)
    overviews = [_overview(source, remote, key, n) for n in range(count)]
    return CogFile(info, bands, *_matched(source, native, overviews, half_px))


def _overview(source: str, remote: RangedFile | None, key: tuple[object, ...], number: int) -> StoredLevel:
    with HANDLES.lent((*key, number), lambda: Handle(source, remote, number)) as handle:
        return StoredLevel(number, handle.dataset.shape, handle.dataset.block_shapes[0])


def _matched(
    source: str, native: StoredLevel, overviews: list[StoredLevel], half_px: int
) -> tuple[tuple[StoredLevel, ...], tuple[tuple[int, int], ...]]:
    """Stored levels, and the shapes of all; halves of odd sides may be rounded up or down."""
    last = last_level(native.shape, half_px)
    levels = [native]
    while len(levels) <= last:
        found = next((one for one in overviews if _is_level(one.shape, native.shape, len(levels))), None)
        if found is None:
            break
        levels.append(found)
    shapes = [level.shape for level in levels]
    if len(levels) <= last:
        _check_reducible(source, native, levels, overviews, last)
    while len(shapes) <= last:
        rows, cols = shapes[-1]
        shapes.append((-(-rows // 2), -(-cols // 2)))
    return tuple(levels), tuple(shapes)


def _is_level(shape: tuple[int, int], native: tuple[int, int], level: int) -> bool:
    """Whether a shape is the native one halved so many times."""
    return all(side >> level <= own <= -(-side >> level) for own, side in zip(shape, native, strict=True))


def _check_reducible(
    source: str, native: StoredLevel, levels: list[StoredLevel], overviews: list[StoredLevel], last: int
) -> None:
    """Refuse a gap between overviews, and a smallest one that is too large to be read whole."""
    smallest = levels[-1].shape
    uneven = [one.shape for one in overviews if max(one.shape) < max(smallest)]
    if max(smallest) <= MOST_REDUCED_PX and not uneven:
        return
    factors = " ".join(str(2**level) for level in range(1, last + 1))
    what = f"has no overview at 1/{2 ** len(levels)} of its {native.shape[0]} x {native.shape[1]} pixels"
    if uneven:
        what += f", but one of {uneven[0][0]} x {uneven[0][1]}"
    remedy = f"add overviews with `gdaladdo -clean FILE; gdaladdo -r average FILE {factors}`, or {BUILD}"
    raise OverviewsMissing(source, what, remedy)
