"""What sealed scenes and packs must consist of: their documents byte for byte, the names of their shards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tnet_geo.pyramid.layout import SEAL, SceneLayout
from tnet_geo.pyramid.pack_layout import INDEX, PackLayout, pack_documents
from tnet_geo.pyramid.places import LocalStore, Store
from tnet_geo.pyramid.scene_writer import scene_documents
from tnet_geo.pyramid.shards import StoredArray

__all__ = ["Inventory", "Item", "files_below", "items_of", "read_inventory"]


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """A scene or pack of an archive, sealed or not."""

    kind: Literal["scene", "pack"]
    name: str

    @property
    def folder(self) -> str:
        """Where it lies in the archive."""
        return f"{self.kind}s/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """All files of one sealed scene or pack."""

    layout: SceneLayout | PackLayout
    documents: Mapping[str, bytes]
    """What every metadata file must hold, the seal among them."""
    arrays: tuple[StoredArray, ...]
    """Level by level, `data` before `valid`."""

    @property
    def others(self) -> dict[str, str]:
        """Files of any other content, and its sha256 in hex."""
        return {INDEX: self.layout.index_sha256} if isinstance(self.layout, PackLayout) else {}

    def keys(self) -> Iterator[str]:
        """Every file, relative to the folder of the scene or pack."""
        yield from (*self.documents, *self.others)
        for array in self.arrays:
            yield from map(array.key, array.indices())

    def array(self, level: int, name: str) -> StoredArray:
        """One of the arrays. Raises: KeyError."""
        return {(array.level, array.name): array for array in self.arrays}[level, name]


def items_of(store: Store) -> Iterator[Item]:
    """The scenes and packs that lie in the archive, drafts left out."""
    for kind in ("scene", "pack"):
        for name in store.names(f"{kind}s"):
            yield Item(kind, name)


def files_below(store: Store, folder: str) -> Iterator[str]:
    """Every file below a folder of the archive, relative to that folder; on disk also hidden ones."""
    if not isinstance(store, LocalStore):
        prefix = f"{folder}/"
        yield from (key.removeprefix(prefix) for key in store.keys(folder))
        return
    root = store.path / folder
    for at, _, names in os.walk(root):
        yield from ((Path(at) / name).relative_to(root).as_posix() for name in names)


def read_inventory(store: Store, item: Item) -> Inventory | None:
    """All that belongs to a scene or pack, which follows from its seal; None if it has none.

    Raises:
        ValueError: the seal is damaged, of another version, or that of another item.
    """
    content = store.read(f"{item.folder}/{SEAL}")
    if content is None:
        return None
    kind = SceneLayout if item.kind == "scene" else PackLayout
    try:
        layout = kind.from_attributes(json.loads(content)["attributes"]["tnet_geo"])
        if min(layout.half_px, layout.bands, *layout.shape) < 1:
            raise ValueError("has a size below 1")
        found = _inventory(layout)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"has no fact, or an impossible one: {error}") from error
    name = layout.scene_id if isinstance(layout, SceneLayout) else layout.pack_id
    if name != item.name:
        raise ValueError(f"is that of {item.kind} {name}")
    return found


def _inventory(layout: SceneLayout | PackLayout) -> Inventory:
    """All files that follow from a layout; nothing is read."""
    documents = scene_documents(layout) if isinstance(layout, SceneLayout) else pack_documents(layout)
    names = ("data",) if layout.all_valid else ("data", "valid")
    folders = ((level, name) for level in range(len(layout.shapes)) for name in names)
    arrays = (
        StoredArray.of(f"{level}/{name}", layout.array_metadata(level, name)) for level, name in folders
    )
    return Inventory(layout, documents, tuple(arrays))
