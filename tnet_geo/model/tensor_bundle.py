"""TensorFlow 2 checkpoints without TensorFlow: the variables of a model, by their names.

A checkpoint is `NAME.index`, a table of LevelDB's format from keys to small protocol buffers, over raw
little-endian numbers in `NAME.data-00000-of-00001` and so on. An object checkpoint also holds slots of
the optimiser, counters of steps and a graph of objects; a model's variables are the floating-point
children of its root. Every block and every number read is held against its CRC-32C.

Source: TensorFlow, `core/util/tensor_bundle` and `core/protobuf/tensor_bundle.proto`; LevelDB,
`doc/table_format.md`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from tnet_geo.errors import InvalidCheckpoint

__all__ = ["checkpoint_prefix", "read_checkpoint"]

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5
"""Bytes behind a block: its compression, and a checksum."""
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_FLOATS = {1: "<f4", 2: "<f8", 19: "<f2"}
_COUNTERS = {3, 9}
"""int32 and int64: steps, saves and epochs, never weights."""
_OTHER_TYPES = {4: "uint8", 7: "string", 10: "bool", 14: "bfloat16"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a variable lies."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


def checkpoint_prefix(path: Path) -> Path:
    """What the files of a checkpoint have in common, from a folder, a prefix or an index.

    A folder's `checkpoint` file says which of its checkpoints is the latest.

    Raises:
        InvalidCheckpoint: there is none at `path`.
    """
    if path.is_dir():
        return _latest(path)
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if not _index_of(prefix).is_file():
        raise InvalidCheckpoint(
            str(path), "is no TensorFlow 2 checkpoint", "name its folder, its .index file or its prefix"
        )
    return prefix


def _latest(folder: Path) -> Path:
    try:
        text = (folder / "checkpoint").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = ", ".join(sorted(file.stem for file in folder.glob("*.index"))) or "none is there"
        raise InvalidCheckpoint(
            str(folder), "has no readable file `checkpoint` that names the latest", f"name one ({found})"
        ) from error
    named = re.search(r'^model_checkpoint_path: "(.*)"$', text, flags=re.MULTILINE)
    # Written elsewhere, the name may be an absolute path of that machine.
    name = Path(named.group(1)).name if named else ""
    if not name or not _index_of(folder / name).is_file():
        raise InvalidCheckpoint(
            str(folder), f"names {name or 'no'} checkpoint as its latest, which is not there", "name another"
        )
    return folder / name


def _index_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def read_checkpoint(path: Path) -> dict[str, NDArray[np.float32]]:
    """All variables of the model in a checkpoint, by name, in TensorFlow's layouts, as float32.

    path: a folder, a prefix such as `run/ckpt-42`, or an index.

    Raises:
        InvalidCheckpoint: there is none, it is damaged, or it is of a kind that is not read here.
    """
    prefix = checkpoint_prefix(path)
    try:
        shards, entries = _index(_index_of(prefix).read_bytes())
        return dict(sorted(_tensors(prefix, shards, dict(_variables(entries))).items()))
    except (OSError, ValueError) as error:  # ValueError: whatever is wrong with the bytes
        raise InvalidCheckpoint(str(prefix), f"cannot be read ({error})", "fetch or save it anew") from error


def _variables(entries: Mapping[str, _Entry]) -> Iterator[tuple[str, _Entry]]:
    """Names and entries of the model's variables: floating-point children of the root."""
    for key, entry in entries.items():
        name, found, rest = key.partition("/")
        is_variable = found and found + rest == _VALUE
        if is_variable and entry.dtype not in _COUNTERS:
            yield re.sub(r"\.(.)", lambda escape: "/" if escape[1] == "S" else escape[1], name), entry


def _tensors(prefix: Path, shards: int, entries: Mapping[str, _Entry]) -> dict[str, NDArray[np.float32]]:
    tensors: dict[str, NDArray[np.float32]] = {}
    for shard in sorted({entry.shard for entry in entries.values()}):
        if shard >= shards:
            raise ValueError(f"a variable lies in data file {shard} of {shards}")
        data = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
        if not data.is_file():
            raise ValueError(f"its data file {data.name} is missing")
        with data.open("rb") as file:
            here = {name: entry for name, entry in entries.items() if entry.shard == shard}
            tensors |= {name: _tensor(name, entry, file) for name, entry in here.items()}
    return tensors


