"""An archive: sealed pyramids that share their settings, in a folder or below a prefix of a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from tnet_geo.errors import ArchiveMismatch, InvalidArchive, OutputExists, PlaceUnusable, SceneMissing
from tnet_geo.imagery import Site
from tnet_geo.pyramid.canvas import canvas_site
from tnet_geo.pyramid.cog_archive import CogArchive, open_cogs
from tnet_geo.pyramid.layout import SEAL, read_layout
from tnet_geo.pyramid.pack_index import opened_pack, pack_table
from tnet_geo.pyramid.pack_reader import PackReader, find_packed, packed_digest
from tnet_geo.pyramid.reader import SceneReader
from tnet_geo.pyramid.settings import FORMAT, VERSION, ArchiveSettings
from tnet_geo.pyramid.store import Store, open_store
from tnet_geo.pyramid.tiles import TileReader

__all__ = ["Archive", "SceneArchive", "create_archive", "open_archive", "open_built"]

SETTINGS_FILE = "archive.json"
LOOKS_AT_ONCE = 16
"""Seals of a bucket that are asked for at once."""


class SceneArchive(Protocol):
    """Where the pixels of sites are kept, whatever the form: what a walk needs of it."""

    @property
    def place(self) -> str:
        """An absolute path, or a URL: what `open_archive` opens it by."""
        ...

    @property
    def canvas(self) -> str:
        """`native`, or the square that each site was resampled to."""
        ...

    def check_lattice(self, half_px: int) -> None:
        """Refuse a lattice step that this archive cannot serve. Raises: ArchiveMismatch."""
        ...

    def adopt(self, site: Site) -> Site:
        """The site as it is kept here: its scene_id and window. Raises: SceneMissing."""
        ...

    def reader(self, scene_id: str, half_px: int | None = None) -> TileReader:
        """Tiles of one scene. Raises: SceneMissing, TileUnreadable, ArchiveMismatch."""
        ...

    def digest(self, scene_id: str) -> str | None:
        """What names the content of a scene; None if there is none."""
        ...


class Archive:
    """The pyramids of many scenes. Cheap to open, picklable; scenes are looked up when asked for.

    Every method raises PlaceUnusable where the place, a bucket, does not answer.
    """

    def __init__(self, place: str | Path | Store, settings: ArchiveSettings) -> None:
        """Prefer `open_archive` and `create_archive`, which check what is there."""
        self.store = place if isinstance(place, Store) else open_store(place)
        self.settings = settings

    def __repr__(self) -> str:
        return f"Archive({self.place!r}, half_px={self.settings.half_px})"

    @property
    def place(self) -> str:
        """The folder, absolute, or s3://bucket/prefix."""
        return self.store.url

    @property
    def path(self) -> Path:
        """The folder of an archive that is one."""
        return Path(self.store.url)

    @property
    def scenes(self) -> Path:
        """The folder of its scenes."""
        return self.path / "scenes"

    @property
    def canvas(self) -> str:
        """How sites lie in their scenes."""
        return self.settings.canvas

    def check_lattice(self, half_px: int) -> None:
        """Refuse a lattice step that is no multiple of the stored one. Raises: ArchiveMismatch."""
        if half_px % self.settings.half_px:
            wants = f"half_px {half_px} or a divisor of it"
            raise ArchiveMismatch(self.place, f"half_px {self.settings.half_px}", wants)

    def adopt(self, site: Site) -> Site:
        """The site as it is kept here: on a canvas it is a scene of its own, with no window."""
        return site if self.canvas == "native" else canvas_site(site)

    def scene_store(self, scene_id: str) -> Store:
        """Where a scene lies that is not packed. Raises: SceneMissing where the id is no plain name."""
        if not scene_id or scene_id.startswith(".") or "/" in scene_id:
            raise SceneMissing(scene_id, self.place)
        return self.store.at("scenes", scene_id)

    def reader(self, scene_id: str, half_px: int | None = None) -> SceneReader | PackReader:
        """Tiles of one scene on its stored lattice, or on that of a multiple `half_px`.

        Raises:
            SceneMissing: no sealed scene has this id.
            TileUnreadable: its seal is damaged.
            ArchiveMismatch: `half_px` is no multiple of the archive's.
        """
        try:
            return SceneReader(self.scene_store(scene_id), half_px)
        except SceneMissing:
            packed = self._packs and find_packed(self.store, scene_id, half_px)
            if not packed:
                raise
            return packed

    def has(self, scene_id: str) -> bool:
        """Whether a sealed scene has this id."""
        return self._has_group(scene_id) or (self._packs and packed_digest(self.store, scene_id) is not None)

    def digest(self, scene_id: str) -> str | None:
        """What names the content of a sealed scene; None if there is none, or its seal is damaged."""
        try:
            return read_layout(self.scene_store(scene_id)).digest
        except (FileNotFoundError, SceneMissing):
            return packed_digest(self.store, scene_id) if self._packs else None
        except (OSError, ValueError):
            return None

    def scene_ids(self) -> Iterator[str]:
        """Ids of all sealed scenes, sorted, packed ones among them."""
        names = self.store.names("scenes")
        with ThreadPoolExecutor(LOOKS_AT_ONCE) as looks:
            found = zip(names, looks.map(self._has_group, names), strict=True)
            groups = {name for name, there in found if there}
        return iter(sorted(groups.union(_packed_ids(self.store) if self._packs else ())))

    @property
    def _packs(self) -> bool:
        """Whether scenes may be in packs here."""
        return self.settings.store == "packs"

    def _has_group(self, scene_id: str) -> bool:
        """Whether a sealed scene that is not packed has this id."""
        try:
            return self.scene_store(scene_id).size(SEAL) is not None
        except SceneMissing:
            return False


