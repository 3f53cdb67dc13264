"""Is everything that was sealed still there, byte for byte? Every fault by scene, level, array and file."""

from __future__ import annotations

import hashlib
import io
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tnet_geo.pyramid.archive import open_built
from tnet_geo.pyramid.catalogue import SCHEMA, pack_rows, scene_row
from tnet_geo.pyramid.inventory import Inventory, Item, files_below, items_of, read_inventory
from tnet_geo.pyramid.layout import SEAL, SceneLayout
from tnet_geo.pyramid.litter import litter
from tnet_geo.pyramid.pack_index import CATALOGUE
from tnet_geo.pyramid.pack_layout import read_pack
from tnet_geo.pyramid.places import LocalStore, Store
from tnet_geo.pyramid.shards import ReadRange, StoredArray, damage
from tnet_geo.pyramid.spread import spread, usable_cores
from tnet_geo.pyramid.store import open_store
from tnet_geo.units import bytes_text, seconds_text

__all__ = ["CheckReport", "Fault", "check_archive", "faults_in"]

REMOTE_THREADS = 16
"""Objects fetched at once: an object store answers many as fast as one."""

Progress = Callable[[int, int], None]
What = Literal["seal", "document", "shard", "stray", "catalogue"]
Shard = tuple[Item, StoredArray, tuple[int, ...]]
_Said = tuple[Item, str]
"""A pack, or a scene and the digest of its pyramid."""
_Audited = tuple["Fault | None", int | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was sealed."""

    what: What
    item: str
    """`scene ID` or `pack ID`; `archive` for what belongs to neither."""
    level: int | None
    array: str | None
    """`data` or `valid`."""
    file: str
    """Relative to the archive."""
    cause: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check has found. `exit_code` is 5 if there is any fault."""

    archive: str
    scenes: int
    packs: int
    shards: int
    """All that there must be."""
    shards_read: int
    """Those whose every byte was checked: all that are there, unless a sample was asked for."""
    bytes_read: int
    seconds: float
    unsealed: tuple[str, ...]
    """What is being built, or was left by a killed build on another machine: not wrong by itself."""
    faults: tuple[Fault, ...]

    @property
    def exit_code(self) -> int:
        """0 if nothing is wrong, 5 otherwise."""
        return 5 if self.faults else 0

    @property
    def bytes_per_second(self) -> float:
        """How fast stored bytes were checked."""
        return self.bytes_read / self.seconds if self.seconds else 0.0

    def lines(self) -> list[str]:
        """For people: what was read, and a table of what is wrong."""
        lines = [
            f"{self.archive}: {self.scenes} scenes, {self.packs} packs, {self.shards_read} of {self.shards} "
            f"shards read, {bytes_text(self.bytes_read)} in {seconds_text(self.seconds)} "
            f"({bytes_text(self.bytes_per_second)}/s)"
        ]
        lines += [f"not sealed (yet): {name}" for name in self.unsealed]
        if not self.faults:
            return [*lines, "nothing is wrong"]
        rows = [("what", "item", "level", "array", "file", "cause"), *map(_row, self.faults)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return [*lines, f"{len(self.faults)} faults: `tnet-geo pyramid repair` mends what can be mended"]


def _row(fault: Fault) -> tuple[str, ...]:
    level = "" if fault.level is None else str(fault.level)
    return fault.what, fault.item, level, fault.array or "", fault.file, fault.cause


def check_archive(
    archive: str | Path,
    *,
    sample: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Compare an archive with what was sealed in it; nothing is changed.

    Every seal must be readable, every document must say what follows from the seal, every shard must
    be there with each of its bytes (crc32c of all chunks and indexes), nothing else may lie between
    them, and the catalogue must agree. With `sample`, only so many shards, drawn anew each time, are
    read; all are looked for. `threads` is the number of usable cores by default, 16 for objects.

    >>> check_archive("archive").exit_code
    0

    Raises:
        InvalidArchive: there is no archive of ours.
        PlaceUnusable: its place does not answer.
    """
    started = time.monotonic()
    open_built(archive)
    store = open_store(archive)
    state = _examined(store, items_of(store), sample=sample, threads=threads, progress=progress)
    state.faults += _catalogue_faults(store, state)
    found = litter(store)
    state.faults += [Fault("stray", "archive", None, None, path, cause) for path, cause in found.dead]
    return CheckReport(
        archive=store.url,
        scenes=state.count("scene"),
        packs=state.count("pack"),
        shards=state.total,
        shards_read=state.read,
        bytes_read=state.bytes,
        seconds=time.monotonic() - started,
        unsealed=tuple(sorted([*state.unsealed, *found.living])),
        faults=tuple(state.faults),
    )


def faults_in(store: Store, items: Iterable[Item]) -> tuple[Fault, ...]:
    """What is wrong with some scenes and packs of the archive in `store`."""
    return tuple(_examined(store, items).faults)


def _examined(
    store: Store,
    items: Iterable[Item],
    *,
    sample: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> _State:
    """Look at all documents first, then read the shards."""
    workers = threads or (usable_cores() if store.local else REMOTE_THREADS)
    state = _State()
    with ThreadPoolExecutor(workers) as pool:
        for looked in spread(pool, lambda item: _look(store, item), items, threads=workers):
            state.take(looked)
        chosen = _chosen(state.total, sample)
        expected = state.total if chosen is None else len(chosen)
        shards = state.shards(store, chosen)
        for fault, size in spread(pool, lambda shard: _audit(store, *shard), shards, threads=workers):
            state.take_shard(fault, size)
            if progress:
                progress(state.tried, expected)
    return state


@dataclass(frozen=True, slots=True)
class _Looked:
    """One scene or pack, its shards looked for and not yet read."""

    item: Item
    shards: int = 0
    """None if it has no sound seal."""
    rows: tuple[tuple[_Said, int], ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class _State:
    """What a check knows so far: a few bytes of every scene."""

    rows: dict[_Said, int] = field(default_factory=dict)
    """What the catalogue must say of what is sealed, as numbers."""
    shards_of: dict[Item, int] = field(default_factory=dict)
    damaged: set[Item] = field(default_factory=set)
    """Those without a readable seal or index, of which nobody knows what the catalogue should say."""
    unsealed: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    tried: int = 0
    read: int = 0
    bytes: int = 0

    @property
    def total(self) -> int:
        """Shards that there must be."""
        return sum(self.shards_of.values())

    def count(self, kind: str) -> int:
        """Scenes, or packs, that have a seal."""
        return sum(item.kind == kind for item in self.shards_of)

    def take(self, looked: _Looked) -> None:
        self.faults += looked.faults
        if looked.shards:
            self.shards_of[looked.item] = looked.shards
            for what, value in looked.rows:
                self.rows[what] = self.rows.get(what, 0) + value
            if not looked.rows:
                self.damaged.add(looked.item)
        elif looked.faults:
            self.damaged.add(looked.item)
        else:
            self.unsealed.append(looked.item.folder)

    def take_shard(self, fault: Fault | None, size: int | None) -> None:
        """`size` is None where there is no shard, which was said before."""
        self.tried += 1
        if size is not None:
            self.read += 1
            self.bytes += size
        if fault:
            self.faults.append(fault)

    def shards(self, store: Store, chosen: frozenset[int] | None) -> Iterator[Shard]:
        """All shards, or the chosen ones by their number in this order."""
        number = 0
        for item, count in self.shards_of.items():
            if chosen is None or any(at in chosen for at in range(number, number + count)):
                inventory = read_inventory(store, item)
                found = enumerate(_shards(item, inventory) if inventory else (), number)
                yield from (shard for at, shard in found if chosen is None or at in chosen)
            number += count


def _shards(item: Item, inventory: Inventory) -> Iterator[Shard]:
    return ((item, array, index) for array in inventory.arrays for index in array.indices())


def _chosen(total: int, sample: int | None) -> frozenset[int] | None:
    """Numbers of the shards to read; None means all."""
    return None if sample is None else frozenset(random.sample(range(total), min(sample, total)))


def _look(store: Store, item: Item) -> _Looked:
    """The seal and the documents of one scene or pack, and which of its files are there."""
    try:
        inventory = read_inventory(store, item)
    except ValueError as error:
        return _Looked(item, faults=(_fault("seal", item, SEAL, f"the seal cannot be read: {error}"),))
    if inventory is None:
        missing = (_fault("seal", item, SEAL, "the seal is missing"),) if store.local else ()
        return _Looked(item, faults=missing)
    if store.read(f"{item.folder}/{SEAL}") != inventory.documents[SEAL]:
        cause = "the seal contradicts itself: a part of it is changed"
        return _Looked(item, faults=(_fault("seal", item, SEAL, cause),))
    faults = (*_document_faults(store, item, inventory), *_file_faults(store, item, inventory))
    return _Looked(
        item, sum(array.count for array in inventory.arrays), tuple(_rows(store, item, inventory)), faults
    )


def _rows(store: Store, item: Item, inventory: Inventory) -> list[tuple[_Said, int]]:
    """What the catalogue must say of it."""
    if isinstance(inventory.layout, SceneLayout):
        row = pa.Table.from_pylist([scene_row(inventory.layout)], SCHEMA)
        return _hashed(row.to_pylist())
    try:
        pack = read_pack(store.at("packs"), item.name)
    except ValueError:  # its index is damaged, which is said elsewhere
        return []
    return _hashed(pack_rows(pack).to_pylist()) if pack else []


def _fault(what: What, item: Item, key: str, cause: str, array: StoredArray | None = None) -> Fault:
    level, name = (array.level, array.name) if array else (None, None)
    return Fault(what, str(item), level, name, f"{item.folder}/{key}", cause)


def _document_faults(store: Store, item: Item, inventory: Inventory) -> Iterator[Fault]:
    """Documents, other than the seal, that do not say what follows from it."""
    arrays = {f"{array.folder}/{SEAL}": array for array in inventory.arrays}
    for key, right in inventory.documents.items():
        content = right if key == SEAL else store.read(f"{item.folder}/{key}")
        if content != right:
            cause = "is missing" if content is None else "is not what follows from the seal"
            yield _fault("document", item, key, cause, arrays.get(key))
    for key, digest in inventory.others.items():
        content = store.read(f"{item.folder}/{key}")
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            cause = "is missing" if content is None else "is not what was sealed (sha256)"
            yield _fault("document", item, key, cause)


def _file_faults(store: Store, item: Item, inventory: Inventory) -> Iterator[Fault]:
    """Shards that are not there, and files that nobody has sealed."""
    there = set(files_below(store, item.folder))
    for array in inventory.arrays:
        for key in map(array.key, array.indices()):
            if key in there:
                there.remove(key)
            else:
                yield _fault("shard", item, key, "the shard is missing", array)
    for key in sorted(there.difference(inventory.documents, inventory.others)):
        left = key.endswith((".partial", ".__lock"))
        yield _fault("stray", item, key, "left by a write that was cut off" if left else "was not sealed")


def _audit(store: Store, item: Item, array: StoredArray, index: tuple[int, ...]) -> _Audited:
    """Every byte of one shard."""
    key = array.key(index)
    try:
        with _opened(store, f"{item.folder}/{key}") as file:
            if file is None:  # reported as missing before
                return None, None
            read, size = file
            cause = damage(read, size, array, index)
    except OSError as error:
        return _fault("shard", item, key, f"cannot be read ({error.strerror or error})", array), 0
    return (_fault("shard", item, key, cause, array) if cause else None), size


@contextmanager
def _opened(store: Store, key: str) -> Iterator[tuple[ReadRange, int] | None]:
    """What reads ranges of a file, and its size; None if there is no file."""
    if not isinstance(store, LocalStore):
        content = store.read(key)
        yield (
            None if content is None else (lambda start, length: content[start : start + length], len(content))
        )
        return
    try:
        handle = os.open(store.path / key, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield lambda start, length: os.pread(handle, length, start), os.fstat(handle).st_size
    finally:
        os.close(handle)


def _catalogue_faults(store: Store, state: _State) -> Iterator[Fault]:
    """Rows that are missing or say something else than the seals, and rows of what is not there."""
    said: dict[_Said, tuple[int, str]] = {}
    for key in store.keys(CATALOGUE):
        try:
            file = pq.ParquetFile(io.BytesIO(store.read(key) or b""), page_checksum_verification=True)
            part = [row for batch in file.iter_batches() for row in _hashed(batch.to_pylist())]
        except (pa.ArrowException, OSError, KeyError, UnicodeError) as error:
            cause = f"cannot be read ({' '.join(str(error).split())[:80]})"
            yield Fault("catalogue", "archive", None, None, key, cause)
            continue
        for what, value in part:
            said[what] = said.get(what, (0, ""))[0] + value, key
    items = {item for item, _ in said}
    for what, value in state.rows.items():
        if said.get(what, (None, ""))[0] != value:
            cause = "contradicts the seal" if what[0] in items else "has no row of what is sealed"
            yield Fault("catalogue", str(what[0]), None, None, CATALOGUE, cause)
    there = {item for item, _ in state.rows} | state.damaged
    for item, key in {item: key for (item, _), (_, key) in said.items() if item not in there}.items():
        yield Fault("catalogue", str(item), None, None, key, "has a row of what is not there")


def _hashed(rows: Iterable[dict[str, Any]]) -> list[tuple[_Said, int]]:
    """Of every row: what it speaks of, and a number that stands for what it says."""
    found = []
    for row in rows:
        packed = row["pack_id"] is not None
        item = Item("pack", row["pack_id"]) if packed else Item("scene", row["scene_id"])
        facts = (
            tuple(row[name]) if isinstance(row[name], list) else row[name]
            for name in SCHEMA.names
            if name in row
        )
        found.append(((item, "" if packed else row["digest"]), hash(tuple(facts))))
    return found
