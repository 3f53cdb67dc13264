"""What a scheduler calls: `python -m pipelines.classify ARCHIVE MANIFEST BUNDLE RESULTS`. Safe to repeat."""

from pathlib import Path

from tnet_geo import classify as classify_sites
from tnet_geo.cli.endings import call


def classify(
    archive: str,
    manifest: Path,
    bundle: Path,
    results: Path,
    *,
    scheduler: str | None = None,
    device: str = "auto",
) -> int:
    """Every site of the manifest gets its answer or its reason."""
    report = classify_sites(
        archive=archive, manifest=manifest, bundle=bundle, out=results, scheduler=scheduler, device=device
    )
    return report.exit_code


if __name__ == "__main__":
    call(classify)
