"""A trained model as a folder: `model.safetensors` and `bundle.toml`. No pickle, nothing executable."""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import tomli_w
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from tnet_geo.errors import InvalidBundle, OutputExists
from tnet_geo.model.facts import BUNDLE_VERSION, BundleFacts
from tnet_geo.model.network import TraversalNetwork

__all__ = ["Bundle", "BundleFacts", "read_bundle"]


@dataclass(frozen=True)
class Bundle:
    """Facts and network of a trained model."""

    facts: BundleFacts
    network: TraversalNetwork = field(repr=False)
    digest: str = ""
    """sha256 of `bundle.toml`, which names the weights by theirs; empty for a bundle never saved."""

    def save(self, path: Path, *, replace: bool = False) -> Path:
        """Write the folder `path`, all of it or nothing.

        Raises:
            OutputExists: `path` is there and `replace` was not asked for.
        """
        if path.exists() and not replace:
            raise OutputExists(str(path))
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in self.network.state_dict().items()}
        weights = save(state)
        files = {"model.safetensors": hashlib.sha256(weights).hexdigest()}
        facts = self.facts.model_copy(update={"files": files})
        table = facts.model_dump(mode="json", exclude_none=True)
        _publish(path, {"model.safetensors": weights, "bundle.toml": tomli_w.dumps(table).encode()})
        return path


def _publish(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a hidden folder beside `path`, then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.mkdir()
    for name, content in files.items():
        with (temporary / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    if path.exists():
        old = path.with_name(f".{path.name}.{uuid4().hex}.old")
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old)
    else:
        temporary.rename(path)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and check that its weights are those that it names.

    Raises:
        InvalidBundle: no bundle, another version, damaged weights, or weights of another network.
    """
    try:
        text = (path / "bundle.toml").read_bytes()
        table = tomllib.loads(text.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidBundle(str(path), f"has no readable bundle.toml ({type(error).__name__})") from error
    if table.get("version") != BUNDLE_VERSION:
        raise InvalidBundle(
            str(path),
            f"has format version {table.get('version')}, this tnet-geo reads version {BUNDLE_VERSION}",
        )
    try:
        facts = BundleFacts.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidBundle(str(path), f"has a wrong entry {where} ({first['msg']})") from error
    network = TraversalNetwork(facts.network)
    _load_weights(path, facts, network)
    return Bundle(facts, network.eval(), hashlib.sha256(text).hexdigest())


def _load_weights(path: Path, facts: BundleFacts, network: TraversalNetwork) -> None:
    weights = path / "model.safetensors"
    try:
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
        if found != facts.files.get("model.safetensors"):
            raise InvalidBundle(str(path), "has damaged weights (their sha256 is not the one in bundle.toml)")
        network.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        cause = str(error).splitlines()[0]
        raise InvalidBundle(str(path), f"has weights that do not load ({cause})") from error
