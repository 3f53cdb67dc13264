"""`tnet-geo demo`: the whole journey on scenes made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from tnet_geo.cli.progress import progress
from tnet_geo.cli.show import show

__all__ = ["demo"]


def demo(
    out: Annotated[Path, Option("--out", "-o", help="Folder for all that is written.")] = Path("demo"),
    seed: Annotated[int, Option(help="Other seed, other scenes and weights.")] = 0,
    sites: Annotated[int | None, Option(help="How many scenes.", min=1)] = None,
    side_px: Annotated[int, Option(help="Side of a scene, in pixels.", min=64)] = 512,
    json: Annotated[bool, Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Run the whole journey on scenes made here.

    Makes scenes whose small objects decide the class, then runs manifest, pyramid build, train, evaluate,
    classify and report on them. Nothing is fetched. Stopped or killed, the same command goes on.

    Example: tnet-geo demo --out demo --seed 1
    """
    from tnet_geo.demo import run_demo

    with progress("scenes") as bar:
        report = run_demo(out, seed=seed, sites=sites, side_px=side_px, progress=bar, say=bar.say)
    show(report, as_json=json)
