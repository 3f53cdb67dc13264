"""Mending what a check finds: only what is bad is written, and it becomes what it was, byte for byte."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from tnet_geo.errors import SourceUnreadable, WriteConflict
from tnet_geo.grid import Window
from tnet_geo.imagery.manifest import Manifest, read_manifest
from tnet_geo.imagery.raster import source_digest
from tnet_geo.pyramid.archive import open_built
from tnet_geo.pyramid.build import build_scene, scene_digest
from tnet_geo.pyramid.canvas import canvas_site
from tnet_geo.pyramid.catalogue import append_catalogue
from tnet_geo.pyramid.check import Fault, check_archive, faults_in
from tnet_geo.pyramid.inventory import Inventory, Item, read_inventory
from tnet_geo.pyramid.layout import SEAL, SceneLayout
from tnet_geo.pyramid.mend import NotMended, Original, PackedSite, Shard, mend_pack, mend_scene
from tnet_geo.pyramid.pack_layout import PackLayout, read_pack
from tnet_geo.pyramid.pack_restore import restored_index, restored_seal
from tnet_geo.pyramid.packs import pack_digest
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.settings import ArchiveSettings
from tnet_geo.pyramid.store import open_store

__all__ = ["RepairFailure", "RepairReport", "repair_archive"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RepairFailure:
    """One file that is still not as it was sealed."""

    item: str
    """Relative to the archive."""
    reason: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was mended. `exit_code` is 3 if anything could not be."""

    archive: str
    faults: int
    """What the check before the repair found."""
    shards: int
    documents: int
    rebuilt: int
    """Scenes whose seal was damaged or lost."""
    removed: int
    """Files and drafts that nobody had sealed."""
    catalogued: int
    """Rows that the catalogue lacked."""
    set_aside: tuple[RepairFailure, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 if nothing is wrong any more, 3 otherwise."""
        return 3 if self.set_aside else 0


def repair_archive(
    archive: str | Path, manifest: str | Path | Manifest | None = None, *, progress: Progress | None = None
) -> RepairReport:
    """Check an archive, and write anew what is damaged or missing, and nothing else.

    A shard of level 1 and above is made of the finer level as it is stored, one of level 0 of its
    source, which `manifest` names and whose digest must be that of the seal; documents follow from
    seals, the catalogue from both. Scenes without a readable seal are built again. What cannot be
    mended is left as it is, and named with its reason. At the end what was touched is checked again.

    >>> repair_archive("archive", "sites.parquet").faults
    0

    Raises:
        InvalidArchive, InvalidManifest: before anything is written.
        PlaceUnusable: the archive's place does not answer.
    """
    started = time.monotonic()
    settings, store = open_built(archive).settings, open_store(archive)
    sources = _Sources(settings, manifest)
    found = check_archive(archive).faults
    work = _Repair(store, settings, sources)
    for number, (item, faults) in enumerate(_by_item(found), 1):
        work.mend(item, faults)
        if progress:
            progress(number, len(_by_item(found)))
    work.complete_catalogue(found)
    return RepairReport(
        archive=store.url,
        faults=len(found),
        shards=work.shards,
        documents=work.documents,
        rebuilt=work.rebuilt,
        removed=work.removed,
        catalogued=work.catalogued,
        set_aside=tuple(RepairFailure(file, reason) for file, reason in sorted(work.reasons.items())),
        seconds=time.monotonic() - started,
    )


def _by_item(faults: Iterable[Fault]) -> list[tuple[str, list[Fault]]]:
    """Faults by scene or pack; those of the catalogue, which depends on them, are left for later."""
    ours = sorted((fault for fault in faults if fault.what != "catalogue"), key=lambda fault: fault.item)
    return [(item, list(group)) for item, group in groupby(ours, key=lambda fault: fault.item)]


class _Sources:
    """Where scenes and packed sites come from, by their id."""

    def __init__(self, settings: ArchiveSettings, manifest: str | Path | Manifest | None) -> None:
        self._settings = settings
        self.of: dict[str, tuple[str, Window | None]] = {}
        if manifest is None:
            return
        table = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
        if settings.canvas == "native":
            self.of = {scene_id: (source, None) for scene_id, source in table.scenes().items()}
        else:
            self.of = {canvas_site(site).scene_id: (site.scene, site.window) for site in table.sites}

    def source_of(self, scene_id: str) -> tuple[str | None, Window | None]:
        """The source of a scene, and what is cut from it on a canvas; None if the manifest lacks it."""
        return self.of.get(scene_id, (None, None))

    def scene(self, layout: SceneLayout) -> Original:
        """The source of a scene."""

        def check(source: str) -> None:
            if scene_digest(source, self._settings) != layout.digest:
                raise NotMended(_changed(source))

        return Original(self.source_of(layout.scene_id)[0], check)

    def packed(self, row: dict[str, Any]) -> PackedSite:
        """The source of one site of a pack; `row` is that of the pack's index."""
        source, window = self.source_of(row["scene_id"])

        def check(source: str) -> None:
            if pack_digest(source_digest(source), window, self._settings) != row["digest"]:
                raise NotMended(_changed(source))

        return PackedSite(Original(source, check), row["nodata"], window)


def _changed(source: str) -> str:
    return f"{source} is not what it was built from: run `tnet-geo pyramid build` to build it anew"


@dataclass
class _Repair:
    """A repair under way, and what it has done."""

    store: Store
    settings: ArchiveSettings
    sources: _Sources
    shards: int = 0
    documents: int = 0
    rebuilt: int = 0
    removed: int = 0
    catalogued: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    """Why files could not be mended."""

    def mend(self, name: str, faults: Sequence[Fault]) -> None:
        """Mend one scene or pack, or the archive's own folders."""
        for fault in faults:
            if fault.what == "stray":
                self.store.remove(fault.file)
                self.removed += 1
        if name == "archive":
            return
        kind, _, item_name = name.partition(" ")
        item = Item("scene" if kind == "scene" else "pack", item_name)
        if any(fault.what == "seal" for fault in faults):
            self._rebuild(item)
            # A check sees no more of it than that; what else is wrong shows now.
            faults = [fault for fault in faults_in(self.store, [item]) if fault.what != "seal"]
        inventory = self._inventory(item)
        if inventory is None:
            return
        self._write_documents(item, inventory, faults)
        self._mend_shards(item, inventory, faults)
        for fault in faults_in(self.store, [item]):
            self.reasons.setdefault(fault.file, fault.cause)

    def _inventory(self, item: Item) -> Inventory | None:
        """None if it still has no sound seal."""
        try:
            return read_inventory(self.store, item)
        except ValueError:
            return None

    def _write_documents(self, item: Item, inventory: Inventory, faults: Iterable[Fault]) -> None:
        for key in _keys(item, "document", faults):
            content = inventory.documents.get(key)
            if content is None and isinstance(inventory.layout, PackLayout):
                try:
                    content = restored_index(
                        self.store, item, inventory.layout, self.settings, self.sources.source_of
                    )
                except NotMended as error:
                    self.reasons[f"{item.folder}/{key}"] = str(error)
                    continue
            if content is not None:
                self.store.write(f"{item.folder}/{key}", content)
                self.documents += 1

    def _mend_shards(self, item: Item, inventory: Inventory, faults: Iterable[Fault]) -> None:
        keys = set(_keys(item, "shard", faults))
        if not keys:
            return
        shards = [
            (array, index)
            for array in inventory.arrays
            for index in array.indices()
            if array.key(index) in keys
        ]
        for key, reason in self._mended(item, inventory.layout, shards):
            if reason is None:
                self.shards += 1
            else:
                self.reasons[f"{item.folder}/{key}"] = reason

    def _mended(
        self, item: Item, layout: SceneLayout | PackLayout, shards: Iterable[Shard]
    ) -> Iterator[tuple[str, str | None]]:
        folder = self.store.at(*item.folder.split("/"))
        if isinstance(layout, SceneLayout):
            with self.sources.scene(layout) as original:
                yield from mend_scene(folder, layout, shards, original)
            return
        try:
            pack = read_pack(self.store.at("packs"), item.name)
        except ValueError as error:
            yield from ((array.key(index), str(error)) for array, index in shards)
            return
        if pack is not None:
            rows = pack.index.to_pylist()
            yield from mend_pack(folder, layout, shards, lambda slot: self.sources.packed(rows[slot]))

    def _rebuild(self, item: Item) -> None:
        """Restore what has no sound seal: a pack's seal from its index, a scene from its source."""
        seal = f"{item.folder}/{SEAL}"
        source, _ = self.sources.source_of(item.name)
        try:
            if item.kind == "pack":
                self.store.write(seal, restored_seal(self.store, item, self.settings))
                self.documents += 1
            elif source is None:
                raise NotMended("its source is not in the manifest")
            else:
                self._build(item, source, seal)
        except NotMended as error:
            remedy = f"remove {item.folder} and run `tnet-geo pyramid build`"
            self.reasons[seal] = f"{error}: {remedy}"

    def _build(self, item: Item, source: str, seal: str) -> None:
        """Build a scene in place of what is there. Raises: NotMended, and then its seal is what it was."""
        damaged = self.store.read(seal)
        self.store.remove(seal)
        try:
            build_scene(source, item.name, self.store, self.settings)
        except (SourceUnreadable, WriteConflict) as error:
            if damaged is not None:
                self.store.create(seal, damaged)
            raise NotMended(str(error).rstrip(".")) from error
        self.rebuilt += 1

    def complete_catalogue(self, faults: Iterable[Fault]) -> None:
        """Give rows to what has none, and build again what has a row and is lost."""
        for fault in faults:
            if fault.what != "catalogue":
                continue
            if fault.item == "archive":  # a part that cannot be read: its rows are written again
                self.store.remove(fault.file)
                self.removed += 1
            elif fault.file != "catalogue":
                kind, _, name = fault.item.partition(" ")
                self._rebuild(Item("scene" if kind == "scene" else "pack", name))
        names = [name for name in self.store.names("scenes") if self._inventory(Item("scene", name))]
        self.catalogued += append_catalogue(self.store, names)


def _keys(item: Item, what: str, faults: Iterable[Fault]) -> Iterator[str]:
    """Files of one kind of fault, relative to the scene or pack."""
    return (fault.file.removeprefix(f"{item.folder}/") for fault in faults if fault.what == what)
