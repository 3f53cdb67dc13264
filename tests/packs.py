"""Sites packed as a build would pack them, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Window
from tnet_geo.imagery.raster import open_raster
from tnet_geo.pyramid import ArchiveSettings, pack_index, pack_reader
from tnet_geo.pyramid.pack_index import pack_table
from tnet_geo.pyramid.pack_layout import PackLayout, read_pack
from tnet_geo.pyramid.pack_reader import PackReader, find_packed
from tnet_geo.pyramid.pack_writer import PackOutcome, write_pack
from tnet_geo.pyramid.packs import PackMember, plan_packs, planned_member
from tnet_geo.pyramid.places import LocalStore, Store

SETTINGS = ArchiveSettings(half_px=16, store="packs")


def images(
    folder: Path, count: int, shape: tuple[int, int] = (70, 50), seed: int = 0, **profile: Any
) -> dict[str, Path]:
    """Random sources by scene_id: s000, s001, ..."""
    return {
        f"s{n:03d}": write_raster(folder / f"s{n:03d}.tif", random_pixels(seed + n, shape), **profile)
        for n in range(count)
    }


def scattered(seed: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask in which a fifth of the pixels are invalid."""
    return np.where(np.random.default_rng(seed).random(shape) < 0.8, 255, 0).astype(np.uint8)


def member_of(
    scene_id: str, source: Path, settings: ArchiveSettings = SETTINGS, window: Window | None = None
) -> PackMember:
    with open_raster(str(source)) as raster:
        member = planned_member(scene_id, str(source), window, raster.info, settings)
    assert member is not None
    return member


def members_of(sources: Mapping[str, Path], settings: ArchiveSettings = SETTINGS) -> list[PackMember]:
    return [member_of(scene_id, source, settings) for scene_id, source in sources.items()]


def pack_all(
    store: Store,
    members: Iterable[PackMember],
    settings: ArchiveSettings = SETTINGS,
    packed: Iterable[str] = (),
) -> list[PackOutcome]:
    return [write_pack(plan, store, settings) for plan in plan_packs(members, set(packed))]


def layouts(store: Store) -> list[PackLayout]:
    """The layouts of all sealed packs."""
    packs = store.at("packs")
    found = [read_pack(packs, name) for name in packs.names()]
    return [pack.layout for pack in found if pack is not None]


def contents(store: Store) -> dict[str, bytes | None]:
    """Every file of every pack."""
    packs = store.at("packs")
    return {key: packs.read(key) for key in packs.keys()}  # noqa: SIM118  a store is no dict


def reader_of(store: Store, scene_id: str, half_px: int | None = None) -> PackReader:
    reader = find_packed(store, scene_id, half_px)
    assert reader is not None
    return reader


def forget() -> None:
    """As in a process that has read nothing yet."""
    pack_table.cache_clear()
    pack_index._sealed_pack.cache_clear()
    pack_reader._opened_array.cache_clear()


def everything_in(store: LocalStore) -> list[str]:
    """Names in the folder of packs, drafts too."""
    return sorted(path.name for path in (store.path / "packs").iterdir())
