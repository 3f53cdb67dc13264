"""Cloud-Optimised GeoTIFFs as an archive, as they are: a folder, a file, a list, a prefix of a bucket."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from tnet_geo.errors import InvalidArchive, SceneMissing, SourceUnreadable
from tnet_geo.imagery import Manifest, Site
from tnet_geo.imagery.manifest import scene_id_of
from tnet_geo.imagery.remote import gdal_place, is_remote
from tnet_geo.pyramid.cog import CogReader, cog_digest
from tnet_geo.pyramid.store import open_store

__all__ = ["SUFFIXES", "CogArchive", "cog_manifest", "open_cogs"]

SUFFIXES = (".tif", ".tiff")
OPEN_READERS = 32
HALF_PX = 112
"""Lattice step of a reader for which none is asked."""
ADD = "name an archive that holds it, or correct column `scene`"


class CogArchive:
    """The COGs of a place, each a scene. Picklable; a file is opened when its first tile is asked for."""

    def __init__(self, place: str, sources: Mapping[str, str]) -> None:
        """Prefer `open_cogs`. `sources` are paths and addresses by scene_id."""
        self.place = place
        self.canvas = "native"
        self.sources = dict(sources)
        self._by_source = {source: scene_id for scene_id, source in self.sources.items()}
        self._by_name: dict[str, list[str]] = {}
        for scene_id, source in self.sources.items():
            self._by_name.setdefault(_file_name(source), []).append(scene_id)
        self._lock = threading.Lock()
        self._readers: OrderedDict[tuple[str, int], Future[CogReader]] = OrderedDict()
        self._digests: dict[str, str | None] = {}

    def __repr__(self) -> str:
        return f"CogArchive({self.place!r}, scenes={len(self.sources)})"

    def __reduce__(self) -> tuple[type[CogArchive], tuple[str, dict[str, str]]]:
        return CogArchive, (self.place, self.sources)

    def check_lattice(self, half_px: int) -> None:
        """Any lattice step is served: tiles are cut from whatever blocks a file has."""

    def adopt(self, site: Site) -> Site:
        """The site in the COG at the same path or address, otherwise in the only one of the same file name.

        Raises:
            SceneMissing: there is none, or the file name is that of several.
        """
        scene_id = self._by_source.get(gdal_place(site.scene) if not is_remote(site.scene) else site.scene)
        if scene_id is None:
            named = self._by_name.get(_file_name(site.scene), [])
            if len(named) != 1:
                what = "no COG" if not named else f"{len(named)} COGs of that name, and none at the path,"
                raise SceneMissing(site.scene, self.place, what, ADD)
            scene_id = named[0]
        return replace(site, scene=self.sources[scene_id], scene_id=scene_id)

    def reader(self, scene_id: str, half_px: int | None = None) -> CogReader:
        """Tiles of one COG on a lattice of any step; the readers last used stay open.

        Raises:
            SceneMissing: there is no such COG.
            SourceUnreadable: it cannot be opened.
            OverviewsMissing: it lacks a level, or is no GeoTIFF.
        """
        source = self.sources.get(scene_id)
        if source is None:
            raise SceneMissing(scene_id, self.place, "no COG", ADD)
        with self._lock:
            of_file = [key for key in self._readers if key[0] == scene_id]
            key = scene_id, half_px or (of_file[-1][1] if of_file else HALF_PX)
            there = self._readers.get(key)
            opened = self._readers.setdefault(key, Future())
            self._readers.move_to_end(key)
            while len(self._readers) > OPEN_READERS:
                self._readers.popitem(last=False)
        if there is None:  # others that ask meanwhile wait for it
            try:
                opened.set_result(CogReader(source, key[1], scene_id))
            except BaseException as error:
                with self._lock:
                    self._readers.pop(key, None)
                opened.set_exception(error)
                raise
        return opened.result()

    def has(self, scene_id: str) -> bool:
        """Whether there is a COG of this id."""
        return scene_id in self.sources

    def digest(self, scene_id: str) -> str | None:
        """What names the content of a COG, asked for once; None if it is not there or does not answer."""
        source = self.sources.get(scene_id)
        if source is None:
            return None
        if scene_id not in self._digests:
            try:
                self._digests[scene_id] = cog_digest(source)
            except SourceUnreadable:
                self._digests[scene_id] = None
        return self._digests[scene_id]

    def scene_ids(self) -> Iterator[str]:
        """Ids of all COGs, in the order of the place."""
        return iter(self.sources)


def open_cogs(place: str | Path) -> CogArchive:
    """The COGs of a place; nothing of a file is read yet.

    A place is a folder with all below it, one file, s3://bucket/prefix, one https:// address, or a .txt
    list of paths and addresses, one a line; # begins a comment.

    >>> open_cogs("s3://imagery/2024")  # doctest: +SKIP
    CogArchive('s3://imagery/2024', scenes=41)

    Raises:
        InvalidArchive: there is no such place, or it holds no COG.
        PlaceUnusable: a bucket does not answer, or lets nobody in.
    """
    text = str(place)
    if text.startswith(("https://", "http://")):
        if not _is_tiff(text):
            remedy = "is no address of a .tif; an https:// server does not list its files, so write their"
            raise InvalidArchive(text, f"{remedy} addresses into a .txt list, or")
        return CogArchive(text, {scene_id_of(text): text})
    if text.startswith("s3://"):
        return _bucket(text.rstrip("/"))
    path = Path(os.path.abspath(gdal_place(text)))
    if path.is_dir():
        found = sorted(str(file) for file in path.rglob("*") if _is_tiff(file.name) and file.is_file())
        return _named(str(path), {file: os.path.relpath(file, path) for file in found})
    if path.suffix.lower() == ".txt" and path.is_file():
        return _listed(path)
    if path.is_file():
        return CogArchive(str(path), {scene_id_of(path.name): str(path)})
    raise InvalidArchive(str(path), "is not there")


def cog_manifest(archive: CogArchive) -> Manifest:
    """Every COG of an archive as one site: what is classified where no manifest says otherwise."""
    sites = [Site(scene_id, source, scene_id) for scene_id, source in archive.sources.items()]
    return Manifest(sites, archive.place)


def _bucket(place: str) -> CogArchive:
    if _is_tiff(place):
        return CogArchive(place, {scene_id_of(place): place})
    store = open_store(place)
    keys = [key for key in store.keys("") if _is_tiff(key)]
    return _named(place, {f"{place}/{key}": key for key in keys})


def _listed(path: Path) -> CogArchive:
    """The files of a list; relative paths are relative to its folder."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InvalidArchive(str(path), f"cannot be read as a list of COGs ({error})") from error
    names = [line for line in dict.fromkeys(lines) if line and not line.startswith("#")]
    sources = {
        name if is_remote(name) else os.path.normpath(path.parent / gdal_place(name)): name for name in names
    }
    return _named(str(path), sources)


def _named(place: str, sources: Mapping[str, str]) -> CogArchive:
    """An archive of sources with the names that their scene_ids are made of."""
    if not sources:
        raise InvalidArchive(place, f"holds no archive.json and no COG ({', '.join(SUFFIXES)})")
    return CogArchive(place, {scene_id_of(name): source for source, name in sources.items()})


def _is_tiff(name: str) -> bool:
    return name.partition("?")[0].lower().endswith(SUFFIXES)


def _file_name(source: str) -> str:
    return (source.partition("?")[0] if is_remote(source) else source).rpartition("/")[2]