def _packed_ids(store: Store) -> Iterator[str]:
    """Ids of packed scenes, each from the pack that counts for it."""
    table = pack_table(store)
    table.refresh()
    for pack_id in table.packs():
        pack = opened_pack(store, pack_id)
        for scene_id in pack.index["scene_id"].to_pylist() if pack else ():
            place = table.find(scene_id)
            if place is not None and place[0] == pack_id:
                yield scene_id


def open_archive(place: str | Path) -> Archive | CogArchive:
    """What is at a place: an archive, or Cloud-Optimised GeoTIFFs, which are read as they are.

    A place is a folder or s3://bucket/prefix; for COGs also one file, an https:// address of one, or a
    .txt list of them.

    >>> open_archive("archive").settings.half_px
    16

    Raises:
        InvalidArchive: there is neither, or an archive of a version that this software does not read.
        PlaceUnusable: a bucket does not answer, lets nobody in, or is not there.
    """
    if str(place).startswith(("https://", "http://")):
        return open_cogs(place)
    return _found(open_store(place)) or open_cogs(place)


def open_built(place: str | Path) -> Archive:
    """The archive at a place, and nothing else: for what looks into its files.

    Raises: InvalidArchive, PlaceUnusable.
    """
    store = open_store(place)
    archive = _found(store)
    if archive is None:
        raise InvalidArchive(store.url, f"has no {SETTINGS_FILE}")
    return archive


def _found(store: Store) -> Archive | None:
    """The archive of a store; None where nothing says that it is one. Raises: InvalidArchive."""
    try:
        content = store.read(SETTINGS_FILE)
        if content is None:
            return None
        facts = json.loads(content)
        kind, version = facts.pop("format"), facts.pop("version")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArchive(store.url, f"has an unreadable {SETTINGS_FILE}") from error
    if (kind, version) != (FORMAT, VERSION):
        what = f"has format {kind!r} version {version}, and this software reads {FORMAT!r} version {VERSION}"
        raise InvalidArchive(store.url, what)
    try:
        return Archive(store, ArchiveSettings.model_validate(facts))
    except ValidationError as error:
        names = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise InvalidArchive(store.url, f"has an impossible value in {SETTINGS_FILE} ({names})") from error


def create_archive(place: str | Path, settings: ArchiveSettings) -> Archive:
    """The archive in a folder, or at s3://bucket/prefix, made if there is none.

    Raises:
        ArchiveMismatch: it is there with other settings.
        OutputExists: the place is a file, or holds something else.
        InvalidArchive: it is an archive of a version that this software does not read.
        PlaceUnusable: nothing can be written there.
    """
    store = open_store(place)
    if store.size(SETTINGS_FILE) is None:
        taken = store.names() or (store.local and Path(store.url).is_file())
        if taken and store.size(SETTINGS_FILE) is None:  # again: another build may just have made it
            raise OutputExists(store.url)
        facts = {"format": FORMAT, "version": VERSION, **settings.model_dump()}
        try:
            # Of two builds that begin at once one makes it, and the other finds it.
            store.create(SETTINGS_FILE, json.dumps(facts, indent=1).encode() + b"\n")
        except OSError as error:
            remedy = "name a place that can be written to"
            raise PlaceUnusable(store.url, f"cannot be written to ({error.strerror})", remedy) from error
    archive = open_built(store.url)
    if archive.settings != settings:
        has, wants = archive.settings.model_dump(), settings.model_dump()
        differ = [key for key in wants if has[key] != wants[key]]
        texts = (", ".join(f"{key} {side[key]}" for key in differ) for side in (has, wants))
        raise ArchiveMismatch(store.url, *texts)
    return archive
