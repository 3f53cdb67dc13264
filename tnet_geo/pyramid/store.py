"""Places where archives lie: folders, and prefixes of S3-compatible buckets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tnet_geo.errors import PlaceUnusable
from tnet_geo.pyramid.object_store import ObjectStore
from tnet_geo.pyramid.places import LocalStore, Store

__all__ = ["LocalStore", "ObjectStore", "Store", "open_store"]


def open_store(place: str | Path) -> Store:
    """The store at a path, file:// or s3:// address; nothing is read or made yet.

    >>> open_store("s3://imagery/pyramids/").at("scenes").url
    's3://imagery/pyramids/scenes'

    Raises:
        PlaceUnusable: the address is of another kind, or incomplete.
    """
    text = str(place)
    if text.startswith("s3://"):
        names = [name for name in text.removeprefix("s3://").split("/") if name]
        if not names:
            raise PlaceUnusable(text, "names no bucket", "name s3://bucket/prefix")
        return ObjectStore("s3://" + "/".join(names))
    if text.startswith("file://"):
        return LocalStore(unquote(urlsplit(text).path).rstrip("/"))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise PlaceUnusable(text, "is no place for an archive", "name a folder or s3://bucket/prefix")
    return LocalStore(os.path.abspath(text))
