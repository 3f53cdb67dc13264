"""A trained model as a folder: facts, weights, a STAC item, and answers to compare with. No pickle.

`bundle.toml` names every other file with its sha256, so its own sha256 is the digest of the bundle. A
bundle may come from anywhere: no name in it leads out of its folder, no file is parsed before it is known
to be what was saved, and nothing is made as large as a file claims before that is held against the network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import tomli_w
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tnet_geo.errors import InvalidBundle, OutputExists, PlaceUnusable, Refused
from tnet_geo.model.counting import shapes_of
from tnet_geo.model.facts import BUNDLE_VERSION, BundleFacts, FileName
from tnet_geo.model.golden import Golden, golden_of, read_golden
from tnet_geo.model.mlm import mlm_content
from tnet_geo.model.network import TraversalNetwork
from tnet_geo.model.settings import NetworkSettings

__all__ = [
    "Bundle",
    "BundleFacts",
    "file_digest",
    "network_shapes",
    "read_bundle",
    "read_facts",
    "read_golden_of",
]

_FACTS_LIMIT = 1 << 20
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")
"""Parsing a dotted key takes the square of its parts: minutes for a key of a hundred kilobytes."""

_HEADER_LIMIT = 100_000_000
"""What safetensors allows for the table of tensors before the weights."""


@dataclass(frozen=True)
class Bundle:
    """Facts and network of a trained model."""

    facts: BundleFacts
    network: TraversalNetwork = field(repr=False)
    digest: str = ""
    """sha256 of `bundle.toml`, which names the other files by theirs; empty for a bundle never saved."""

    def save(self, path: Path, *, replace: bool = False) -> Path:
        """Write the folder `path`, all of it or nothing.

        The answers to compare with are those of a network made anew from the bytes that are written.

        Raises:
            OutputExists: `path` is there and `replace` was not asked for.
            PlaceUnusable: it cannot be written.
        """
        if path.exists() and not replace:
            raise OutputExists(str(path))
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in self.network.state_dict().items()}
        network = _network_of(self.facts.network, state)
        files = {
            "model.safetensors": save(state),
            "golden.npz": golden_of(network).content(),
        }
        files["mlm.json"] = mlm_content(self.facts, network, files)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        facts = self.facts.model_copy(update={"files": digests})
        table = facts.model_dump(mode="json", exclude_none=True)
        _publish(path, {**files, "bundle.toml": tomli_w.dumps(table).encode()})
        return path


def _publish(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a hidden folder beside `path`, then give it its name."""
    temporary, old = (path.with_name(f".{path.name}.{uuid4().hex}{end}") for end in ("", ".old"))
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        if old.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        cause = error.strerror or type(error).__name__
        raise PlaceUnusable(
            str(path), f"cannot be written ({cause})", "make room, or name another folder"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and check that its weights are those that it names.

    Raises:
        InvalidBundle: no bundle, another version, damaged weights, or weights of another network.
    """
    facts, digest = read_facts(path)
    state = _read_weights(path, facts)
    return Bundle(facts, _network_of(facts.network, state), digest)


def read_facts(path: Path) -> tuple[BundleFacts, str]:
    """What `bundle.toml` says, and its sha256.

    Raises:
        InvalidBundle: there is none, it is of another version, or an entry is wrong.
    """
    try:
        content = _plain_file(path, "bundle.toml", _FACTS_LIMIT)
        text = content.decode()
        if _DEEP_KEY.search(text):
            raise InvalidBundle(str(path), "has a bundle.toml with keys nested deeper than any bundle's")
        table = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # of bytes, of text, of huge numbers, of nesting
        raise InvalidBundle(str(path), f"has no readable bundle.toml ({type(error).__name__})") from error
    found = repr(table.get("version"))
    if found != str(BUNDLE_VERSION):
        raise InvalidBundle(
            str(path),
            f"has format version {found:.40}, this tnet-geo reads version {BUNDLE_VERSION}",
        )
    try:
        facts = BundleFacts.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = f"a wrong entry {where} ({first['msg']})" if where else f"wrong entries ({first['msg']})"
        raise InvalidBundle(str(path), f"has {what}") from error
    return facts, hashlib.sha256(content).hexdigest()


def network_shapes(path: Path, facts: BundleFacts) -> TraversalNetwork:
    """The network that a bundle describes, without any numbers.

    Raises:
        InvalidBundle: there can be no such network.
    """
    remedy = "use the versions of tnet-geo and timm that it was trained with"
    try:
        return shapes_of(facts.network)
    except Refused as error:
        what = f"has a table [network] that {getattr(error, 'what', error)}"
        raise InvalidBundle(str(path), what, remedy) from error
    except Exception as error:
        # Settings from elsewhere can break any library that builds of them.
        what = f"describes a network that cannot be built ({type(error).__name__})"
        raise InvalidBundle(str(path), what, remedy) from error


def file_digest(path: Path, name: FileName) -> str:
    """sha256 of one file of a bundle.

    Raises:
        InvalidBundle: it is missing, or is no plain file.
    """
    _plain_size(path, name)
    with (path / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_golden_of(path: Path, bundle: Bundle) -> Golden:
    """The answers to compare with.

    Raises:
        InvalidBundle: the file is missing, damaged, or no such file.
    """
    network = bundle.network
    settings, features = network.settings, network.classifier.in_features
    try:
        content = _named_file(path, bundle.facts, "golden.npz", _golden_limit(settings, features))
        return read_golden(content, settings, features)
    except ValueError as error:
        raise InvalidBundle(str(path), f"has a golden.npz that is none ({error})") from error


def _golden_limit(settings: NetworkSettings, features: int) -> int:
    """No golden file of such a network is larger, even if nothing in it could be compressed."""
    numbers = settings.base_px**2 * (8 * settings.pixels.bands + 1) + 8 * (features + settings.classes + 64)
    return 16 * numbers + (1 << 16)


def _read_weights(path: Path, facts: BundleFacts) -> dict[str, Tensor]:
    """The tensors of `model.safetensors`, all of them those of the network that the facts describe."""
    wanted = network_shapes(path, facts).state_dict()
    size = sum(tensor.nbytes for tensor in wanted.values())
    content = _named_file(path, facts, "model.safetensors", size + _HEADER_LIMIT)
    try:
        state: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        cause = str(error).splitlines()[0]
        raise InvalidBundle(str(path), f"has weights that do not load ({cause})") from error
    for name in sorted(wanted.keys() | state.keys()):
        ours, theirs = _words(wanted.get(name)), _words(state.get(name))
        if ours != theirs:
            raise InvalidBundle(
                str(path), f"has weights of another network ({name} is {theirs}, its network has {ours})"
            )
    return state


def _words(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _network_of(settings: NetworkSettings, state: Mapping[str, Tensor]) -> TraversalNetwork:
    """A network with these weights, in evaluation mode; nobody else's random numbers are used up."""
    with torch.random.fork_rng(devices=[]):
        network = TraversalNetwork(settings)
    network.load_state_dict(state)
    return network.eval()


def _named_file(path: Path, facts: BundleFacts, name: FileName, limit: int) -> bytes:
    """The content of a file that `bundle.toml` names, if it is what it was.

    Raises:
        InvalidBundle: it is missing, no plain file, too large, or damaged.
    """
    content = _plain_file(path, name, limit)
    if hashlib.sha256(content).hexdigest() != facts.files.get(name):
        raise InvalidBundle(str(path), f"has a damaged {name} (its sha256 is not the one in bundle.toml)")
    return content


def _plain_file(path: Path, name: str, limit: int) -> bytes:
    size = _plain_size(path, name)
    if size > limit:
        raise InvalidBundle(str(path), f"has a {name} of {size} bytes, more than such a bundle can have")
    return (path / name).read_bytes()


def _plain_size(path: Path, name: str) -> int:
    """Size of a file in the folder itself; links could lead anywhere, and pipes never end."""
    try:
        found = (path / name).lstat()
    except OSError as error:
        raise InvalidBundle(str(path), f"has no readable {name} ({type(error).__name__})") from error
    if not stat.S_ISREG(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no plain file"
        raise InvalidBundle(str(path), f"has a {name} that is {what}", "copy the files themselves into it")
    return found.st_size
