"""The tree of verbs, and the options that stand before them."""

from __future__ import annotations

from typing import Annotated

import typer

import tnet_geo
from tnet_geo.cli import care, explain, manifest, model, pyramid, results
from tnet_geo.cli.classify import classify
from tnet_geo.cli.demo import demo
from tnet_geo.cli.endings import Flags
from tnet_geo.cli.estimate import estimate
from tnet_geo.cli.evaluate import evaluate
from tnet_geo.cli.groups import group
from tnet_geo.cli.train import train

__all__ = ["app"]

_HELP = """Classify sites in archives of imagery, reading only the pixels that matter.

Data goes to stdout, talk to stderr. Exit status: 0 done, 1 a defect, 2 wrong command line, 3 done but some
items are set aside, 4 refused before anything was written, 5 a check found something, 130 and 143 stopped.

Example: tnet-geo demo --out demo
"""

app = group(_HELP)
app.add_typer(manifest.app, name="manifest")
app.add_typer(pyramid.app, name="pyramid")
pyramid.app.command()(care.check)
pyramid.app.command()(care.repair)
pyramid.app.command()(care.export)
app.command()(train)
app.command()(evaluate)
app.command()(estimate)
app.command()(classify)
app.add_typer(results.app, name="results")
app.add_typer(explain.app, name="explain")
app.add_typer(model.app, name="model")
app.command()(demo)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tnet-geo {tnet_geo.__version__}")
        raise typer.Exit()


@app.callback()
def before(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take in the options that stand before the verb."""
    if isinstance(context.obj, Flags):
        context.obj.debug = debug
