"""Writing one pack: its sites are read one after the other, and those that cannot be read set aside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet_geo.errors import SceneUnwritable, SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.fingerprint import DigestOf, FileState, source_digest, source_files, source_state
from tnet_geo.imagery.raster import CHANGED, NO_VALID_PIXELS, RasterInfo, RasterSource, open_raster
from tnet_geo.pyramid.canvas import canvas_cut, fit, fitted_transform
from tnet_geo.pyramid.layout import SEAL
from tnet_geo.pyramid.pack_arrays import PackArrays
from tnet_geo.pyramid.pack_index import pack_table
from tnet_geo.pyramid.pack_layout import INDEX, PACKS, PackLayout, index_bytes, pack_documents, scene_key
from tnet_geo.pyramid.packs import SHARED_BYTES, PackMember, PackPlan, pack_digest, sites_in_shards
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.sealing import Draft, abandon, begin, seal, sealed_digest
from tnet_geo.pyramid.settings import ArchiveSettings

__all__ = ["PackOutcome", "PackRecord", "index_row", "write_pack"]

Json = dict[str, Any]
Block = tuple[NDArray[Any], NDArray[np.uint8] | None]


@dataclass(frozen=True, slots=True)
class PackRecord:
    """What became of one member that is packed."""

    scene_id: str
    digest: str
    pack_id: str
    slot: int
    skipped: bool
    """True if it was packed with this digest already."""


@dataclass(frozen=True, slots=True)
class PackOutcome:
    """What became of one plan: every member is either packed or set aside."""

    packed: tuple[PackRecord, ...]
    set_aside: tuple[tuple[str, str], ...]
    """scene_id and reason."""
    bytes_written: int
    files: int
    """Written by this call."""


def write_pack(
    plan: PackPlan, store: Store, settings: ArchiveSettings, digest_of: DigestOf = "content"
) -> PackOutcome:
    """Write and seal one pack of the archive in `store`.

    Members that cannot be read are set aside with their reasons, and the pack holds the others; those
    that are packed already with their present digest stay where they are. Nobody sees the pack before
    all of it is there. Its bytes follow from its members alone.

    Raises:
        SceneUnwritable: the disk is full, or the bucket does not take it.
        WriteConflict: another build seals other bytes under the same name.
        PlaceUnusable: the archive's place does not answer.
    """
    hashed, reasons = _hashed(plan.members, settings, digest_of)
    table = pack_table(store)
    table.refresh()  # the archive may be another one than when this process last looked at the place
    records: list[PackRecord] = []
    sites: list[_Site] = []
    for member, digest, source in hashed:
        older = table.find(member.scene_id)
        if older is not None and table.digest(member.scene_id) == digest:
            records.append(PackRecord(member.scene_id, digest, *older, skipped=True))
        else:
            sites.append(_Site(member, digest, source, None if older is None else older[0]))
    written = files = 0
    while sites:
        attempt = _Attempt(sites, store, settings)
        bad = attempt.run()
        if not bad:
            written, files = attempt.bytes_written, attempt.files
            pack_id, new = attempt.pack_id, attempt.new
            table.refresh()
            records += [
                PackRecord(site.member.scene_id, site.digest, pack_id, slot, skipped=not new)
                for slot, site in enumerate(sites)
            ]
            break
        # Slots follow each other and the name follows from the members: once more without the bad ones.
        reasons |= bad
        sites = [site for site in sites if site.member.scene_id not in bad]
    return PackOutcome(tuple(records), tuple(sorted(reasons.items())), written, files)


def _hashed(
    members: Sequence[PackMember], settings: ArchiveSettings, digest_of: DigestOf
) -> tuple[list[tuple[PackMember, str, _Source]], dict[str, str]]:
    """Members with their digests and sources, and the reasons of those that cannot be read."""
    found: list[tuple[PackMember, str, _Source]] = []
    reasons: dict[str, str] = {}
    for place, same in groupby(members, key=lambda member: member.source):
        try:
            files = tuple(source_files(place))
            source = _Source(place, files, source_state(place, files=files))
            content = source_digest(place, digest_of, files=files)
        except SourceUnreadable as error:
            reasons |= {member.scene_id: str(error) for member in same}
            continue
        found += [(member, pack_digest(content, member.window, settings), source) for member in same]
    return found, reasons


@dataclass(frozen=True, slots=True)
class _Source:
    """A raster as it was when it was hashed."""

    place: str
    files: tuple[str, ...]
    state: tuple[FileState, ...]

    def check(self) -> None:
        """Raises: SourceUnreadable if any of its files is not what it was."""
        if source_state(self.place, files=self.files) != self.state:
            raise SourceUnreadable(self.place, CHANGED)


@dataclass(frozen=True, slots=True)
class _Site:
    """One member whose source has been hashed."""

    member: PackMember
    digest: str
    source: _Source
    replaces: str | None
    """The pack with its pixels of another digest."""


class _Attempt:
    """One pack of these sites: written and sealed, or given up because some of them cannot be read."""

    def __init__(self, sites: Sequence[_Site], store: Store, settings: ArchiveSettings) -> None:
        # With what is replaced: a source that changes back must not meet the pack that it had before.
        names = "\n".join(f"{site.digest} {site.replaces or ''}" for site in sites)
        first = sites[0].member
        self._sites, self._settings = sites, settings
        self._layout = PackLayout(
            digest=hashlib.sha256(names.encode()).hexdigest(),
            sites=len(sites),
            bands=first.bands,
            dtype=first.dtype,
            shape=first.shape,
            half_px=settings.half_px,
            codec=settings.codec,
            canvas=settings.canvas,
            all_valid=first.all_valid,
            shard_sites=sites_in_shards(len(sites), first, settings),
            index_sha256="",
        )
        self._packs = store.at(PACKS)
        self.pack_id = self._layout.pack_id
        self.new = True
        self.bytes_written = self.files = 0

    def run(self) -> dict[str, str]:
        """Why sites cannot be packed; the pack is sealed if there are none. Raises: SceneUnwritable."""
        if sealed_digest(self._packs.at(self.pack_id)) == self._layout.digest:
            self.new = False
            return {}
        try:
            return self._write()
        except OSError as error:
            pack, cause = f"of pack {self.pack_id}", error.strerror or str(error)
            raise SceneUnwritable(pack, self._packs.url, cause) from error

    def _write(self) -> dict[str, str]:
        """Into a draft, which is gone afterwards."""
        draft = begin(self._packs, self.pack_id, self._layout.digest)
        arrays = PackArrays(draft.store, self._layout)
        try:
            bad, rows = self._fill(arrays)
            if not bad:
                self._seal(draft, arrays.finish(), rows)
                return {}
        except BaseException:
            arrays.abandon()
            abandon(draft)
            raise
        arrays.abandon()
        abandon(draft)
        return bad

    def _fill(self, arrays: PackArrays) -> tuple[dict[str, str], list[Json]]:
        """Put all sites into the arrays; after a first bad one the others are only tried."""
        bad: dict[str, str] = {}
        rows: list[Json] = []
        for source, same in groupby(self._sites, key=lambda site: site.source):
            sites = list(same)
            try:
                with open_raster(source.place) as raster, _reads(raster, len(sites)) as read:
                    for site in sites:
                        try:
                            block, row = _packed(site, raster.info, read, self._settings)
                        except SourceUnreadable as error:
                            bad[site.member.scene_id] = str(error)
                            continue
                        if not bad:
                            arrays.add(*block, raster.info.nodata)
                            rows.append(row | {"slot": len(rows)})
                source.check()
            except SourceUnreadable as error:
                bad |= {site.member.scene_id: str(error) for site in sites}
        return bad, rows

    def _seal(self, draft: Draft, all_valid: bool, rows: Sequence[Json]) -> None:
        """Write all but the pixels, and seal."""
        index = index_bytes(rows)
        layout = replace(self._layout, all_valid=all_valid, index_sha256=hashlib.sha256(index).hexdigest())
        documents = pack_documents(layout)
        content = documents.pop(SEAL)
        draft.write_all(documents | {INDEX: index})
        shards = [
            f"{level}/{name}/c/{shard}" + "/0" * (3 if name == "data" else 2)
            for level, both in enumerate(layout.shard_sites)
            for name, in_shard in zip(layout.names, both, strict=False)
            for shard in range(-(-layout.sites // in_shard))
        ]
        keys = [*documents, INDEX, *shards]
        self.files = len(keys) + 1
        self.bytes_written = draft.bytes_written() + len(content)
        seal([(draft, content)], [keys])


@contextmanager
def _reads(raster: RasterSource, sites: int) -> Iterator[Callable[[Window], Block]]:
    """What reads windows of a source; one without inner tiles is decoded once for several sites."""
    info = raster.info
    rows, cols = info.shape
    pixel = info.bands * np.dtype(info.dtype).itemsize + (0 if info.all_valid else 1)
    if info.tiled or sites == 1 or rows * cols * pixel > SHARED_BYTES:
        yield raster.read
        return
    pixels, validity = raster.read(Window(0, 0, rows, cols))

    def cut(window: Window) -> Block:
        there = slice(window.row, window.bottom), slice(window.col, window.right)
        return pixels[:, *there], None if validity is None else validity[there]

    yield cut


def _packed(
    site: _Site, info: RasterInfo, read: Callable[[Window], Block], settings: ArchiveSettings
) -> tuple[Block, Json]:
    """A site's pixels and validity at level 0, and its row of the index. Raises: SourceUnreadable."""
    member, side = site.member, settings.canvas_px
    kind = (info.shape if side is None else (side, side), info.bands, info.dtype, info.all_valid)
    if kind != member.kind:
        raise SourceUnreadable(member.source, "it changed after the build was planned")
    row = index_row(member, info, site.digest, site.replaces, settings)
    if side is None:
        block = read(Window(0, 0, *info.shape))
    else:
        cut = Window(row["row_off"], row["col_off"], row["height"], row["width"])
        pixel_bytes = info.bands * np.dtype(info.dtype).itemsize
        block = fit(read, cut, side, nodata=info.nodata, pixel_bytes=pixel_bytes)
    if block[1] is not None and not block[1].any():
        raise SourceUnreadable(member.source, NO_VALID_PIXELS)
    return block, row


def index_row(
    member: PackMember, info: RasterInfo, digest: str, replaces: str | None, settings: ArchiveSettings
) -> Json:
    """A site's row of the index, but for its slot; `info` is of its source. Raises: SourceUnreadable."""
    transform, cut, side = info.transform, None, settings.canvas_px
    if side is not None:
        cut = canvas_cut(member.window, info.shape)
        if cut is None:
            raise SourceUnreadable(member.source, f"it has no pixel in the window of {member.scene_id}")
        transform = fitted_transform(transform, cut, side)
    return {
        "key": scene_key(member.scene_id),
        "scene_id": member.scene_id,
        "digest": digest,
        "source": member.source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1],
        "crs": info.crs,
        "transform": transform,
        "georeference": info.georeference,
        "georeference_error_px": info.georeference_error_px,
        "nodata": info.nodata,
        "scale": info.scale,
        "offset": info.offset,
        "row_off": cut and cut.row,
        "col_off": cut and cut.col,
        "height": cut and cut.height,
        "width": cut and cut.width,
        "replaces": replaces,
    }
