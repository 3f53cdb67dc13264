"""Sites to learn from: their label, their pyramid (in memory where it fits) and their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tnet_geo.errors import InvalidManifest, SetAside, SiteMismatch
from tnet_geo.grid import Tile, Window, root_of
from tnet_geo.imagery import Manifest
from tnet_geo.inference import SiteTask
from tnet_geo.inference.expectations import ground_sampling
from tnet_geo.pyramid import MemoryReader, SceneArchive, TileReader
from tnet_geo.trail import Failure

__all__ = ["LabelledSite", "LabelledSites", "load_sites"]


@dataclass(frozen=True, slots=True)
class LabelledSite:
    """One site whose class is known."""

    number: int
    """Place in its list; seeds what is drawn for it."""
    task: SiteTask
    label: int
    """Index into the classes."""
    root: Tile
    gsd_m: float | None = None
    """Metres a native pixel; None: nobody knows."""


@dataclass(frozen=True, slots=True)
class LabelledSites:
    """Sites of one split, and those that could not be used."""

    sites: tuple[LabelledSite, ...]
    set_aside: tuple[Failure, ...]

    @property
    def depths(self) -> int:
        """Depths of the deepest walk, root included."""
        return 1 + max(site.root.level for site in self.sites)


class _Cache:
    """Readers by scene: decoded into memory until the budget is spent, from disk afterwards."""

    def __init__(self, archive: SceneArchive, half_px: int, budget_bytes: float) -> None:
        self._archive, self._half_px, self._left = archive, half_px, budget_bytes
        self._readers: dict[str, TileReader] = {}

    def reader(self, scene_id: str) -> TileReader:
        if scene_id not in self._readers:
            stored = self._archive.reader(scene_id, self._half_px)
            spec = stored.spec
            size = sum(rows * cols for rows, cols in spec.shapes) * (
                spec.bands * np.dtype(spec.dtype).itemsize + 1
            )
            fits = size <= self._left
            self._left -= size if fits else 0
            self._readers[scene_id] = MemoryReader.load(stored) if fits else stored
        return self._readers[scene_id]


def load_sites(
    manifest: Manifest,
    split: str,
    archive: SceneArchive,
    *,
    classes: Sequence[str],
    base_px: int,
    cache_gib: float,
) -> LabelledSites:
    """The labelled sites of one split. Sites whose pixels cannot be had are set aside with the reason.

    Raises:
        InvalidManifest: the split has no labelled site that can be read.
    """
    cache = _Cache(archive, base_px // 2, cache_gib * 2**30)
    found: list[LabelledSite] = []
    set_aside: list[Failure] = []
    expected: tuple[int, str] | None = None
    for site in manifest.select(split).sites:
        if site.label is None:
            continue
        try:
            stored = archive.adopt(site)
            reader = cache.reader(stored.scene_id)
            pixels = (reader.spec.bands, reader.spec.dtype)
            expected = expected or pixels
            if pixels != expected:
                has = f"{pixels[0]} bands of {pixels[1]}"
                raise SiteMismatch(site.site_id, has, f"the first site has {expected[0]} of {expected[1]}")
            window = stored.window or Window(0, 0, *reader.spec.shape)
            task = SiteTask(site.site_id, reader, window)
            label, root = classes.index(site.label), root_of(window, base_px // 2)
            distance = ground_sampling(site, reader.spec, window, canvas=archive.canvas)
            found.append(LabelledSite(len(found), task, label, root, distance))
        except SetAside as error:
            set_aside.append(Failure(site.site_id, str(error)))
    if not found:
        reason = set_aside[0].reason if set_aside else "give sites a label and this split"
        raise InvalidManifest(
            manifest.path, f"has no usable labelled site in split {split!r}", reason.rstrip(".")
        )
    return LabelledSites(tuple(found), tuple(set_aside))
