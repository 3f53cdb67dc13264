"""Stored scenes as Cloud-Optimised GeoTIFFs: for everyone whose software reads no zarr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from tnet_geo.errors import OutputExists, SceneMissing, TileUnreadable
from tnet_geo.pyramid.archive import open_built
from tnet_geo.pyramid.cog_writer import DIGEST_TAG, CogFacts, opened, write_cog
from tnet_geo.pyramid.inventory import Item, items_of, read_inventory
from tnet_geo.pyramid.layout import SceneLayout
from tnet_geo.pyramid.levels import StoredLevels
from tnet_geo.pyramid.pack_index import opened_pack, pack_table
from tnet_geo.pyramid.pack_layout import PackLayout
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.spread import spread, usable_cores
from tnet_geo.pyramid.store import open_store

__all__ = ["ExportFailure", "ExportReport", "export_cogs"]

Progress = Callable[[int, int], None]
Outcome = tuple[str, int | str]
"""A scene, and the bytes of its COG, 0 if it was there already, or why there is none."""


@dataclass(frozen=True, slots=True)
class ExportFailure:
    """One scene that has no COG."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What became of the scenes that were asked for."""

    out: Path
    scenes: int
    written: int
    skipped: int
    """Those whose COG was there already, of the same digest."""
    set_aside: tuple[ExportFailure, ...]
    bytes_written: int
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 if every scene has its COG, 3 otherwise."""
        return 3 if self.set_aside else 0


@dataclass(frozen=True, slots=True)
class _Stored:
    """A scene of its own, or one site of a pack."""

    scene_id: str
    store: Store
    layout: SceneLayout | PackLayout
    facts: CogFacts
    slot: int | None = None


def export_cogs(
    archive: str | Path,
    out: str | Path,
    *,
    scenes: Sequence[str] = (),
    threads: int | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write each of `scenes`, by default all, as `out`/<scene_id>.tif; packed ones too.

    Levels become overviews exactly as they are stored; nodata, scale, offset, CRS and transform are
    kept; pixels of no validity are masked. What is there already of the same digest is left alone.
    Memory does not grow with the scene. Scenes with damaged shards are set aside.

    >>> report = export_cogs("archive", "cogs")
    >>> report.written, report.exit_code
    (36, 0)

    Raises:
        InvalidArchive: there is no archive of ours.
        OutputExists: `out` is a file.
        PlaceUnusable: the archive's place does not answer.
    """
    started = time.monotonic()
    open_built(archive)
    store, folder = open_store(archive), Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputExists(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    names = list(scenes) or list(_scene_ids(store))
    workers = threads or usable_cores()
    work = partial(_export, store, folder, workers if len(names) == 1 else 1)
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(workers) as pool:
        for outcome in spread(pool, work, names, threads=workers):
            outcomes.append(outcome)
            if progress:
                progress(len(outcomes), len(names))
    sizes = [result for _, result in outcomes if isinstance(result, int)]
    return ExportReport(
        out=folder,
        scenes=len(names),
        written=sum(size > 0 for size in sizes),
        skipped=sum(size == 0 for size in sizes),
        set_aside=tuple(ExportFailure(name, result) for name, result in outcomes if isinstance(result, str)),
        bytes_written=sum(sizes),
        seconds=time.monotonic() - started,
    )


def _scene_ids(store: Store) -> Iterator[str]:
    """All sealed scenes and packed sites; of those that were packed again the one that counts."""
    for item in items_of(store):
        if item.kind == "scene":
            yield item.name
            continue
        pack = opened_pack(store, item.name)
        if pack is not None:
            for slot, scene_id in enumerate(pack.index["scene_id"].to_pylist()):
                if pack_table(store).find(scene_id) == (item.name, slot):
                    yield scene_id


def _export(store: Store, folder: Path, threads: int, scene_id: str) -> Outcome:
    """In a thread: one scene to one file."""
    path = folder / f"{scene_id}.tif"
    try:
        stored = _found(store, scene_id)
        if path.exists():
            same = _digest_of(path) == stored.facts.digest
            return scene_id, 0 if same else str(OutputExists(str(path)))
        levels = StoredLevels(stored.store, stored.layout, stored.slot)
        write_cog(path, levels, stored.layout, stored.facts, threads=threads)
    except (SceneMissing, TileUnreadable) as error:
        return scene_id, str(error)
    except (OSError, RasterioError) as error:
        return scene_id, f"{path} cannot be written ({error}): make room, or name another folder."
    return scene_id, path.stat().st_size


def _found(store: Store, scene_id: str) -> _Stored:
    """Where a scene lies. Raises: SceneMissing, TileUnreadable."""
    item = Item("scene", scene_id)
    try:
        inventory = read_inventory(store, item) if Path(scene_id).name == scene_id else None
        if inventory is not None and isinstance(inventory.layout, SceneLayout):
            facts = _facts(scene_id, vars(inventory.layout))
            return _Stored(scene_id, store.at(*item.folder.split("/")), inventory.layout, facts)
        place = pack_table(store).find(scene_id)
        pack = opened_pack(store, place[0]) if place else None
    except ValueError as error:
        raise TileUnreadable(scene_id, "whole scene", str(error)) from error
    if place is None or pack is None:
        raise SceneMissing(scene_id, store.url)
    row = pack.index.slice(place[1], 1).to_pylist()[0]
    return _Stored(scene_id, store.at("packs", place[0]), pack.layout, _facts(scene_id, row), place[1])


def _facts(scene_id: str, row: dict[str, Any]) -> CogFacts:
    tuples = {key: row.get(key) for key in ("transform", "scale", "offset")}
    return CogFacts(
        scene_id=scene_id,
        digest=row["digest"],
        crs=row["crs"],
        nodata=row["nodata"],
        **{key: None if value is None else tuple(value) for key, value in tuples.items()},
    )


def _digest_of(path: Path) -> str | None:
    """What a COG of ours was made of; None of any other file."""
    try:
        with opened(path) as dataset:
            return str(dataset.tags().get(DIGEST_TAG))
    except RasterioError:
        return None
