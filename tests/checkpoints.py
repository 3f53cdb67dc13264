"""Writes TensorFlow 2 checkpoints by the documented format, faults included; an oracle for the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

MAGIC = bytes.fromhex("57fb808b247547db")
Rows = Sequence[tuple[bytes, bytes]]
"""Keys and values of a block."""

FLOAT, INT64, STRING, BFLOAT16 = 1, 9, 7, 14


@dataclass(frozen=True)
class Stored:
    """One entry of a checkpoint, under its whole key."""

    content: bytes
    shape: tuple[int, ...] = ()
    dtype: int = FLOAT
    shard: int = 0
    checksum: int | None = None
    """Other than the true one."""
    size: int | None = None
    """Other than the true one."""
    more: bytes = b""
    """Fields of the entry beside those that every one has."""


def variable(name: str, array: np.ndarray, shard: int = 0) -> tuple[str, Stored]:
    """Key and entry of a model's variable as the published trainer saves it."""
    escaped = name.replace(".", "..").replace("/", ".S")
    stored = Stored(array.astype("<f4").tobytes(), tuple(array.shape), shard=shard)
    return f"{escaped}/.ATTRIBUTES/VARIABLE_VALUE", stored


def write(
    prefix: Path,
    entries: Mapping[str, Stored],
    *,
    shards: int = 1,
    rows_a_block: int = 3,
    compression: int = 0,
    big_endian: bool = False,
) -> Path:
    """Write `PREFIX.index`, its data files, and the `checkpoint` that names it."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data = [bytearray() for _ in range(shards)]
    rows = [(b"", message({1: shards, 2: int(big_endian)}))]
    for key, stored in sorted(entries.items()):
        shard = data[min(stored.shard, shards - 1)]
        rows.append((key.encode(), _entry(stored, len(shard))))
        shard += stored.content
    for n, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{n:05d}-of-{shards:05d}").write_bytes(content)
    groups = [rows[start : start + rows_a_block] for start in range(0, len(rows), rows_a_block)]
    prefix.with_name(prefix.name + ".index").write_bytes(table(groups, compression))
    (prefix.parent / "checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')
    return prefix


def table(groups: Sequence[Rows | bytes], compression: int = 0) -> bytes:
    """A table of LevelDB's format whose blocks hold these rows, or are these bytes."""
    content = bytearray()
    handles = []
    for rows in groups:
        block, last = (rows, b"z") if isinstance(rows, bytes) else (_block(rows), rows[-1][0])
        handles.append((last, _append(content, block, compression)))
    meta = _append(content, _block([]), 0)
    index = _append(content, _block(handles), 0)
    return bytes(content) + (meta + index).ljust(40, b"\0") + MAGIC


def varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def message(fields: Mapping[int, int | bytes]) -> bytes:
    """A protocol buffer of varints and byte strings."""
    parts = []
    for number, value in fields.items():
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


def masked(content: bytes) -> int:
    checksum = google_crc32c.value(content)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _entry(stored: Stored, offset: int) -> bytes:
    shape = b"".join(message({2: message({1: size})}) for size in stored.shape)
    size = len(stored.content) if stored.size is None else stored.size
    fields = message({1: stored.dtype, 2: shape, 3: stored.shard, 4: offset, 5: size})
    checksum = masked(stored.content) if stored.checksum is None else stored.checksum
    return fields + varint(6 << 3 | 5) + checksum.to_bytes(4, "little") + stored.more


def _append(content: bytearray, block: bytes, compression: int) -> bytes:
    """Put a block behind what is there; gives its handle."""
    handle = varint(len(content)) + varint(len(block))
    typed = block + bytes([compression])
    content += typed + masked(typed).to_bytes(4, "little")
    return handle


def _block(rows: Rows) -> bytes:
    """Keys without what they have in common with the one before, but for every other one: a restart."""
    content, restarts, before = bytearray(), [], b""
    for n, (key, value) in enumerate(rows):
        shared = 0
        if n % 2:
            while shared < min(len(before), len(key)) and before[shared] == key[shared]:
                shared += 1
        else:
            restarts.append(len(content))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    content += b"".join(place.to_bytes(4, "little") for place in restarts)
    return bytes(content) + len(restarts).to_bytes(4, "little")
