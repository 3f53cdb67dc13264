"""Where sites are read from, whatever is there: an archive of ours, or COGs as they are."""

from __future__ import annotations

from pathlib import Path

from tnet_geo.pyramid.archive import SETTINGS_FILE, SceneArchive, open_archive
from tnet_geo.pyramid.cog_archive import SUFFIXES, open_cogs
from tnet_geo.pyramid.store import open_store

__all__ = ["open_scenes"]


def open_scenes(place: str | Path) -> SceneArchive:
    """The archive in a folder or bucket; where there is none, the COGs of the place: see `open_cogs`.

    >>> open_scenes("archive").canvas
    'native'

    Raises:
        InvalidArchive: neither is there, or the archive is of a version that this software does not read.
        PlaceUnusable: the place does not answer, or lets nobody in.
    """
    text = str(place)
    is_file = text.partition("?")[0].lower().endswith((*SUFFIXES, ".txt"))
    if is_file or text.startswith(("https://", "http://")):
        return open_cogs(text)
    if open_store(text).size(SETTINGS_FILE) is None:
        return open_cogs(text)
    return open_archive(text)
