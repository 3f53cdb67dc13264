"""Places of whole objects by key: what every kind can do, and folders of this machine."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["LocalStore", "Store", "checked_key", "draft_mark", "flush", "owner_lives"]


class Store(ABC):
    """Objects by key below one place. Picklable, and cheap to make: nothing is opened before it is used.

    A key is a relative path such as `scenes/a/zarr.json`. An object is seen whole or not at all.
    Names that begin with a dot are drafts: they can be read and removed, but are not listed.

    Raises, in every method that goes to the place:
        tnet_geo.errors.PlaceUnusable: the place does not answer, lets nobody in, or the bucket is not there.
    """

    local = False
    """Whether it is a folder of this machine."""

    def __init__(self, url: str) -> None:
        """Prefer `open_store`. `url` is an absolute folder or s3://bucket/prefix, without a last slash."""
        self.url = url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Store) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return type(self), (self.url,)

    def at(self, *names: str) -> Store:
        """The store of the objects below a folder of this one."""
        return type(self)("/".join([self.url, *(checked_key(name) for name in names)]))

    @property
    def name(self) -> str:
        """The last part of the place."""
        return self.url.rsplit("/", 1)[-1]

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """The content of an object; None if there is none."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Write an object, durably, in place of the one that may be there."""

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Write an object, durably, if there is none yet; of many writers one gets True.

        On an object store False may also mean that the answer to a first try, which had worked, was
        lost: compare the contents where that matters.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes of an object; None if there is none."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Keys, relative to the store, of all objects below the folder `prefix`, sorted."""
        return (key for key, _ in self.sizes(prefix))

    @abstractmethod
    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """The same keys with the bytes of their objects, from the listing itself."""

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """Names of the objects and folders directly below the folder `prefix`, sorted."""

    @abstractmethod
    def remove(self, prefix: str) -> None:
        """Remove an object, or a folder with all objects below it, drafts too; nothing there is fine."""

    @abstractmethod
    def kvstore(self, key: str) -> dict[str, Any]:
        """tensorstore's specification of the folder `key`."""


def checked_key(key: str) -> str:
    """`key`, if it stays below its store. Raises: ValueError."""
    if not key or any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(f"{key!r} is no relative path of plain names")
    return key


class LocalStore(Store):
    """Objects are files below a folder; an object is written under a draft's name and renamed."""

    local = True

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.url)

    def read(self, key: str) -> bytes | None:
        """Read a file; folders are none."""
        with _absent_is_none():
            return (self.path / checked_key(key)).read_bytes()
        return None

    def write(self, key: str, content: bytes) -> None:
        """Write a draft, flush it, rename it."""
        path = self.path / checked_key(key)
        with _drafted(path, content) as draft:
            draft.replace(path)

    def create(self, key: str, content: bytes) -> bool:
        """Write a draft, flush it, link it under the name."""
        path = self.path / checked_key(key)
        if path.exists():
            return False
        with _drafted(path, content) as draft:
            try:
                path.hardlink_to(draft)  # a rename would replace what another writer has put there
            except FileExistsError:
                return False
        return True

    def size(self, key: str) -> int | None:
        """From the file system."""
        path = self.path / checked_key(key)
        with _absent_is_none():
            return None if path.is_dir() else path.stat().st_size
        return None

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """By walking the folder."""
        folder = self.path / checked_key(prefix) if prefix else self.path
        return _walk(folder, f"{prefix}/" if prefix else "")

    def names(self, prefix: str = "") -> list[str]:
        """By listing the folder."""
        folder = self.path / checked_key(prefix) if prefix else self.path
        with _absent_is_none():
            return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
        return []

    def remove(self, prefix: str) -> None:
        """Unlink a file, or remove a folder."""
        path = self.path / checked_key(prefix)
        with _absent_is_none():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def kvstore(self, key: str) -> dict[str, Any]:
        """tensorstore's driver of files."""
        return {"driver": "file", "path": f"{self.url}/{key}/"}


def _absent_is_none() -> suppress:
    """Lets the body end early where nothing is there, or where a folder is meant as a file."""
    return suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError)


@contextmanager
def _drafted(path: Path, content: bytes) -> Iterator[Path]:
    """A flushed draft beside `path`; what the body does with it is flushed too, and the draft removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{draft_mark()}.partial")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    flush(path.parent)


def draft_mark() -> str:
    """A name, new each time, that says which process of which machine is at a draft.

    So what a killed process left can be told from what a living one is at: see `owner_lives`.
    """
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def owner_lives(mark: str) -> bool:
    """Whether the process of a mark may still be at its draft; of other machines nobody knows."""
    parts = re.fullmatch(r"(\w+)-(\d+)-\w+", mark)
    if parts is None or parts[1] != _host():
        return True
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _host() -> str:
    """This machine's name, without the characters that separate the parts of a mark."""
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())


def flush(path: Path) -> None:
    """Force one file, or the names in one folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Files below `folder`, their keys in order as strings: `a-b` comes before `a/b`."""
    found: dict[str, os.DirEntry[str]] = {}
    with _absent_is_none(), os.scandir(folder) as entries:
        found = {entry.name + "/" * entry.is_dir(): entry for entry in entries if entry.name[0] != "."}
    for name, entry in sorted(found.items()):
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name)
        else:
            with _absent_is_none():  # removed meanwhile
                yield prefix + name, entry.stat().st_size
