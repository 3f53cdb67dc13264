"""`tnet-geo explain SITE`, `tnet-geo explain verify`: where an answer comes from, and the proof of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

import tnet_geo
from tnet_geo.cli.groups import group
from tnet_geo.cli.show import show, write_new

__all__ = ["app"]

app = group(
    "Say where answers come from, and prove it. `explain SITE` means `explain site SITE`.", usual="site"
)

ResultsFolder = Annotated[Path, Option("--results", metavar="RESULTS", help="What classify wrote.")]
Run = Annotated[str | None, Option(help="Which run of them; the latest by default.")]
Archive = Annotated[str | None, Option(help="Archive, if it has moved since.")]
AsJson = Annotated[bool, Option("--json", help="Print the report as JSON.")]


@app.command()
def site(
    site: Annotated[str, Argument(metavar="SITE", help="Id of a site.")],
    results: ResultsFolder,
    run: Run = None,
    archive: Archive = None,
    out: Annotated[Path | None, Option("--out", "-o", help="PNG to draw the walk to.")] = None,
    json: AsJson = False,
) -> None:
    """Print one walk as a tree, and draw it.

    Every look with its tile, its footprint in native pixels, the probability that it was chosen with, the
    logarithm of that of its path, and what it adds to the logit of the answer: bias and evidence sum to it.

    Example: tnet-geo explain SITE --results RESULTS -o walk.png
    """
    from tnet_geo.results.explanation import explain

    stored = tnet_geo.Results.open(results, run)
    explanation = explain(stored, site)
    if out is not None:
        from tnet_geo.results.drawing import picture

        write_new(out, picture(stored, site, archive=archive))
    show(explanation, as_json=json)


@app.command()
def verify(
    results: ResultsFolder,
    archive: Archive = None,
    bundle: Annotated[Path | None, Option(help="Bundle, if it has moved since.")] = None,
    run: Run = None,
    sites: Annotated[int, Option(help="How many, drawn at random.", min=1)] = 12,
    seed: Annotated[int, Option(help="Other seed, other sites and noise.", min=0)] = 0,
    device: Annotated[str | None, Option(help="auto, cpu, cuda, cuda:1; that of the run by default.")] = None,
    json: AsJson = False,
) -> None:
    """Prove that no answer depends on a pixel outside its trail.

    Some sites are answered again from temporary copies of their scenes in which every chunk that no trail
    of theirs names holds random noise. Every number must be the same, bit by bit. Exit status 5 where one
    is not, and where tiles were read that no trail names.

    Example: tnet-geo explain verify --results RESULTS --sites 20
    """
    from tnet_geo.operations.evidence.explaining import verify_walks

    proof = verify_walks(
        results, run=run, archive=archive, bundle=bundle, sites=sites, seed=seed, device=device
    )
    show(proof, as_json=json)
    raise Exit(proof.exit_code)
