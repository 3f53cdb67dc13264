"""What killed commands left in an archive, told apart from what living ones are at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tnet_geo.pyramid.places import LocalStore, Store, owner_lives

__all__ = ["Litter", "litter"]

FOLDERS = ("", "catalogue", "packs", "scenes")
"""Where drafts lie beside what they will be."""
SUFFIXES = {".draft", ".partial"}


@dataclass(frozen=True, slots=True)
class Litter:
    """Drafts, by their path in the archive."""

    dead: tuple[tuple[str, str], ...]
    """Path and cause: nobody will finish these."""
    living: tuple[str, ...]
    """A process of this machine is at it, or one of another machine, of which nobody knows."""


def litter(store: Store) -> Litter:
    """The drafts that lie in an archive. Object stores have none: there everything has its final name."""
    if not isinstance(store, LocalStore):
        return Litter((), ())
    dead, living = [], []
    for path in _drafts(store.path):
        name = path.relative_to(store.path).as_posix()
        if owner_lives(path.stem.rsplit(".", 1)[-1]):
            living.append(name)
        else:
            dead.append((name, "left by a command that was killed"))
    return Litter(tuple(sorted(dead)), tuple(sorted(living)))


def _drafts(archive: Path) -> Iterator[Path]:
    """`.NAME.MARK.draft` and `.MARK.partial`, where MARK names the process."""
    for folder in FOLDERS:
        yield from (path for path in (archive / folder).glob(".*") if path.suffix in SUFFIXES)