def _tensor(name: str, entry: _Entry, file: BinaryIO) -> NDArray[np.float32]:
    if entry.sliced:
        raise ValueError(f"{name} is stored in slices, which are not read here")
    if entry.dtype not in _FLOATS:
        kind = _OTHER_TYPES.get(entry.dtype, f"number {entry.dtype}")
        raise ValueError(f"{name} has type {kind}, which is not read here")
    dtype = np.dtype(_FLOATS[entry.dtype])
    if entry.size != math.prod(entry.shape) * dtype.itemsize:
        raise ValueError(f"{name} has {entry.size} bytes, which is not what its shape {entry.shape} takes")
    # Asked before reading: a forged size must not take memory.
    if entry.offset + entry.size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"the data file ends inside {name}")
    file.seek(entry.offset)
    content = file.read(entry.size)
    if _masked(content) != entry.checksum:
        raise ValueError(f"{name} is damaged: its checksum differs")
    return np.frombuffer(content, dtype).reshape(entry.shape).astype(np.float32)


def _index(content: bytes) -> tuple[int, dict[str, _Entry]]:
    """Number of data files, and the entries of all keys."""
    if content[-8:] != _MAGIC:
        raise ValueError("the index does not end as one")
    footer = memoryview(content)[-_FOOTER:]
    _, at = _handle(footer, 0)  # of the meta index, which TensorFlow leaves empty
    handle, _ = _handle(footer, at)
    entries: dict[str, _Entry] = {}
    shards = 0
    for _, block in _rows(_block(content, handle)):
        for key, value in _rows(_block(content, _handle(memoryview(block), 0)[0])):
            if key:
                entries[key.decode(errors="replace")] = _entry(value)  # keys of slices are no text
            else:
                shards = _shards(value)
    return shards, entries


def _block(content: bytes, handle: tuple[int, int]) -> memoryview:
    offset, size = handle
    whole = memoryview(content)[offset : offset + size + _TRAILER]
    if len(whole) != size + _TRAILER:
        raise ValueError("the index ends inside a block")
    if whole[size] != 0:
        raise ValueError("the index is compressed, which is not read here")
    if _masked(bytes(whole[: size + 1])) != int.from_bytes(whole[size + 1 :], "little"):
        raise ValueError("the index is damaged: the checksum of a block differs")
    return whole[:size]


def _rows(block: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key leaves out what it has in common with the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise ValueError("a row of the index leaves its block")
        key = key[:shared] + bytes(block[at : at + own])
        yield key, bytes(block[at + own : at + own + length])
        at += own + length


def _shards(header: bytes) -> int:
    """Data files, from the BundleHeaderProto, which the empty key has."""
    fields = dict(_fields(header))
    if fields.get(2, 0) != 0:
        raise ValueError("its numbers are big-endian, which is not read here")
    return _whole(fields.get(1, 0))


def _entry(value: bytes) -> _Entry:
    """A BundleEntryProto."""
    fields = dict(_fields(value))
    shape = fields.get(2, b"")
    if not isinstance(shape, bytes):
        raise ValueError("an entry of the index has no shape")
    sizes = [size for number, size in _fields(shape) if number == 2]
    return _Entry(
        dtype=_whole(fields.get(1, 0)),
        shape=tuple(_whole(dict(_fields(size)).get(1, 0)) for size in sizes if isinstance(size, bytes)),
        shard=_whole(fields.get(3, 0)),
        offset=_whole(fields.get(4, 0)),
        size=_whole(fields.get(5, 0)),
        checksum=_whole(fields.get(6, 0)),
        sliced=7 in fields,
    )


def _whole(value: int | bytes) -> int:
    """A number that counts something; none of a real checkpoint needs more than 48 bits."""
    if isinstance(value, bytes) or value >> 48:
        raise ValueError("an entry of the index has an impossible number")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields."""
    view, at = memoryview(message), 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(view, at)
        else:
            length = {1: 8, 5: 4}.get(kind, len(view))
        content = bytes(view[at : at + length])
        if len(content) != length or kind not in {1, 2, 5}:
            raise ValueError("an entry of the index is damaged")
        at += length
        yield number, content if kind == 2 else int.from_bytes(content, "little")


def _handle(view: memoryview, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where what follows begins."""
    offset, at = _varint(view, at)
    size, at = _varint(view, at)
    return (offset, size), at


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, least significant first, and where what follows begins."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of the index does not end")


def _masked(content: bytes) -> int:
    """CRC-32C as LevelDB stores it: turned and shifted, so that checksums of checksums differ."""
    checksum = int(google_crc32c.value(content))
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
