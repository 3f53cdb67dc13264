"""Copies of stored scenes and packs in which every chunk that is not needed holds random noise.

What a walk says it has not read, it must not notice: over such a copy its answer is the same, bit by bit.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from tnet_geo.errors import PlaceUnusable, SceneMissing, TileUnreadable
from tnet_geo.grid import Tile
from tnet_geo.pyramid.archive import Archive, create_archive
from tnet_geo.pyramid.batches import cause_of
from tnet_geo.pyramid.inventory import Inventory, Item, read_inventory
from tnet_geo.pyramid.levels import StoredLevels
from tnet_geo.pyramid.pack_layout import PackLayout
from tnet_geo.pyramid.pack_reader import PackReader
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.shards import StoredArray
from tnet_geo.pyramid.tiles import RasterSpec

__all__ = ["NoiseCount", "check_room", "item_of", "noise_of", "noised_item"]

Chunk = tuple[int, int, int, int]
"""Level, slot (0 in a scene), row and column of a stored chunk."""


@dataclass(frozen=True, slots=True)
class NoiseCount:
    """What a copy is made of; chunks of pixels, each with its validity."""

    kept: int
    """Chunks that are as they were."""
    noised: int
    """Chunks that hold noise."""


def item_of(archive: Archive, scene_id: str) -> Item:
    """What a scene lies in: a group of its own, or a pack. Raises: SceneMissing, TileUnreadable."""
    reader = archive.reader(scene_id)
    return Item("pack", reader.pack_id) if isinstance(reader, PackReader) else Item("scene", scene_id)


def noised_item(
    archive: Archive,
    item: Item,
    tiles: Mapping[str, Collection[Tile]],
    half_px: int,
    *,
    folder: Path,
    chance: np.random.Generator,
) -> tuple[Archive, NoiseCount]:
    """An archive in `folder` of one scene or pack alone; true are only the chunks that `tiles` are made of.

    tiles: by scene_id, on the lattice of `half_px`. All other chunks, of every level, hold noise that went
    through the archive's own codecs; documents and index are copied.

    Raises:
        SceneMissing, TileUnreadable: the item, or a chunk that is kept, cannot be read.
        PlaceUnusable: there is no room in `folder`.
    """
    inventory = _inventory(archive.store, item)
    size = sum(math.prod(array.shape) * _dtype(inventory, array).itemsize for array in inventory.arrays)
    check_room(folder, size, str(item))
    kept = _kept(archive, item, tiles, half_px)
    copy = create_archive(folder, archive.settings)
    places = archive.store.at(*item.folder.split("/")), copy.store.at(*item.folder.split("/"))
    for array in inventory.arrays:
        try:
            _write_array(places, inventory, array, kept, chance)
        except (ValueError, OSError) as error:
            raise TileUnreadable(item.name, f"level {array.level}", cause_of(error)) from error
    beside = {key: places[0].read(key) or b"" for key in inventory.others}
    for key, content in (beside | dict(inventory.documents)).items():
        path = Path(places[1].url, key)  # not through the store, which would flush every one to the disk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    chunks = sum(_chunks_of(array) for array in inventory.arrays if array.name == "data")
    return copy, NoiseCount(len(kept), chunks - len(kept))


def check_room(folder: Path, size: int, what: str) -> None:
    """Refuse a folder without room for `size` bytes of noise. Raises: PlaceUnusable."""
    free = shutil.disk_usage(folder).free
    if free < 1.05 * size:  # noise cannot be compressed, and indexes and documents come on top
        room = f"has {free / 1e9:.1f} GB left, and noise in place of {what} takes {size / 1e9:.1f} GB"
        raise PlaceUnusable(str(folder), room, "set TMPDIR to a folder on a larger disk")


def noise_of(chance: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Random pixels: any bits of whole numbers, floats around zero that are finite."""
    if dtype.kind == "f":
        return (100 * chance.standard_normal(shape)).astype(dtype)
    noise: NDArray[Any] = np.frombuffer(chance.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
    return noise.copy()


def _inventory(store: Store, item: Item) -> Inventory:
    try:
        inventory = read_inventory(store, item)
    except ValueError as error:
        raise TileUnreadable(item.name, f"whole {item.kind}", str(error)) from error
    if inventory is None:
        raise SceneMissing(item.name, store.url)
    return inventory


def _kept(
    archive: Archive, item: Item, tiles: Mapping[str, Collection[Tile]], half_px: int
) -> frozenset[Chunk]:
    """The chunks that tiles are made of."""
    kept: set[Chunk] = set()
    for scene_id, own in tiles.items():
        reader = archive.reader(scene_id, half_px)
        slot = reader.slot if isinstance(reader, PackReader) else 0
        if item_of(archive, scene_id) != item:
            raise ValueError(f"scene {scene_id} is not in {item}")
        kept.update((level, slot, row, col) for level, row, col in _chunks_under(reader.spec, own))
    return frozenset(kept)


def _chunks_under(spec: RasterSpec, tiles: Iterable[Tile]) -> Iterator[tuple[int, int, int]]:
    """Level, row and column of the stored chunks of tiles."""
    high, wide = spec.chunk_sides
    for tile in tiles:
        overlap = spec.overlap(tile)
        if overlap is not None:
            rows, cols = overlap[1]
            for row in range(rows.start // high, -(-rows.stop // high)):
                for col in range(cols.start // wide, -(-cols.stop // wide)):
                    yield tile.level, row, col


def _write_array(
    places: tuple[Store, Store],
    inventory: Inventory,
    array: StoredArray,
    kept: Collection[Chunk],
    chance: np.random.Generator,
) -> None:
    """Shard by shard, so that memory does not grow with the scene. Raises: ValueError, OSError."""
    truth = StoredLevels(places[0], inventory.layout).array(array.level, array.name)
    spec = {
        "driver": "zarr3",
        "kvstore": places[1].kvstore(array.folder),
        "metadata": inventory.layout.array_metadata(array.level, array.name),
    }
    copy = ts.open(spec | {"create": True, "store_data_equal_to_fill_value": True}).result()
    packed = isinstance(inventory.layout, PackLayout)
    wanted = [chunk[1:] for chunk in kept if chunk[0] == array.level]
    for index in array.indices():
        region = array.region(index)
        block = noise_of(chance, tuple(side.stop - side.start for side in region), _dtype(inventory, array))
        for slot, row, col in wanted:
            chunk = _region_of(array, slot if packed else None, row, col)
            if all(side.start <= part.start < side.stop for part, side in zip(chunk, region, strict=True)):
                sides = zip(chunk, region, strict=True)
                here = tuple(slice(part.start - side.start, part.stop - side.start) for part, side in sides)
                block[here] = truth[chunk].read().result()
        copy[region].write(block).result()


def _region_of(array: StoredArray, slot: int | None, row: int, col: int) -> tuple[slice, ...]:
    """What of an array one chunk holds; axes are (site), (band), y, x."""
    lead = [] if slot is None else [slice(slot, slot + 1)]
    lead += [slice(0, size) for size in array.shape[len(lead) : -2]]
    sides = zip((row, col), array.chunk[-2:], array.shape[-2:], strict=True)
    return (*lead, *(slice(at * chunk, min((at + 1) * chunk, size)) for at, chunk, size in sides))


def _dtype(inventory: Inventory, array: StoredArray) -> np.dtype[Any]:
    return np.dtype(inventory.layout.dtype if array.name == "data" else "uint8")


def _chunks_of(array: StoredArray) -> int:
    return math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.chunk, strict=True))
