"""An archive around another one, for whoever wants to know what is asked of it."""

from __future__ import annotations

from tnet_geo.imagery import Site
from tnet_geo.pyramid import SceneArchive

__all__ = ["ArchiveAround"]


class ArchiveAround:
    """Otherwise the archive that it was made of; what is around it says what its readers are."""

    def __init__(self, archive: SceneArchive) -> None:
        self._archive = archive

    @property
    def place(self) -> str:
        """Of the archive."""
        return self._archive.place

    @property
    def canvas(self) -> str:
        """Of the archive."""
        return self._archive.canvas

    def check_lattice(self, half_px: int) -> None:
        """See `SceneArchive`."""
        self._archive.check_lattice(half_px)

    def adopt(self, site: Site) -> Site:
        """See `SceneArchive`."""
        return self._archive.adopt(site)

    def digest(self, scene_id: str) -> str | None:
        """See `SceneArchive`."""
        return self._archive.digest(scene_id)
