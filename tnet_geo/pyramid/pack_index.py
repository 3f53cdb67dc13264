"""Which pack a scene is in: a table of a few bytes for each of a million packed sites, in memory once."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tnet_geo.pyramid.pack_layout import PACKS, Pack, read_pack, scene_key
from tnet_geo.pyramid.places import Store

__all__ = ["CATALOGUE", "PackTable", "opened_pack", "pack_table"]

CATALOGUE = "catalogue"
"""Folder of the archive's table of contents."""
REFRESH_SECONDS = 5.0
"""A scene that is not found is looked for in packs that are newer than the table, at most so often."""
READS = 16
"""Indexes that are read at once."""
BATCH_ROWS = 1 << 15
OPEN_PACKS = 256
"""Indexes that are kept in memory: some 300 kB each."""

_COLUMNS = ["pack_id", "slot", "key", "digest", "replaces"]


def opened_pack(store: Store, pack_id: str) -> Pack | None:
    """A sealed pack of the archive in `store`, read once; None if there is none. Raises: ValueError."""
    try:
        return _sealed_pack(store, pack_id)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=OPEN_PACKS)
def _sealed_pack(store: Store, pack_id: str) -> Pack:
    """Sealed packs never change; that there is none yet is not kept: it may be sealed meanwhile."""
    pack = read_pack(store.at(PACKS), pack_id)
    if pack is None:
        raise FileNotFoundError(pack_id)
    return pack


@dataclass(frozen=True, slots=True)
class _Rows:
    """Packed sites sorted by key, 46 bytes each; `packs` has the ids that `pack` counts in."""

    key: NDArray[np.uint64]
    pack: NDArray[np.uint32]
    slot: NDArray[np.uint16]
    digest: NDArray[np.uint8]
    """[n, 32]"""
    packs: tuple[str, ...] = ()
    """Sorted."""
    replaced: frozenset[tuple[int, str]] = frozenset()
    """Keys, and packs whose site of this key another pack replaces."""

    def place(self, key: int) -> int | None:
        """The row of a key; of several the first that none of the others replaces."""
        first = int(np.searchsorted(self.key, np.uint64(key)))
        for row in range(first, len(self.key)):
            if int(self.key[row]) != key:
                break
            if (key, self.packs[self.pack[row]]) not in self.replaced:
                return row
        return None


class PackTable:
    """Finds packed scenes of one archive. Any thread may ask.

    It is read from the catalogue, and from the indexes of packs that the catalogue does not have yet.
    Where a scene was packed again, the pack that replaces the other one counts.
    """

    def __init__(self, store: Store) -> None:
        """Prefer `pack_table`, which gives every one in this process the same."""
        self._store = store
        self._lock = threading.Lock()
        self._rows = _merged([])
        self._parts: set[str] = set()
        self._looked: float | None = None

    def __len__(self) -> int:
        """Packed sites, replaced ones too."""
        return len(self._rows.key)

    def packs(self) -> tuple[str, ...]:
        """Ids of the packs that the table knows, sorted."""
        return self._rows.packs

    def find(self, scene_id: str) -> tuple[str, int] | None:
        """The id of the pack that a scene is in, and its slot; None if it is in none."""
        rows, row = self._row(scene_id)
        return None if row is None else (rows.packs[rows.pack[row]], int(rows.slot[row]))

    def digest(self, scene_id: str) -> str | None:
        """What names the content of a packed scene; None if it is in no pack."""
        rows, row = self._row(scene_id)
        return None if row is None else rows.digest[row].tobytes().hex()

    def _row(self, scene_id: str) -> tuple[_Rows, int | None]:
        key = scene_key(scene_id)
        row = self._rows.place(key)
        if row is None and (self._looked is None or time.monotonic() > self._looked + REFRESH_SECONDS):
            self.refresh()
            row = self._rows.place(key)
        return self._rows, row

    def refresh(self) -> None:
        """Take in packs that were sealed since, and forget those that are gone."""
        with self._lock:
            there = set(self._store.names(PACKS))
            known = set(self._rows.packs)
            found = [self._rows] if known <= there else [_kept(self._rows, there)]
            if there - known:
                found += self._catalogued(there - known)
                found += self._indexed(there - known.union(*(rows.packs for rows in found)))
            if len(found) > 1 or found[0] is not self._rows:
                self._rows = _merged(found)
                pa.default_memory_pool().release_unused()
            self._looked = time.monotonic()

    def _catalogued(self, wanted: set[str]) -> list[_Rows]:
        """Rows of those of the wanted packs that are in parts of the catalogue not seen before."""
        parts = [name for name in self._store.names(CATALOGUE) if name.endswith(".parquet")]
        found = []
        for part in parts:
            if part in self._parts:
                continue
            content = self._store.read(f"{CATALOGUE}/{part}")
            try:
                found += list(_catalogued(content or b"", pa.array(sorted(wanted), pa.string())))
            except pa.ArrowException:
                continue  # damaged, which is for `pyramid check` to say: the packs themselves know better
            self._parts.add(part)
        return found

    def _indexed(self, wanted: set[str]) -> list[_Rows]:
        """Rows of those of the wanted packs that are sealed and sound."""

        def rows(pack_id: str) -> _Rows | None:
            try:
                pack = opened_pack(self._store, pack_id)
            except ValueError:
                return None
            if pack is None:
                return None
            ids = pa.array([pack_id] * len(pack.index), pa.string())
            return _rows_of(pack.index.append_column("pack_id", ids))

        with ThreadPoolExecutor(READS) as readers:
            return [found for found in readers.map(rows, sorted(wanted)) if found is not None]


