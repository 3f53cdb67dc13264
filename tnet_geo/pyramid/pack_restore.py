"""The seal and the index of a pack, made anew from each other, the catalogue and the sources' headers."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.raster import open_raster
from tnet_geo.pyramid.inventory import Item
from tnet_geo.pyramid.layout import SEAL
from tnet_geo.pyramid.mend import NotMended
from tnet_geo.pyramid.pack_index import CATALOGUE
from tnet_geo.pyramid.pack_layout import INDEX, PackLayout, index_bytes, pack_documents
from tnet_geo.pyramid.pack_writer import index_row
from tnet_geo.pyramid.packs import PackMember, sites_in_shards
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.settings import ArchiveSettings

__all__ = ["restored_index", "restored_seal"]

Json = dict[str, Any]
SourceOf = Callable[[str], tuple[str | None, Window | None]]
"""The source of a site by its scene_id, and on a canvas its window."""


def restored_index(
    store: Store, item: Item, layout: PackLayout, settings: ArchiveSettings, source_of: SourceOf
) -> bytes:
    """The index of a pack with a sound seal; equal to what was sealed, or there is none.

    The catalogue knows its members, their sources' headers the rest. Raises: NotMended.
    """
    content = index_bytes(
        [row | {"slot": slot} for slot, row in enumerate(_rows(store, item, settings, source_of))]
    )
    if hashlib.sha256(content).hexdigest() != layout.index_sha256:
        raise NotMended("the catalogue and the sources give another index than was sealed")
    return content


def restored_seal(store: Store, item: Item, settings: ArchiveSettings) -> bytes:
    """The seal of a pack whose index is sound: the pack's name is the digest of its members.

    Everything else that follows from the seal must be there as it follows. Raises: NotMended.
    """
    index = store.read(f"{item.folder}/{INDEX}")
    try:
        table = pq.read_table(io.BytesIO(index or b""))
        names = zip(table["digest"].to_pylist(), table["replaces"].to_pylist(), strict=True)
        facts = json.loads(store.read(f"{item.folder}/0/data/{SEAL}") or b"")
        sites, bands, rows, cols = facts["shape"]
        dtype = str(facts["data_type"])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise NotMended("its index or the metadata of its first array are damaged too") from error
    all_valid = store.read(f"{item.folder}/0/valid/{SEAL}") is None
    digest = hashlib.sha256("\n".join(f"{own} {older or ''}" for own, older in names).encode()).hexdigest()
    member = PackMember("", "", None, (rows, cols), bands, dtype, all_valid, 0)
    layout = PackLayout(
        digest=digest,
        sites=sites,
        bands=bands,
        dtype=dtype,
        shape=(rows, cols),
        half_px=settings.half_px,
        codec=settings.codec,
        canvas=settings.canvas,
        all_valid=all_valid,
        shard_sites=sites_in_shards(sites, member, settings),
        index_sha256=hashlib.sha256(index or b"").hexdigest(),
    )
    documents = pack_documents(layout)
    seal = documents.pop(SEAL)
    if layout.pack_id != item.name or len(table) != sites:
        raise NotMended("its index is not the one that gave the pack its name")
    if any(store.read(f"{item.folder}/{key}") != content for key, content in documents.items()):
        raise NotMended("other documents of it are damaged too")
    return seal


def _rows(store: Store, item: Item, settings: ArchiveSettings, source_of: SourceOf) -> list[Json]:
    """Rows of the index, but for their slots, in their order. Raises: NotMended."""
    members: list[Json] = []
    for key in store.keys(CATALOGUE):
        try:
            table = pq.read_table(io.BytesIO(store.read(key) or b""))
        except (pa.ArrowException, OSError):
            continue  # what it says of other packs is not needed here
        members += table.filter(pc.equal(table["pack_id"], item.name)).to_pylist()
    if not members:
        raise NotMended("the catalogue does not know its members")
    rows = []
    for known in sorted(members, key=lambda row: int(row["slot"])):
        source, window = source_of(known["scene_id"])
        if source is None:
            raise NotMended(f"the source of {known['scene_id']} is not in the manifest")
        shape = known["rows"], known["cols"]
        member = PackMember(
            known["scene_id"], source, window, shape, known["bands"], known["dtype"], known["all_valid"], 0
        )
        try:
            with open_raster(source) as raster:
                rows.append(index_row(member, raster.info, known["digest"], known["replaces"], settings))
        except SourceUnreadable as error:
            raise NotMended(str(error).rstrip(".")) from error
    return rows
