"""`tnet-geo model info|verify|import`: bundles, looked at and made of published weights."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from tnet_geo.cli.classify import Precision, Runtime
from tnet_geo.cli.groups import group
from tnet_geo.cli.show import show

__all__ = ["app"]

app = group("Look at trained models, and make bundles of published weights.")

AsJson = Annotated[bool, Option("--json", help="Print the report as JSON.")]


class Kind(StrEnum):
    """Published networks whose weights can be read."""

    tnet_fmow = "tnet-fmow"
    efficientnet_fmow = "efficientnet-fmow"


@app.command()
def info(
    model: Annotated[
        str, Argument(metavar="BUNDLE", help="Folder of a bundle, or name of a described model: tnet_fmow.")
    ],
    json: AsJson = False,
) -> None:
    """Say what a bundle is, what it expects and what it costs.

    Classes, pixels, walk, parameters, and the multiply-accumulates of a look and of walks. No weights are
    read. Models of configs/models are described by their names.

    Example: tnet-geo model info BUNDLE
    """
    from tnet_geo.operations.verification import model_info

    show(model_info(model), as_json=json)


@app.command()
def verify(
    bundle: Annotated[Path, Argument(metavar="BUNDLE", help="Folder of a bundle.")],
    runtime: Annotated[Runtime, Option(help="What computes looks.")] = Runtime.folded,
    precision: Annotated[Precision, Option(help="Of that.")] = Precision.float32,
    device: Annotated[str, Option(help="Where: cpu, cuda, cuda:1.")] = "cpu",
    json: AsJson = False,
) -> None:
    """Hold a bundle against what it says of itself.

    The digest of every file, and the answers kept in it against those that it gives here, by the runtime
    that is asked for. Exit status 5 if anything differs. Nothing is changed.

    Example: tnet-geo model verify BUNDLE
    """
    from tnet_geo.operations.verification import verify_bundle

    report = verify_bundle(bundle, runtime=runtime.value, precision=precision.value, device=device)
    show(report, as_json=json)
    raise Exit(report.exit_code)


@app.command(name="import")
def import_(
    checkpoint: Annotated[
        Path, Argument(metavar="CHECKPOINT", help="TensorFlow 2 checkpoint, or an .npz of its variables.")
    ],
    kind: Annotated[Kind, Option(help="Which published network the weights are of.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder of the bundle to write.")],
    canvas: Annotated[
        int | None, Option(help="Side of the canvas in pixels that it was trained on; default 896.", min=1)
    ] = None,
    json: AsJson = False,
) -> None:
    """Make a bundle of published weights.

    Every variable that is missing, unexpected or of another shape is named. TensorFlow is not needed.

    Example: tnet-geo model import CHECKPOINT --kind tnet-fmow -o BUNDLE
    """
    from tnet_geo.operations.importing import import_model

    show(import_model(checkpoint, kind.value, out, canvas_px=canvas), as_json=json)
