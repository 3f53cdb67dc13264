"""What the benchmarks of the engine walk over: real pictures, mirrored to scenes of any side, and a network.

The pictures are those of ../shared/data/scenes. A scene of 28 672 px is a mosaic of mirrored copies: real
grain and real edges, no seam, and not a pixel of noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from tests.benchmarks.cogs import cog_of
from tests.benchmarks.sources import GEOREFERENCE
from tnet_geo.imagery import Manifest, Site
from tnet_geo.model import Bundle, BundleFacts, NetworkSettings, TraversalNetwork, WalkSettings
from tnet_geo.operations import build_archive
from tnet_geo.pyramid import open_archive

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "scenes"
PICTURES = (
    "drone_frame_4000.jpg",
    "bridge_car_park_2048.tif",
    "forest_road_1249.tif",
    "river_town_1000.tif",
    "fields_alpha_686.tif",
)
BACKBONE, BASE_PX, CLASSES = "timm/efficientnet_b0", 224, 62
KEEP = (2, 1, 1)
STRIP = 1024


def network() -> TraversalNetwork:
    """efficientnet_b0 with random weights: what it answers is arbitrary, but always the same."""
    torch.manual_seed(0)
    settings = NetworkSettings(backbone=BACKBONE, base_px=BASE_PX, classes=CLASSES, depths=4)
    return TraversalNetwork(settings).eval()


def bundle_of(folder: Path) -> Path:
    """The bundle of that network; walks keep (2, 1, 1, ...)."""
    path = folder / "bundle"
    if not path.exists():
        made = network()
        classes = tuple(f"class-{n:02}" for n in range(CLASSES))
        facts = BundleFacts(classes=classes, network=made.settings, walk=WalkSettings(keep=KEEP))
        Bundle(facts, made).save(path)
    return path


def picture(n: int) -> NDArray[np.uint8]:
    """The n-th real picture, in turns: [3, y, x]."""
    with rasterio.open(SHARED / PICTURES[n % len(PICTURES)]) as source:
        return np.asarray(source.read((1, 2, 3)))


def mirrored(length: int, first: int, count: int) -> NDArray[np.intp]:
    """Places first ... first + count of an endless row of mirrored copies of `length` pixels.

    >>> mirrored(3, 0, 8).tolist()
    [0, 1, 2, 2, 1, 0, 0, 1]
    """
    place = np.arange(first, first + count) % (2 * length)
    return np.where(place < length, place, 2 * length - 1 - place)


def scene(folder: Path, side: int, n: int, **profile: object) -> Path:
    """A GeoTIFF of real content: the n-th picture, mirrored, from a place that the seed n chooses."""
    path = folder / f"scene-{side}-{n}.tif"
    if path.exists():
        return path
    pixels = picture(n)
    top, left = np.random.default_rng(n).integers(0, min(pixels.shape[1:]), 2)
    settings = {"tiled": True, "blockxsize": 512, "blockysize": 512, "photometric": "RGB", "bigtiff": "YES"}
    settings |= {"compress": "ZSTD", "zstd_level": 1} | GEOREFERENCE | profile
    columns = mirrored(pixels.shape[2], int(left), side)
    draft = path.with_name(f".{path.name}")
    shape = {"width": side, "height": side, "count": 3, "dtype": "uint8"}
    with rasterio.open(draft, "w", driver="GTiff", **shape, **settings) as target:
        for row in range(0, side, STRIP):
            high = min(STRIP, side - row)
            strip = pixels[:, mirrored(pixels.shape[1], int(top) + row, high)]
            target.write(np.ascontiguousarray(strip[:, :, columns]), window=Window(0, row, side, high))
    draft.rename(path)
    return path


def sites_of(side: int, scenes: int, sites: int | None = None) -> list[Site]:
    """So many sites of one side; each is a whole scene, in turns where there are fewer scenes than sites."""
    each = [(f"{side}-{n}", f"scene-{side}-{n % scenes}") for n in range(sites or scenes)]
    return [Site(site_id, f"{name}.tif", name) for site_id, name in each]


def archive_of(folder: Path, side: int, scenes: int, workers: int = 2) -> Path:
    """Their pyramids; those that are there are kept, and the GeoTIFFs of new ones are removed again."""
    archive = folder / f"archive-{side}"
    there = set(open_archive(archive).scene_ids()) if archive.exists() else set()
    missing = [n for n in range(scenes) if f"scene-{side}-{n}" not in there]
    if missing:
        paths = [scene(folder, side, n) for n in missing]
        sites = [Site(path.stem, str(path), path.stem) for path in paths]
        report = build_archive(Manifest(sites, str(archive)), archive, half_px=BASE_PX // 2, workers=workers)
        if report.set_aside:
            raise RuntimeError(report.set_aside[0].reason)
        for path in paths:
            path.unlink()
    return archive


def cogs_of(folder: Path, side: int, scenes: int) -> Path:
    """The same scenes as Cloud-Optimised GeoTIFFs, as GDAL's driver makes them: zstd, blocks of 256."""
    cogs = folder / f"cogs-{side}"
    cogs.mkdir(exist_ok=True)
    for n in range(scenes):
        path = cogs / f"scene-{side}-{n}.tif"
        if not path.exists():
            source = scene(folder, side, n)
            cog_of(source, path, compress="ZSTD", level=1, predictor="YES", blocksize=256)
            source.unlink()
    return cogs


def listed(cogs: Path, url: str) -> Path:
    """The list of their addresses on a server whose root is the folder above."""
    path = cogs.with_suffix(".txt")
    path.write_text("".join(f"{url}/{cogs.name}/{cog.name}\n" for cog in sorted(cogs.glob("*.tif"))))
    return path
