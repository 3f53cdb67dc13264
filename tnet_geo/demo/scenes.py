"""An archive of generated scenes: what the demo classifies.

Each scene has four yards. Small panels on one of them, which is sandier than the others, carry the
marking that is the scene's class; panels on the others carry none or a random texture. Nothing but the
pixels of the target's panels depends on the class: everything else is drawn from streams of its own.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from tnet_geo.demo.landcover import land_cover, paint_yard, place_yards
from tnet_geo.demo.objects import CLASSES, Panel, marking, paint_panel, place_panels, plain_interior, texture_interior
from tnet_geo.errors import OutputExists, UsageError

__all__ = ["Scene", "generate_scenes", "label_of", "make_scene"]

GSD_M = 0.5
CRS = "EPSG:32632"
ORIGIN_M = (600_000.0, 5_330_000.0)
YARDS = 4
_CHUNK = 8


@dataclass(frozen=True)
class Scene:
    """One generated scene."""

    pixels: NDArray[np.uint8]
    """[side, side, 3]."""
    label: str
    panels: tuple[Panel, ...]
    """The objects that carry the class."""
    target: tuple[int, int]
    """Row and column of the centre of their yard."""


def label_of(seed: int, number: int) -> str:
    """The class of a scene: as many of each as can be, in an order that its number does not tell."""
    block, place = divmod(number, len(CLASSES))
    order = np.random.default_rng([seed, 11, block]).permutation(len(CLASSES))
    return CLASSES[order[place]]


def make_scene(seed: int, number: int, label: str, side_px: int = 512) -> Scene:
    """The scene `number` of an archive, with the marking `label` on its target.

    Scenes of equal seed, number and side but different labels differ inside the target's panels only.
    """
    streams = np.random.SeedSequence([seed, number, side_px]).spawn(5)
    ground, places, yards_paint, panels_paint, last = (np.random.default_rng(stream) for stream in streams)
    image = land_cover(ground, side_px)
    yards = place_yards(places, side_px, YARDS)
    targets: list[Panel] = []
    for n, yard in enumerate(yards):
        paint_yard(yards_paint, image, yard)
        panels = place_panels(places, yard.row, yard.col, min(yard.radii) * 0.95)
        kind = int(places.integers(3))  # what a decoy holds: nothing, plain panels, or texture
        for panel in panels:
            texture = texture_interior(panels_paint, panel)  # always drawn, so that streams stay in step
            if n == 0:
                targets.append(panel)
                paint_panel(image, panel, marking(panel, label))
            elif kind:
                paint_panel(image, panel, plain_interior(panel) if kind == 1 else texture)
    gain, bias = last.uniform(0.92, 1.08), last.uniform(-8, 8)
    noise = 5 * last.standard_normal((side_px, side_px), dtype=np.float32)
    pixels = np.clip(image * np.float32(gain) + np.float32(bias) + noise[..., None], 0, 255)
    return Scene(pixels.round().astype(np.uint8), label, tuple(targets), (yards[0].row, yards[0].col))


def generate_scenes(
    out: str | Path,
    *,
    seed: int,
    sites: int,
    side_px: int = 512,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `sites` scenes as OUT/<class>/scene_<number>.tif: GeoTIFF, UTM, 0.5 m, three bands.

    Uncompressed, because a compressed size would tell something of the content. The same arguments give
    the same bytes, whatever the number of processes.

    Raises:
        OutputExists: `out` is there and not empty.
        UsageError: the side is too small for four yards.
    """
    folder = Path(out)
    if side_px < 384:
        raise UsageError(f"A scene of {side_px} pixels has no room for four yards: take at least 384.")
    if folder.exists() and any(folder.iterdir()):
        raise OutputExists(str(folder))
    for label in CLASSES:
        (folder / label).mkdir(parents=True, exist_ok=True)
    write = partial(_write_scenes, folder, seed, side_px)
    chunks = [range(first, min(first + _CHUNK, sites)) for first in range(0, sites, _CHUNK)]
    done = 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # spawn, not fork: OpenCV and GDAL keep threads and locks that a fork would tear.
    with ProcessPoolExecutor(workers or cores, multiprocessing.get_context("spawn")) as pool:
        for count in pool.map(write, chunks):
            done += count
            if progress is not None:
                progress(done, sites)
    return folder


def _write_scenes(folder: Path, seed: int, side_px: int, numbers: range) -> int:
    cv2.setNumThreads(1)
    for number in numbers:
        scene = make_scene(seed, number, label_of(seed, number), side_px)
        _write(folder / scene.label / f"scene_{number:05d}.tif", scene.pixels, number, side_px)
    return len(numbers)


def _write(path: Path, pixels: NDArray[np.uint8], number: int, side_px: int) -> None:
    """Scenes lie side by side, twenty to a row, in the order of their numbers."""
    step = side_px * GSD_M
    left, top = ORIGIN_M[0] + number % 20 * step, ORIGIN_M[1] - number // 20 * step
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": side_px, "width": side_px, "crs": CRS}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel", "photometric": "RGB"}
    with rasterio.open(path, "w", **profile, **blocks, transform=Affine(GSD_M, 0, left, 0, -GSD_M, top)) as target:
        target.write(pixels.transpose(2, 0, 1))
