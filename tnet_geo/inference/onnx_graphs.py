"""Backbones in ONNX Runtime: one graph with tap and end, exported once per bundle and kept on the disk.

A kept graph is named by what it was made of and by its own sha256, and is compared with the network
before it answers anything: one that is damaged, or of other weights, is made again.
"""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from tnet_geo.errors import RuntimeUnusable
from tnet_geo.inference.folding import Probe, furthest
from tnet_geo.model.settings import NetworkSettings

__all__ = ["AGREES_WITHIN", "OnnxBackbone", "cache_folder", "onnx_backbone", "onnx_version"]

AGREES_WITHIN = 1e-4
"""How far tap and end of the graph may lie from the network's, as a share of their largest value."""

_OPSET = 17
_AT_ONCE = 4
"""Looks in one go of ONNX Runtime: the feature maps of more of them leave a core's caches."""
_INPUTS, _OUTPUTS = ["pixels", "depth"], ["tap", "end"]


class OnnxBackbone(nn.Module):
    """A backbone that ONNX Runtime computes on the CPU, with as many threads as torch has.

    Raises:
        RuntimeUnusable: ONNX Runtime is not installed.
        ValueError: `graph` is none that it can run.
    """

    def __init__(self, original: nn.Module, graph: bytes) -> None:
        super().__init__()
        self.tap_channels, self.features = original.tap_channels, original.features
        self.layout = torch.contiguous_format
        library = _library("onnxruntime")
        options = library.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # threads that wait by spinning take the cores of other workers
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = library.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # its errors have no common class but Exception
            raise ValueError(f"ONNX Runtime takes no such graph: {error}") from error
        self._inputs = {known.name for known in self._session.get_inputs()}

    def forward(self, pixels: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Backbone`."""
        given = {"pixels": pixels.contiguous().numpy()}
        if "depth" in self._inputs and depth is not None:
            given["depth"] = depth.numpy()
        parts = [
            self._session.run(
                _OUTPUTS, {name: rows[start : start + _AT_ONCE] for name, rows in given.items()}
            )
            for start in range(0, len(pixels), _AT_ONCE)
        ]
        tap, end = (torch.cat([torch.from_numpy(part[n]) for part in parts]) for n in (0, 1))
        return tap, end


def onnx_backbone(
    settings: NetworkSettings, backbone: nn.Module, probe: Probe, digest: str = ""
) -> OnnxBackbone:
    """`backbone` in ONNX Runtime, from the cache where the bundle of that digest was exported before.

    An empty digest is that of a network never saved: nothing is kept.

    Raises:
        RuntimeUnusable: a library is missing, the network has an operation that ONNX has not, or the graph
            does not answer as the network does.
    """
    original = copy.deepcopy(backbone).cpu().eval()
    name = _name(settings, digest) if digest else None
    for graph in _kept(name) if name else ():
        found = _agreeing(original, graph, probe)
        if found is not None:
            return found
    graph = _exported(settings, original, probe)
    made = _agreeing(original, graph, probe)
    if made is None:
        raise RuntimeUnusable(
            "onnx", f"its answers for {settings.backbone} are further than {AGREES_WITHIN:g} from PyTorch's"
        )
    if name:
        _keep(name, graph)
    return made


def onnx_version() -> str:
    """Of ONNX Runtime."""
    return version("onnxruntime")


def cache_folder() -> Path:
    """Where graphs are kept: below XDG_CACHE_HOME, by default ~/.cache. Deleting it loses nothing."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tnet-geo" / "onnx"


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise RuntimeUnusable("onnx", f"{name} is not installed (pip install 'tnet-geo[onnx]')") from error


def _name(settings: NetworkSettings, digest: str) -> str:
    """The digest of everything that a graph depends on."""
    versions = [f"{library} {version(library)}" for library in ("tnet-geo", "torch", "timm", "onnxruntime")]
    facts = "\n".join([digest, settings.model_dump_json(), str(_OPSET), *versions])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _kept(name: str) -> list[bytes]:
    """Whole graphs of that name; damaged ones are removed."""
    found = []
    for path in sorted(cache_folder().glob(f"{name}-*.onnx")):
        try:
            graph = path.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(graph).hexdigest() == path.stem.partition("-")[2]:
            found.append(graph)
        else:
            path.unlink(missing_ok=True)
    return found


def _agreeing(original: nn.Module, graph: bytes, probe: Probe) -> OnnxBackbone | None:
    """The graph ready to be run, or None where it cannot be, or does not answer as `original` does."""
    try:
        found = OnnxBackbone(original, graph)
    except ValueError:
        return None
    return found if furthest(found, original, probe) <= AGREES_WITHIN else None


def _exported(settings: NetworkSettings, original: nn.Module, probe: Probe) -> bytes:
    _library("onnx")  # torch's exporter asks for it in a less helpful way
    pixels, depth = probe
    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, of shapes that become constants: base_px is one
        path = Path(folder) / "graph.onnx"
        try:
            torch.onnx.export(
                original,
                (pixels.contiguous(), depth),
                path,
                dynamo=False,
                opset_version=_OPSET,
                input_names=_INPUTS,
                output_names=_OUTPUTS,
                dynamic_axes={name: {0: "looks"} for name in (*_INPUTS, *_OUTPUTS)},
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError) as error:
            cause = " ".join(str(error).split())[:200]
            raise RuntimeUnusable("onnx", f"{settings.backbone} cannot be exported ({cause})") from error
        return path.read_bytes()


def _keep(name: str, graph: bytes) -> None:
    """Write a graph, all of it or nothing. A folder that takes none costs an export at the next start."""
    folder = cache_folder()
    draft = folder / f".{name}.{uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(graph)
        draft.replace(folder / f"{name}-{hashlib.sha256(graph).hexdigest()}.onnx")
    except OSError:
        with suppress(OSError):
            draft.unlink()
