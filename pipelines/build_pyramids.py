"""What a scheduler calls: `python -m pipelines.build_pyramids MANIFEST ARCHIVE`. Safe to repeat."""

from pathlib import Path

from tnet_geo import build_archive
from tnet_geo.cli.endings import call


def build_pyramids(
    manifest: Path,
    archive: str,
    scheduler: str | None = None,
    *,
    memory: str | None = None,
    packs: bool = False,
) -> int:
    """Every scene of the manifest gets its pyramid, in a folder or bucket; sealed ones are left alone."""
    report = build_archive(manifest, archive, scheduler=scheduler, memory=memory, packs=packs)
    return report.exit_code


if __name__ == "__main__":
    call(build_pyramids)