@lru_cache(maxsize=16)
def pack_table(store: Store) -> PackTable:
    """The table of the archive in `store`, one for this process."""
    return PackTable(store)


def _catalogued(content: bytes, wanted: pa.Array) -> Iterator[_Rows]:
    """Rows of the wanted packs in a part of the catalogue, piece by piece: a million strings take room."""
    with pq.ParquetFile(io.BytesIO(content)) as part:
        for batch in part.iter_batches(BATCH_ROWS, columns=_COLUMNS):
            table = pa.Table.from_batches([batch])
            yield _rows_of(table.filter(pc.is_in(table["pack_id"], wanted)))


def _rows_of(table: pa.Table) -> _Rows:
    """Rows of a table with _COLUMNS, every one in a pack, in any order."""
    codes = table["pack_id"].combine_chunks().dictionary_encode()
    packs = codes.dictionary.to_pylist()
    digests = np.frombuffer(bytes.fromhex("".join(table["digest"].to_pylist())), np.uint8)
    newer = table.filter(pc.is_valid(table["replaces"]))
    return _Rows(
        key=table["key"].to_numpy().astype(np.uint64),
        pack=codes.indices.to_numpy().astype(np.uint32),
        slot=table["slot"].to_numpy().astype(np.uint16),
        digest=digests.reshape(-1, 32),
        packs=tuple(packs),
        replaced=frozenset(zip(newer["key"].to_pylist(), newer["replaces"].to_pylist(), strict=True)),
    )


def _kept(rows: _Rows, there: set[str]) -> _Rows:
    """The rows of packs that are there."""
    stays = np.array([pack in there for pack in rows.packs], bool)[rows.pack]
    return replace(
        rows,
        key=rows.key[stays],
        pack=rows.pack[stays],
        slot=rows.slot[stays],
        digest=rows.digest[stays],
    )


def _merged(found: Sequence[_Rows]) -> _Rows:
    """All rows, sorted by key and then by pack, packs by id."""
    packs = sorted({rows.packs[code] for rows in found for code in np.unique(rows.pack)})
    number = {pack: code for code, pack in enumerate(packs)}
    codes = [
        np.array([number.get(pack, 0) for pack in rows.packs], np.uint32)[rows.pack]
        for rows in found
        if len(rows.key)
    ]
    full = [rows for rows in found if len(rows.key)]
    key = np.concatenate([np.empty(0, np.uint64), *(rows.key for rows in full)])
    pack = np.concatenate([np.empty(0, np.uint32), *codes])
    order = np.lexsort((pack, key))
    return _Rows(
        key=key[order],
        pack=pack[order],
        slot=np.concatenate([np.empty(0, np.uint16), *(rows.slot for rows in full)])[order],
        digest=np.concatenate([np.empty((0, 32), np.uint8), *(rows.digest for rows in full)])[order],
        packs=tuple(packs),
        replaced=frozenset().union(*(rows.replaced for rows in found)),
    )
