"""An archive: a folder of sealed pyramids that share their settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from tnet_geo.errors import ArchiveMismatch, InvalidArchive, OutputExists, SceneMissing
from tnet_geo.imagery import Site
from tnet_geo.pyramid.layout import SEAL, read_layout
from tnet_geo.pyramid.reader import SceneReader
from tnet_geo.pyramid.settings import FORMAT, VERSION, ArchiveSettings
from tnet_geo.pyramid.tiles import TileReader

__all__ = ["Archive", "SceneArchive", "create_archive", "open_archive"]

SETTINGS_FILE = "archive.json"


class SceneArchive(Protocol):
    """Where the pixels of sites are kept, whatever the form: what a walk needs of it."""

    @property
    def place(self) -> str:
        """An absolute path, or a URL: what `open_archive` opens it by."""
        ...

    @property
    def canvas(self) -> str:
        """`native`, or the square that each site was resampled to."""
        ...

    def check_lattice(self, half_px: int) -> None:
        """Refuse a lattice step that this archive cannot serve. Raises: ArchiveMismatch."""
        ...

    def adopt(self, site: Site) -> Site:
        """The site as it is kept here: its scene_id and window. Raises: SceneMissing."""
        ...

    def reader(self, scene_id: str, half_px: int | None = None) -> TileReader:
        """Tiles of one scene. Raises: SceneMissing, TileUnreadable, ArchiveMismatch."""
        ...

    def digest(self, scene_id: str) -> str | None:
        """What names the content of a scene; None if there is none."""
        ...


class Archive:
    """The pyramids of many scenes. Cheap to open, picklable; scenes are looked up when asked for."""

    def __init__(self, path: Path, settings: ArchiveSettings) -> None:
        """Prefer `open_archive` and `create_archive`, which check what is there."""
        self.path = Path(os.path.abspath(path))
        self.settings = settings

    def __repr__(self) -> str:
        return f"Archive({str(self.path)!r}, half_px={self.settings.half_px})"

    @property
    def place(self) -> str:
        """The folder, absolute."""
        return str(self.path)

    @property
    def canvas(self) -> str:
        """How sites lie in their scenes."""
        return self.settings.canvas

    def check_lattice(self, half_px: int) -> None:
        """Refuse a lattice step that is no multiple of the stored one. Raises: ArchiveMismatch."""
        if half_px % self.settings.half_px:
            wants = f"half_px {half_px} or a divisor of it"
            raise ArchiveMismatch(self.place, f"half_px {self.settings.half_px}", wants)

    def adopt(self, site: Site) -> Site:
        """The site as it is kept here."""
        return site

    @property
    def scenes(self) -> Path:
        """The folder of scenes."""
        return self.path / "scenes"

    def reader(self, scene_id: str, half_px: int | None = None) -> SceneReader:
        """Tiles of one scene on its stored lattice, or on that of a multiple `half_px`.

        Raises:
            SceneMissing: no sealed scene has this id.
            TileUnreadable: its seal is damaged.
            ArchiveMismatch: `half_px` is no multiple of the archive's.
        """
        if Path(scene_id).name != scene_id:  # an id that would leave the folder of scenes
            raise SceneMissing(scene_id, str(self.path))
        return SceneReader(self.scenes / scene_id, half_px)

    def has(self, scene_id: str) -> bool:
        """Whether a sealed scene has this id."""
        return (self.scenes / scene_id / SEAL).is_file()

    def digest(self, scene_id: str) -> str | None:
        """What names the content of a sealed scene; None if there is none, or its seal is damaged."""
        try:
            return read_layout(self.scenes / scene_id).digest
        except (OSError, ValueError):
            return None

    def scene_ids(self) -> Iterator[str]:
        """Ids of all sealed scenes, sorted."""
        names = sorted(path.name for path in self.scenes.iterdir()) if self.scenes.is_dir() else []
        return (name for name in names if not name.startswith(".") and self.has(name))


def open_archive(path: str | Path) -> Archive:
    """The archive in folder `path`.

    >>> open_archive("archive").settings.half_px
    16

    Raises:
        InvalidArchive: the folder is none, or of a version that this software does not read.
    """
    folder = Path(path)
    try:
        facts = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        kind, version = facts.pop("format"), facts.pop("version")
    except FileNotFoundError as error:
        raise InvalidArchive(str(folder), f"has no {SETTINGS_FILE}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArchive(str(folder), f"has an unreadable {SETTINGS_FILE}") from error
    if (kind, version) != (FORMAT, VERSION):
        what = f"has format {kind!r} version {version}, and this software reads {FORMAT!r} version {VERSION}"
        raise InvalidArchive(str(folder), what)
    try:
        return Archive(folder, ArchiveSettings.model_validate(facts))
    except ValidationError as error:
        names = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise InvalidArchive(str(folder), f"has an impossible value in {SETTINGS_FILE} ({names})") from error


def create_archive(path: str | Path, settings: ArchiveSettings) -> Archive:
    """The archive in folder `path`, made if there is none.

    Raises:
        ArchiveMismatch: it is there with other settings.
        OutputExists: the path is a file, or a folder that holds something else.
        InvalidArchive: it is an archive of a version that this software does not read.
    """
    folder = Path(path)
    if (folder / SETTINGS_FILE).exists():
        archive = open_archive(folder)
        if archive.settings != settings:
            has, wants = archive.settings.model_dump(), settings.model_dump()
            differ = [key for key in wants if has[key] != wants[key]]
            texts = (", ".join(f"{key} {side[key]}" for key in differ) for side in (has, wants))
            raise ArchiveMismatch(str(folder), *texts)
        return archive
    draft = folder / f".{SETTINGS_FILE}"
    if folder.exists() and (not folder.is_dir() or any(path != draft for path in folder.iterdir())):
        raise OutputExists(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"format": FORMAT, "version": VERSION, **settings.model_dump()}
    draft.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / SETTINGS_FILE)
    return Archive(folder, settings)
