"""Small archives to be damaged, and ways to damage them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from tests.packs import images, member_of, pack_all
from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Window
from tnet_geo.imagery.manifest import Manifest, Site, write_manifest
from tnet_geo.pyramid import ArchiveSettings, create_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.canvas import canvas_site
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.store import open_store

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=2)


@dataclass(frozen=True)
class Undamaged:
    """An archive, the manifest of its sources, and all of its files as they should be."""

    path: Path
    manifest: Manifest
    files: dict[str, bytes]

    @property
    def shards(self) -> list[str]:
        return [name for name in self.files if "/c/" in name]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def scenes_archive(folder: Path) -> Undamaged:
    """Scenes of 75 x 103 pixels: `plain`, `masked`, `bare` without georeference, `gaps` with nodata."""
    shape = (75, 103)
    mask = np.where(np.random.default_rng(2).random(shape) < 0.8, 255, 0).astype(np.uint8)
    gaps = random_pixels(4, shape, bands=1, dtype="float32")
    gaps[:, 10:40, 20:70] = -9999
    striped = {"tiled": False, "blockxsize": None, "blockysize": 5}
    written = {
        "plain": write_raster(folder / "plain.tif", random_pixels(1, shape)),
        "masked": write_raster(folder / "masked.tif", random_pixels(2, shape, dtype="uint16"), mask),
        "bare": _bare(folder / "bare.tif", random_pixels(3, shape)),
        "gaps": write_raster(folder / "gaps.tif", gaps, nodata=-9999, **striped),
    }
    archive = create_archive(folder / "archive", SETTINGS)
    for scene_id, source in written.items():
        build_scene(str(source), scene_id, folder / "archive", SETTINGS)
    append_catalogue(folder / "archive", written)
    sites = [Site(scene_id, str(source), scene_id) for scene_id, source in written.items()]
    write_manifest(sites, folder / "sites.parquet")
    return Undamaged(
        Path(archive.place), Manifest(sites, str(folder / "sites.parquet")), tree(folder / "archive")
    )


def _bare(path: Path, pixels: NDArray[Any]) -> Path:
    """Without georeference, of which rasterio warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return write_raster(path, pixels, crs=None, transform=None)


def packed_archive(folder: Path, canvas: str = "native") -> Undamaged:
    """Two packs, of five sites each: all valid, and masked."""
    settings = ArchiveSettings(half_px=16, store="packs", canvas=canvas)
    create_archive(folder / "archive", settings)
    store = open_store(folder / "archive")
    sources = images(folder / "plain", 5)
    mask = np.where(np.random.default_rng(1).random((70, 50)) < 0.8, 255, 0).astype(np.uint8)
    for n in range(5):
        pixels = random_pixels(100 + n, (70, 50))
        sources[f"m{n}"] = write_raster(folder / "masked" / f"m{n}.tif", pixels, mask)
    window = None if canvas == "native" else Window(5, 6, 20, 22)
    sites = [Site(name, str(source), name, window) for name, source in sources.items()]
    names = {site: site.scene_id if window is None else canvas_site(site).scene_id for site in sites}
    pack_all(store, [member_of(names[site], Path(site.scene), settings, window) for site in sites], settings)
    append_catalogue(store, [])
    return Undamaged(folder / "archive", Manifest(sites, "sites.parquet"), tree(folder / "archive"))


def flip(path: Path, rng: random.Random) -> None:
    """One bit of one byte."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    """Lose the end."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def lose(path: Path, rng: random.Random) -> None:
    """Lose all of it."""
    path.unlink()


WAYS: tuple[Callable[[Path, random.Random], None], ...] = (flip, cut, lose)
