"""From a draft to a sealed scene: nothing that is half-written is ever seen under its final name."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tnet_geo.pyramid.layout import read_layout

__all__ = ["draft_folder", "seal_all", "sweep_drafts"]

FLUSHERS = 8
"""Files flushed to disk at once: a journal commits for all of them together."""


def draft_folder(scenes: Path, scene_id: str) -> Path:
    """The name, new each time, of a folder for a scene that is not sealed yet.

    It says which process of which machine owns it, so that what a killed one left can be told from
    what a living one is at.
    """
    return scenes / f".{scene_id}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.draft"


def _host() -> str:
    """This machine's name, without the characters that separate the parts of a draft's name."""
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())


def seal_all(drafts: Sequence[tuple[Path, str]]) -> None:
    """Move finished drafts, pairs of folder and digest, to their scenes' names beside them.

    All bytes are on disk before the first rename. A scene that another process has sealed with the
    same digest meanwhile is kept, and the draft dropped; one with another digest is replaced.
    """
    files = (
        Path(folder, name) for draft, _ in drafts for folder, _, names in os.walk(draft) for name in names
    )
    with ThreadPoolExecutor(FLUSHERS) as flushers:
        list(flushers.map(_flush, files))
    for draft, digest in drafts:
        _publish(draft, digest)
    for scenes in {draft.parent for draft, _ in drafts}:
        _flush(scenes)


def _publish(draft: Path, digest: str) -> None:
    """Rename one flushed draft."""
    scene_id = draft.name[1:].rsplit(".", 2)[0]
    final = draft.parent / scene_id
    while True:
        try:
            draft.rename(final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _sealed_as(final, digest):
            shutil.rmtree(draft)
            return
        outdated = draft_folder(draft.parent, scene_id)
        final.rename(outdated)
        shutil.rmtree(outdated)


def _sealed_as(scene: Path, digest: str) -> bool:
    """Whether a scene is sealed with this digest."""
    try:
        return read_layout(scene).digest == digest
    except (OSError, ValueError):
        return False


def _flush(path: Path) -> None:
    """Force one file, or the names in one folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_drafts(scenes: Path) -> int:
    """Remove the drafts of processes of this machine that no longer live; how many there were."""
    drafts = [path for path in scenes.iterdir() if path.name.startswith(".") and path.suffix == ".draft"]
    dead = [path for path in drafts if not _owner_lives(path)]
    for path in dead:
        shutil.rmtree(path, ignore_errors=True)
    return len(dead)


def _owner_lives(draft: Path) -> bool:
    """Whether the process that made a draft may still be at it; of other machines nobody knows."""
    host, pid, _ = draft.name.rsplit(".", 2)[1].split("-")
    if host != _host():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
