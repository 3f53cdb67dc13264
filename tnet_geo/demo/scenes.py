"""Scenes of the demo: a seed comes in, a folder of georeferenced images, a folder per class, goes out."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from tnet_geo.demo.landcover import Chance, paint_land
from tnet_geo.demo.objects import PANEL_GREY, class_names, lay_out, paint_panels
from tnet_geo.errors import OutputExists, UsageError
from tnet_geo.grid import Window

__all__ = ["Scene", "generate_scenes", "label_order", "make_scene", "write_scene"]

GSD_M, CRS = 0.5, "EPSG:32630"
WEST_M, NORTH_M, APART_M, A_ROW = 460_000.0, 4_360_000.0, 64.0, 40
"""Dry farmland of La Mancha: the corner of scene 0, the strip between scenes, scenes in a row."""
SMALLEST_SIDE_PX, NOISE = 160, 5.0
_CLEARINGS, _LAND, _PANELS, _SENSOR, _LABELS = range(5)
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Scene:
    """One generated scene and what is planted in it.

    pixels  uint8 [side_px, side_px, 3]: red, green, blue
    label   its class
    boxes   insides of the target's panels, in native pixels: all that depends on the class
    target  row and column of the middle of the target, in native pixels
    """

    pixels: NDArray[np.uint8]
    label: str
    boxes: tuple[Window, ...]
    target: tuple[int, int]


def make_scene(seed: int, index: int, label: str, side_px: int = 512, *, cue: float = 1.0) -> Scene:
    """Scene `index` of a seed, its target marked as class `label`; `cue` is how much sandier its ground is.

    What chance decides depends on seed and index alone, so another label changes pixels inside `boxes` only.

    >>> make_scene(seed=0, index=7, label="striped", side_px=256).pixels.shape
    (256, 256, 3)

    Raises:
        UsageError: the side has no room for a clearing.
    """
    if side_px < SMALLEST_SIDE_PX:
        raise UsageError(f"A scene of {side_px} pixels is too small: ask for {SMALLEST_SIDE_PX} or more.")
    clearings = lay_out(_chance(seed, index, _CLEARINGS), side_px, cue)
    land = paint_land(_chance(seed, index, _LAND), side_px, [clearing.ground for clearing in clearings])
    sensor = _chance(seed, index, _SENSOR)
    gain, bias = sensor.uniform(0.92, 1.08), sensor.uniform(-8, 8)
    lowest, highest = (2 * NOISE - bias) / gain, (255 - 2 * NOISE - bias) / gain
    headroom = min(highest - PANEL_GREY, PANEL_GREY - lowest)
    paint_panels(land, _chance(seed, index, _PANELS), clearings, label, headroom)
    noise = sensor.standard_normal((side_px, side_px), np.float32)
    land *= np.float32(gain)
    land += (np.float32(NOISE) * noise + np.float32(bias))[:, :, None]
    pixels = np.rint(land, out=land).clip(0, 255).astype(np.uint8)
    return Scene(pixels, label, clearings[0].panels, clearings[0].centre)


def generate_scenes(
    out: str | Path,
    *,
    seed: int,
    sites: int,
    side_px: int = 512,
    workers: int | None = None,
    cue: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `sites` scenes as OUT/<class>/scene-<number>.tif and return OUT.

    GeoTIFF, uint8, 3 bands, UTM, 0.5 m; uncompressed, because a compressed size would tell of the content.
    As many of each class as can be, in an order that the number does not tell. The same arguments give
    the same bytes with any number of `workers` (processes; None: one for each usable core). OUT appears
    when it is whole. `progress` is told how many scenes are done, of how many.

    Raises:
        OutputExists: OUT is there and is not an empty folder.
        UsageError: the side has no room for a clearing.
    """
    folder = Path(out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputExists(str(folder))
    if side_px < SMALLEST_SIDE_PX:
        raise UsageError(f"A scene of {side_px} pixels is too small: ask for {SMALLEST_SIDE_PX} or more.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    for name in class_names():
        (partial / name).mkdir(parents=True)
    labels = label_order(seed, sites)
    jobs = [_Job(partial, seed, number, label, side_px, cue) for number, label in enumerate(labels)]
    try:
        for done, _ in enumerate(_run(jobs, workers or _usable_cores()), start=1):
            if progress is not None:
                progress(done, sites)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def label_order(seed: int, sites: int) -> tuple[str, ...]:
    """The class of each scene by its number: balanced within one, in random order."""
    names = class_names()
    return tuple(names[place % len(names)] for place in _chance(seed, 0, _LABELS).permutation(sites))


def write_scene(path: Path, scene: Scene, number: int) -> None:
    """Write a scene as GeoTIFF at the place of its number. Nothing but its pixels depends on the class."""
    side_px = len(scene.pixels)
    row, col = divmod(number, A_ROW)
    step = side_px * GSD_M + APART_M
    place = Affine(GSD_M, 0, WEST_M + step * col, 0, -GSD_M, NORTH_M - step * row)
    profile = {"driver": "GTiff", "width": side_px, "height": side_px, "count": 3, "dtype": "uint8"}
    layout = {
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "photometric": "RGB",
        "interleave": "pixel",
    }
    with rasterio.open(path, "w", crs=CRS, transform=place, **profile, **layout) as raster:
        raster.write(scene.pixels.transpose(2, 0, 1))


@dataclass(frozen=True, slots=True)
class _Job:
    folder: Path
    seed: int
    number: int
    label: str
    side_px: int
    cue: float


def _run(jobs: list[_Job], workers: int) -> Iterator[None]:
    """Write the scenes, here if one process is enough."""
    if workers == 1 or len(jobs) <= _AT_ONCE:
        yield from map(_write, jobs)
        return
    # Spawned, not forked: OpenCV and GDAL hold locks that a fork would copy in any state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(_write, jobs, chunksize=_AT_ONCE)


def _chance(seed: int, index: int, stream: int) -> Chance:
    """The generator of one stream of a scene: none of them knows the class."""
    return np.random.default_rng([seed, index, stream])


def _usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(job: _Job) -> None:
    scene = make_scene(job.seed, job.number, job.label, job.side_px, cue=job.cue)
    write_scene(job.folder / job.label / f"scene-{job.number:05d}.tif", scene, job.number)
