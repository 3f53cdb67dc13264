"""What tells one content of a raster from another: a digest of its bytes, and its files' marks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tnet_geo.errors import SourceUnreadable
from tnet_geo.imagery.gdal import opened, told
from tnet_geo.imagery.remote import address_of, content_of, gdal_place, is_remote, remote_file

__all__ = ["DigestOf", "FileState", "source_digest", "source_files", "source_state"]

DigestOf = Literal["content", "etag"]

PIECE_BYTES = 1 << 20
_CONTAINERS = ("/vsizip/", "/vsitar/", "/vsigzip/", "/vsi7z/", "/vsirar/")


@dataclass(frozen=True, slots=True)
class FileState:
    """What changes when a file does, known without reading it."""

    place: str
    size: int
    mark: int | str
    """Time of the last change in ns, or the server's ETag (its date where it gives none)."""
    inode: int | None
    """None on a server."""


def source_files(source: str) -> list[str]:
    """All files of a raster, sidecars and the sources of a VRT too, as paths and addresses by their names.

    Raises:
        SourceUnreadable: it cannot be opened, or lies where its bytes cannot be had.
    """

    def places() -> list[str]:
        with opened(source) as dataset:
            return list(dataset.files) or [gdal_place(source)]

    files = {file for place in told(source, places) if (file := _file_of(place, source)) is not None}
    return sorted(files, key=lambda file: (file.rsplit("/", 1)[-1], file))


def source_digest(source: str, digest_of: DigestOf = "content", *, files: Sequence[str] | None = None) -> str:
    """sha256, in hex, over the bytes of all files of a raster, in the order of their names.

    Folders and servers do not count: a moved archive is the same archive. With `digest_of="etag"`,
    size and ETag stand for the bytes of remote files, which are then not read. `files` are those of
    the source where they are known: it is not opened then.

    Raises:
        SourceUnreadable: it cannot be opened, one of its files cannot be read, or has no ETag.
    """
    digest = hashlib.sha256()
    for file in source_files(source) if files is None else files:
        if digest_of == "etag" and is_remote(file):
            digest.update(_etag(file, source))
            continue
        for piece in content_of(file) if is_remote(file) else _pieces(file, source):
            digest.update(piece)
    return digest.hexdigest()


def source_state(source: str, *, files: Sequence[str] | None = None) -> tuple[FileState, ...]:
    """The state of all files of a raster: two are equal as long as nobody wrote to any of them.

    `files` are those of the source where they are known: it is not opened then.

    Raises:
        SourceUnreadable: it cannot be opened, or one of its files is gone.
    """
    return tuple(_state(file, source) for file in (source_files(source) if files is None else files))


def _state(file: str, source: str) -> FileState:
    if is_remote(file):
        there = remote_file(file)
        return FileState(file, there.size, there.etag or there.modified, None)
    try:
        found = Path(file).stat()
    except OSError as error:
        cause = f"{Path(file).name}: {error.strerror}"
    else:
        return FileState(file, found.st_size, found.st_mtime_ns, found.st_ino)
    raise SourceUnreadable(source, cause)


def _etag(file: str, source: str) -> bytes:
    there = remote_file(file)
    if there.etag is None:
        raise SourceUnreadable(source, "its server gives no ETag: take the digest of its content")
    return f"{there.size} {there.etag}\n".encode()


def _pieces(file: str, source: str) -> Iterator[memoryview]:
    """The bytes of a local file, in one buffer."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    try:
        with Path(file).open("rb", buffering=0) as stream:
            while length := stream.readinto(buffer):
                yield buffer[:length]
            return
    except OSError as error:
        cause = f"{Path(file).name}: {error.strerror}"
    raise SourceUnreadable(source, cause)


def _file_of(place: str, source: str) -> str | None:
    """The path or address behind one of GDAL's names of files; None for folders, whose files stand beside.

    Raises:
        SourceUnreadable: its bytes are out of reach, so that a change of it would not be seen.
    """
    address = address_of(place)
    if address is not None:
        return address
    path = Path(place)
    for container in _CONTAINERS:
        if place.startswith(container):
            path = Path(place.removeprefix(container).strip("{}"))
            while not path.is_file() and path != path.parent:
                path = path.parent
    if path.is_file():
        return str(path)
    if path.is_dir():
        return None
    cause = (
        f"the bytes of {place} cannot be read"
        if place.startswith("/vsi")
        else f"its source {place} is missing"
    )
    raise SourceUnreadable(source, cause)
