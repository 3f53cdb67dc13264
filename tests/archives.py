"""A tiny archive with labels: three classes that their colours tell apart, 64 px scenes, half_px 16."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from tests.rasters import write_raster
from tnet_geo.imagery import Manifest, Site, write_manifest
from tnet_geo.learning.settings import RunSettings
from tnet_geo.pyramid import Archive, ArchiveSettings, create_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.store import open_store

CLASSES = ("meadow", "quarry", "water")
SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)


@dataclass(frozen=True)
class TinyArchive:
    """Where everything of it lies."""

    folder: Path
    archive: Archive
    manifest: Manifest

    def settings(self, out: Path, **tables: Any) -> RunSettings:
        """A run over it that takes seconds."""
        one = {"epochs": 1, "sites_per_step": 6}
        quick: dict[str, Any] = {
            "model": {"base_px": 32},
            "keep": (2, 1),
            "dense": one,
            "location": {"epochs": 2, "sites_per_step": 6, "pool_steps": 10},
            "joint": {**one, "walks": 2},
            "rivals": {"root_epochs": 2},
        }
        data = {"manifest": self.manifest.path, "archive": self.archive.path}
        return RunSettings.model_validate({"out": out, "data": data, **quick, **tables})


def tiny_archive(
    folder: Path, sites: int = 36, side: int = 64, *, scale: float | None = None, pixel_m: float = 0.5
) -> TinyArchive:
    """Scenes, pyramids (built in this process) and a manifest with 2/3 train, 1/6 val, 1/6 test.

    Pixels are uint8; with a `scale` they are so many times as much, and uint16.
    """
    place = {"transform": Affine(pixel_m, 0, 600_000, 0, -pixel_m, 5_000_000)}
    archive = create_archive(folder / "archive", SETTINGS)
    chance = np.random.default_rng(8)
    found: list[Site] = []
    for n in range(sites):
        label = CLASSES[n % 3]
        pixels = chance.integers(0, 120, (3, side, side), dtype=np.uint8)
        pixels[n % 3] += 100
        if scale is not None:
            pixels = (scale * pixels).astype(np.uint16)
        source = write_raster(folder / "scenes" / f"{n:03d}.tif", pixels, **place)
        split = {0: "val", 1: "test"}.get(n // 3 % 6, "train")
        found.append(Site(f"site{n:03d}", str(source), f"s{n:03d}", None, label, split))
        build_scene(str(source), f"s{n:03d}", archive.path, SETTINGS)
    append_catalogue(open_store(archive.place), [site.scene_id for site in found])
    return TinyArchive(folder, archive, write_manifest(found, folder / "sites.parquet"))
