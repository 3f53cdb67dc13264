"""Published weights become a bundle: read, hold against the network that they are for, save."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tnet_geo.errors import OutputExists, UsageError
from tnet_geo.model.bundle import Bundle
from tnet_geo.model.facts import BundleFacts
from tnet_geo.model.named import NamedModel, named_model
from tnet_geo.model.network import TraversalNetwork
from tnet_geo.model.published import load_published, read_variables
from tnet_geo.model.tensor_bundle import checkpoint_prefix

__all__ = ["KINDS", "ImportReport", "import_model"]

KINDS = {"tnet-fmow": "tnet_fmow", "efficientnet-fmow": "efficientnet_fmow"}
"""What can be imported, and the named model that it becomes."""


@dataclass(frozen=True)
class ImportReport:
    """What an import left behind."""

    bundle: Path
    kind: str
    variables: int
    """Read, all of which found their place."""
    parameters: int
    canvas: str
    classes: int


def import_model(
    checkpoint: str | Path, kind: str, out: str | Path, *, canvas_px: int | None = None
) -> ImportReport:
    """Make a bundle of published weights, whose classes, canvas and walk are the published ones.

    checkpoint: a TensorFlow 2 checkpoint (its folder, a prefix such as `run/ckpt-42`, or its index), or an
    `.npz` of its variables.
    kind: `tnet-fmow`, or `efficientnet-fmow`, the dense baseline.
    canvas_px: side of the canvas that the weights were trained on; 896 by default. For `tnet-fmow` it
    decides how deep walks go.

    Raises:
        UsageError: there is no such kind, or it has no such canvas.
        OutputExists: `out` is there.
        InvalidCheckpoint: it cannot be read, or its variables are not those of the network.
    """
    source, target = Path(checkpoint), Path(out)
    described = _described(kind, canvas_px)
    if target.exists():
        raise OutputExists(str(target))
    variables = read_variables(source)
    network = TraversalNetwork(described.network)
    baseline = load_published(network, variables, origin=str(source))
    facts = BundleFacts(
        classes=described.classes,
        canvas=described.canvas,
        reduction=described.reduction,
        network=described.network,
        walk=described.walk,
        training={"imported": kind, "checkpoint": source.name, "checkpoint_sha256": _digest(source)}
        | ({} if baseline is None else {"reward_baseline": baseline}),
    )
    Bundle(facts, network.eval()).save(target)
    parameters = sum(weight.numel() for weight in network.parameters())
    return ImportReport(target, kind, len(variables), parameters, facts.canvas, len(facts.classes))


def _described(kind: str, canvas_px: int | None) -> NamedModel:
    """The named model of a kind, on a canvas of another side where one is asked for."""
    if kind not in KINDS:
        raise UsageError(f"{kind} is no kind of published weights: name one of {', '.join(KINDS)}.")
    described = named_model(KINDS[kind])
    if canvas_px is None:
        return described
    network, walk = described.network, described.walk
    if network.location.form == "none":
        # Whole canvases in one look; an odd side has no half.
        depth, base_px = 0, canvas_px
        fits = canvas_px > 0 and canvas_px % 2 == 0
    else:
        base_px = network.base_px
        depth = (max(canvas_px, 1) // base_px).bit_length() - 1
        fits = depth > 0 and canvas_px == base_px * 2**depth
    if not fits:
        raise UsageError(f"{kind} has no canvas of {canvas_px} px: its sides are {_sides(described)}.")
    keep = tuple(walk.keep_at(step) for step in range(depth))
    return described.model_copy(
        update={
            "canvas": f"fit:{canvas_px}",
            "network": network.model_copy(update={"base_px": base_px, "depths": depth + 1}),
            "walk": walk.model_copy(update={"keep": keep}),
        }
    )


def _sides(described: NamedModel) -> str:
    base_px = described.network.base_px
    if described.network.location.form == "none":
        return "the even numbers"
    return f"{2 * base_px}, {4 * base_px}, {8 * base_px} and so on"


def _digest(source: Path) -> str:
    """sha256 of an `.npz`, or of an index, which holds the checksums of all numbers."""
    if source.suffix != ".npz":
        prefix = checkpoint_prefix(source)
        source = prefix.with_name(prefix.name + ".index")
    return hashlib.sha256(source.read_bytes()).hexdigest()
