"""What a scheduler calls: `python -m pipelines.nightly MANIFEST ARCHIVE BUNDLE RESULTS`. Safe to repeat."""

from pathlib import Path

from tnet_geo import Results, build_archive, classify
from tnet_geo.cli.endings import call
from tnet_geo.results.report import write_report


def nightly(manifest: Path, archive: Path, bundle: Path, results: Path) -> int:
    """What is new in the manifest gets pyramids and answers; the page beside the results is written anew."""
    built = build_archive(manifest, archive)
    answered = classify(archive=archive, manifest=manifest, bundle=bundle, out=results)
    write_report(Results.open(results), results.with_suffix(".html"))
    return max(built.exit_code, answered.exit_code)


if __name__ == "__main__":
    call(nightly)
