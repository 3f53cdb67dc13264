"""`model info` and `model verify`: what a bundle is, what it costs, and whether it is still itself here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tnet_geo.errors import InvalidBundle, RuntimeUnusable
from tnet_geo.inference.runtimes import Precision, Runtime, prepared
from tnet_geo.model.bundle import file_digest, network_shapes, read_bundle, read_facts, read_golden_of
from tnet_geo.model.counting import LookMacs, look_macs, parameters, shapes_of, walk_macs
from tnet_geo.model.facts import BUNDLE_FILES, BundleFacts
from tnet_geo.model.golden import SITES, Deviation, deviations
from tnet_geo.model.named import named_model
from tnet_geo.model.network import TraversalNetwork

__all__ = ["ModelInfo", "Verification", "WalkCost", "model_info", "verify_bundle"]


@dataclass(frozen=True)
class WalkCost:
    """The most that a walk down to a depth can cost."""

    depths: int
    side_px: int | None
    """Of the site, at native resolution, that such a walk ends in; None for windows off the lattice."""
    looks: int
    macs: int


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, what it expects and what it costs."""

    model: str
    """Folder of the bundle, or name of a described model, which has no weights."""
    digest: str | None
    facts: dict[str, Any]
    """As in `bundle.toml`."""
    parameters: int
    look: LookMacs
    walks: tuple[WalkCost, ...]
    file_bytes: dict[str, int]

    def lines(self) -> list[str]:
        """One line per fact."""
        facts = BundleFacts.model_validate(self.facts)
        network, pixels = facts.network, facts.network.pixels
        rows: list[tuple[str, object]] = [
            ("model", self.model),
            ("digest", self.digest or "none, it has no weights"),
            ("classes", f"{len(facts.classes)}: {', '.join(facts.classes)}"),
            ("backbone", f"{network.backbone}, tiles of {network.base_px} px, tap {network.location.tap}"),
            ("pixels", f"{pixels.bands} bands of {pixels.dtype}, canvas {facts.canvas}"),
            ("reduction", facts.reduction),
            ("mean", _numbers(pixels.mean)),
            ("std", _numbers(pixels.std)),
            ("value range", _numbers(facts.value_range or ()) or "not known"),
            ("GSD in m", _numbers(facts.gsd_m or ()) or "not georeferenced"),
            ("walk", f"{facts.walk.policy}, keep {facts.walk.keep}, at most {network.depths} depths trained"),
            ("aggregation", network.aggregation),
            ("temperature", f"{facts.temperature:.4g}"),
            ("parameters", f"{self.parameters:,}"),
            ("MACs of a look", _macs_words(self.look.look)),
            ("MACs of a choice", _macs_words(self.look.location)),
        ]
        rows += [(f"walk to depth {walk.depths - 1}", _cost_words(walk)) for walk in self.walks]
        rows += [(f"trained {key}", value) for key, value in facts.training.items()]
        rows += [(key, f"{value:.4g}") for key, value in facts.metrics.items()]
        rows += [(name, f"{size:,} bytes") for name, size in self.file_bytes.items()]
        width = max(len(name) for name, _ in rows)
        return [f"{name:{width}}  {value}" for name, value in rows]


def model_info(model: str | Path) -> ModelInfo:
    """What the bundle in a folder is; or a described model, by its name.

    No weights are read, and nothing is computed: multiply-accumulates are counted from shapes.

    >>> info = model_info("tnet_fmow")
    >>> info.parameters, [round(walk.macs / 1e9, 4) for walk in info.walks]
    (4517575, [0.385, 1.155, 1.9252])

    Raises:
        InvalidBundle: the folder is no bundle of this version.
        UsageError: no model of that name is described.
    """
    path = Path(model)
    if path.name == str(model) and not path.exists():
        named = named_model(str(model))
        facts = BundleFacts(**{name: getattr(named, name) for name in type(named).model_fields})
        return _info(str(model), None, facts, shapes_of(facts.network), {})
    facts, digest = read_facts(path)
    names = ["bundle.toml", *facts.files]
    sizes = {name: (path / name).stat().st_size for name in names if (path / name).exists()}
    return _info(str(path), digest, facts, network_shapes(path, facts), sizes)


