"""What a scheduler calls: `python -m pipelines.build_pyramids MANIFEST ARCHIVE`. Safe to repeat."""

from pathlib import Path

from tnet_geo import build_archive
from tnet_geo.cli.endings import call


def build_pyramids(manifest: Path, archive: Path, scheduler: str | None = None) -> int:
    """Every scene of the manifest gets its pyramid; those that are sealed are left alone."""
    return build_archive(manifest, archive, scheduler=scheduler).exit_code


if __name__ == "__main__":
    call(build_pyramids)
