"""Rasters at https:// and s3:// addresses: how GDAL reaches them, what a server says of them, their bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import HTTPStore, S3Store

from tnet_geo.errors import SourceUnreadable

__all__ = [
    "RemoteFile",
    "address_of",
    "check_keys",
    "content_of",
    "gdal_place",
    "gdal_settings",
    "is_remote",
    "object_of",
    "piece_of",
    "remote_file",
]

PIECE_BYTES = 4 << 20
RETRIES = 5
_SCHEMES = ("https://", "http://", "s3://")
_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What a server says of a file without sending it."""

    size: int
    etag: str | None
    """The server's mark of this content; None from servers that give none."""
    modified: str
    """Time of the last change as the server tells it, ISO 8601."""


def is_remote(source: str) -> bool:
    """Whether a source is an address of a server."""
    return source.startswith(_SCHEMES)


def gdal_place(source: str) -> str:
    """The name by which GDAL opens a source; paths are their own.

    >>> gdal_place("s3://imagery/scene.tif")
    '/vsis3/imagery/scene.tif'
    """
    if source.startswith("s3://"):
        return "/vsis3/" + source.removeprefix("s3://")
    if source.startswith("file://"):
        return unquote(urlsplit(source).path)
    return "/vsicurl/" + source if is_remote(source) else source


def address_of(place: str) -> str | None:
    """The address behind one of GDAL's names of remote files; None for others.

    >>> address_of("/vsicurl/https://host/scene.tif")
    'https://host/scene.tif'
    """
    if place.startswith("/vsis3/"):
        return "s3://" + place.removeprefix("/vsis3/")
    return place.removeprefix("/vsicurl/") if place.startswith("/vsicurl/") else None


def gdal_settings(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """GDAL's options for remote files; the keys to buckets it finds in the environment by itself.

    Sidecars are looked for one by one, never by listing a folder, which may hold a million files.
    """
    settings: dict[str, Any] = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
        "GDAL_HTTP_MAX_RETRY": 5,
        "GDAL_HTTP_RETRY_DELAY": 0.5,
        "GDAL_HTTP_CONNECTTIMEOUT": 10,
        "GDAL_HTTP_LOW_SPEED_TIME": 60,  # seconds without a byte a second
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        # A file that was replaced must not be answered from what a long-lived worker remembers of it.
        "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/",
    }
    endpoint = _endpoint(environment)
    if endpoint is not None:
        parts = urlsplit(endpoint)
        settings["AWS_S3_ENDPOINT"] = parts.netloc + parts.path
        settings["AWS_HTTPS"] = "NO" if parts.scheme == "http" else "YES"
        settings["AWS_VIRTUAL_HOSTING"] = "FALSE"
    settings["AWS_REGION"] = _region(environment)
    if _unsigned(environment):
        settings["AWS_NO_SIGN_REQUEST"] = "YES"
    return settings


def remote_file(address: str) -> RemoteFile:
    """Size, ETag and date of a remote file, by one request.

    Raises:
        SourceUnreadable: it is not there, or its server does not answer.
    """
    with _told(address):
        store, name = object_of(address)
        head = obstore.head(store, name)
    return RemoteFile(head["size"], head["e_tag"], head["last_modified"].isoformat())


def content_of(address: str) -> Iterator[memoryview]:
    """The bytes of a remote file, a few megabytes at a time.

    Raises:
        SourceUnreadable: it is not there, or its server stopped to answer.
    """
    with _told(address):
        store, name = object_of(address)
        for piece in obstore.get(store, name).stream(min_chunk_size=PIECE_BYTES):
            yield memoryview(piece)


def piece_of(address: str, start: int, length: int) -> bytes:
    """Up to `length` bytes of a remote file from `start`; a negative start counts from the end.

    Raises:
        SourceUnreadable: it is not there, or its server does not answer.
    """
    size = remote_file(address).size
    first = max(0, size + start) if start < 0 else start
    last = min(size, first + length)
    if first >= last:
        return b""
    with _told(address):
        store, name = object_of(address)
        return bytes(obstore.get_range(store, name, start=first, end=last))


@contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        # The first line says what; what follows are the client's own structures.
        cause = str(error).strip().split("\n", 1)[0]
        cause = re.sub(r"\s+", " ", re.sub(r"^Generic \w+ error: ", "", cause))
    else:
        return
    raise SourceUnreadable(address, cause)


def object_of(address: str, retries: int = RETRIES) -> tuple[HTTPStore | S3Store, str]:
    """A client and what it calls the file; `retries` of 0 for callers who count requests themselves."""
    if address.startswith("s3://"):
        bucket, _, key = address.removeprefix("s3://").partition("/")
        place = _region(os.environ), _endpoint(os.environ), _identity(address)
        return _bucket(bucket, *place, retries), key
    parts = urlsplit(address)
    folder, _, name = parts.path.rpartition("/")
    # A query, such as that of a signed address, stays with the folder: the client hands it on.
    server = urlunsplit((parts.scheme, parts.netloc, folder or "/", parts.query, ""))
    return _server(server, retries), unquote(name)


def _patience(retries: int) -> Any:
    return {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=60),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
    }


@lru_cache(maxsize=16)
def _server(folder: str, retries: int) -> HTTPStore:
    options: Any = {"connect_timeout": "10s", "timeout": "600s"}
    options["allow_http"] = folder.startswith("http://")
    return HTTPStore.from_url(folder, client_options=options, retry_config=_patience(retries))


@lru_cache(maxsize=16)
def _bucket(
    bucket: str, region: str, endpoint: str | None, identity: tuple[str, ...], retries: int
) -> S3Store:
    options: Any = {"connect_timeout": "10s", "timeout": "600s"}
    options["allow_http"] = (endpoint or "").startswith("http://")
    place: dict[str, Any] = {"region": region, "skip_signature": not identity}
    names = ("access_key_id", "secret_access_key", "session_token")
    place |= {name: value for name, value in zip(names, identity, strict=False) if value}
    if endpoint:
        place["endpoint"] = endpoint
    return S3Store(
        bucket,
        virtual_hosted_style_request=False,
        client_options=options,
        retry_config=_patience(retries),
        **place,
    )


def _endpoint(environment: Mapping[str, str]) -> str | None:
    """The server's address; None means Amazon's own."""
    address = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    return address.rstrip("/") if address else None


def _region(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"


def check_keys(source: str) -> None:
    """Refuse a bucket that nobody has keys for: clients would ask the machine's own network for some.

    Raises: SourceUnreadable.
    """
    if source.startswith("s3://"):
        _identity(source)


def _identity(address: str) -> tuple[str, ...]:
    """Key, secret and session token; nothing for requests without a signature. Raises: SourceUnreadable."""
    if _unsigned(os.environ):
        return ()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    keys = tuple(os.environ.get(name, "") for name in names)
    if not (keys[0] and keys[1]):
        raise SourceUnreadable(
            address,
            "the environment has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, nor AWS_NO_SIGN_REQUEST=yes",
        )
    return keys


def _unsigned(environment: Mapping[str, str]) -> bool:
    """Whether requests go without a signature, to buckets that are open to all."""
    names = ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE")
    return any(environment.get(name, "").lower() in _TRUE for name in names)