def _info(
    name: str, digest: str | None, facts: BundleFacts, shapes: TraversalNetwork, sizes: dict[str, int]
) -> ModelInfo:
    network = facts.network
    walks = []
    for depths in range(1, (network.depths if facts.walk.keep else 1) + 1):
        cost = walk_macs(shapes, facts.walk, depths)
        side = network.base_px << (depths - 1) if network.location.on_lattice else None
        walks.append(WalkCost(depths, side, cost.looks, cost.total))
    table = facts.model_dump(mode="json")
    return ModelInfo(name, digest, table, parameters(shapes), look_macs(shapes), tuple(walks), sizes)


def _cost_words(walk: WalkCost) -> str:
    site = "" if walk.side_px is None else f", sites of {walk.side_px} px"
    return f"{walk.looks} looks{site}: {_macs_words(walk.macs)} MACs"


def _macs_words(count: int) -> str:
    return f"{count / 1e9:.4f} G" if count >= 1e8 else f"{count / 1e6:.4f} M"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


@dataclass(frozen=True)
class Verification:
    """Whether a bundle is what was saved, and says here what it said then."""

    bundle: Path
    digest: str
    runtime: str
    """Empty where its answers could not be asked for."""
    outputs: tuple[Deviation, ...]
    findings: tuple[str, ...]
    """What is wrong, one sentence each."""

    @property
    def exit_code(self) -> int:
        """0, or 5 where anything is wrong."""
        return 5 if self.findings else 0

    def lines(self) -> list[str]:
        """What was compared, and what was found."""
        text = [f"bundle   {self.bundle}", f"digest   {self.digest}"]
        text += [f"runtime  {self.runtime}"] if self.runtime else []
        text += [
            f"{one.output}: differs by {one.difference:.2e}, at most {one.bound:.2e} is none"
            for one in self.outputs
        ]
        return text + (list(self.findings) or ["Nothing is wrong."])


def verify_bundle(
    bundle: str | Path,
    *,
    runtime: Runtime = "folded",
    precision: Precision = "float32",
    device: str = "cpu",
) -> Verification:
    """Hold a bundle against what it says of itself; nothing is changed.

    The digest of every file, and the answers that it keeps against those that it gives here, computed by
    the runtime, in the precision and on the device that are asked for.

    >>> verify_bundle("runs/first/bundle").exit_code
    0

    Raises:
        InvalidBundle: the folder is no bundle of this version.
        RuntimeUnusable: this machine cannot compute in that way.
    """
    path = Path(bundle)
    facts, digest = read_facts(path)
    findings = [_finding(path, name, facts) for name in BUNDLE_FILES]
    outputs: tuple[Deviation, ...] = ()
    name = ""
    if not any(findings):
        try:
            loaded = read_bundle(path)
            golden = read_golden_of(path, loaded)
        except InvalidBundle as error:
            findings.append(str(error))
        else:
            network, name = prepared(
                loaded.network,
                runtime=runtime,
                precision=precision,
                device=_usable(device, runtime),
                batch_looks=SITES,
                digest=digest,
            )
            outputs = deviations(golden, network, precision)
            findings += [_deviation_finding(path, one) for one in outputs if not one.within]
    return Verification(path, digest, name, outputs, tuple(one for one in findings if one))


def _usable(device: str, runtime: Runtime) -> torch.device:
    """The device of that name, if something can be computed there."""
    try:
        torch.ones(1, device=device).item()
        return torch.device(device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise RuntimeUnusable(runtime, f"this machine has no device {device}") from error


def _finding(path: Path, name: str, facts: BundleFacts) -> str | None:
    """What is wrong with one file, if anything."""
    if name not in facts.files:
        return f"Bundle {path} names no {name} in its table [files]: save it again."
    try:
        if file_digest(path, name) != facts.files[name]:
            return f"Bundle {path} has a damaged {name} (its sha256 is another): copy it again."
    except InvalidBundle as error:
        return str(error)
    return None


def _deviation_finding(path: Path, one: Deviation) -> str:
    return (
        f"Bundle {path} gives other {one.output} here than where it was saved (they differ by "
        f"{one.difference:.3g}, at most {one.bound:.3g} is none): ask another runtime, precision or device."
    )
