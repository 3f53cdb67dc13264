"""Places that stop to answer while a job runs: how that is told from damage, and how long it is borne."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from tnet_geo.errors import InvalidArchive, PlaceLost, PlaceUnusable, SourceUnreadable
from tnet_geo.imagery.remote import is_remote, object_of
from tnet_geo.pyramid import Archive, CogArchive, SceneArchive

__all__ = ["PAUSES", "is_servers", "patiently", "why_lost"]

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before another try; after the last one a place is lost."""
ASKED = 8
"""COGs of which one must be there for their place to be there."""

SERVER = re.compile(
    r"answers with an error|cannot be reached at"  # buckets, see `PlaceUnusable`
    r"|UNAVAILABLE|DEADLINE_EXCEEDED|HTTP response code: 5|SlowDown|InternalError"  # tensorstore
    r"|error sending request|[Tt]imed? ?out|[Cc]onnection (reset|refused|closed)|status(:| code:?)? 5\d\d"
)
"""In the reason of a failure: that a server did not do its work, which says nothing of what it keeps."""

Result = TypeVar("Result")


def is_servers(reason: str) -> bool:
    """Whether a server, not what it keeps, is the reason why a site cannot be read.

    >>> is_servers("s3://b/a answers with an error (SlowDown): look into the server's log.")
    True
    """
    return SERVER.search(reason) is not None


def why_lost(archive: SceneArchive) -> str | None:
    """Why the place of an archive does not answer; None while it does, whatever its scenes are like."""
    if isinstance(archive, CogArchive):
        return _why_no_cogs(archive)
    if not isinstance(archive, Archive):
        return None
    try:
        there = archive.store.size("archive.json") is not None
    except (OSError, PlaceUnusable) as error:
        return " ".join(str(error).split())
    return None if there else "its archive.json is gone"


def _why_no_cogs(archive: CogArchive) -> str | None:
    """One of a few that answers, be it with a refusal, is enough."""
    sources = list(archive.sources.values())
    cause = "it has no COG"
    for source in sources[:: max(1, len(sources) // ASKED)][:ASKED]:
        found = _why_no_cog(source)
        if found is None:
            return None
        cause = found
    return cause


def _why_no_cog(source: str) -> str | None:
    if not is_remote(source):
        return None if Path(source).exists() else f"{source} is gone"
    try:
        store, name = object_of(source)
        obstore.head(store, name)
    except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError):
        return None  # an answer, too
    except (BaseError, OSError, SourceUnreadable) as error:
        return " ".join(str(error).split())[:200]
    return None


def patiently(
    place: str,
    work: Callable[[], Result],
    pauses: Sequence[float] = PAUSES,
    *,
    on: tuple[type[Exception], ...] = (OSError, PlaceUnusable, InvalidArchive),
) -> Result:
    """What `work` gives; where `place` fails it, it is tried again after each of the pauses, in seconds.

    on: what `work` raises where the place fails it.

    Raises:
        PlaceLost: it failed after the last pause, too.
    """
    failed: tuple[type[Exception], ...] = (PlaceLost, *on)
    for pause in pauses:
        try:
            return work()
        except failed:
            time.sleep(pause)
    try:
        return work()
    except PlaceLost:
        raise
    except on as error:
        raise PlaceLost(place, " ".join(str(error).split())) from error
