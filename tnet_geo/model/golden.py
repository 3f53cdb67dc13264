"""Made-up looks and what a network said of them when it was saved: `golden.npz`.

A machine, a library or a runtime on which the same weights say something else is found out by asking
again. The walks are short chains of tiles: the whole network is used, and no pyramid is needed.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet_geo.model.network import TraversalNetwork
from tnet_geo.model.places import Places
from tnet_geo.model.settings import NetworkSettings

__all__ = ["SITES", "TOLERANCES", "Deviation", "Golden", "deviations", "golden_of", "read_golden"]

SITES = 2
LOOKS = 3
"""Of each site: the root, one of its children, one of that child's."""

TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 0.15}
"""Largest difference that is no difference, by precision, as a share of the output's largest number.

Measured on the published network with the random weights of its fixtures: 4e-6 between memory layouts and
between folded and eager in float32, 0.08 between float32 and bfloat16.
"""

_SMALLEST = 0.01
"""Outputs that are all below it are compared as if it were their largest: nothing is decided there."""

_WINDOWS = ((0, 2), (1, 0))
"""Row and column of the window that leads from each look of a site to its next."""

_Array = NDArray[Any]

_DAMAGES = (zipfile.BadZipFile, zlib.error, TokenError, NotImplementedError, EOFError, OSError)
"""What zip, zlib and numpy say of bytes that are none of theirs, beside ValueError."""


@dataclass(frozen=True)
class Golden:
    """Questions and answers; looks are site-major, n = SITES * LOOKS of them."""

    pixels: _Array
    """Bundle's dtype [n, bands, B, B]."""
    validity: _Array
    """uint8 [n, B, B]."""
    depth: _Array
    """int64 [n]."""
    centre: _Array
    """float32 [n, 2], see `Places`."""
    path: _Array
    """float32 [n, 2], see `Places`."""
    features: _Array
    """float32 [n, F]."""
    child_logits: _Array
    """float32 [n, windows]."""
    logits: _Array
    """float32 [SITES, classes]."""

    def content(self) -> bytes:
        """The file; equal arrays give equal bytes."""
        file = io.BytesIO()
        np.savez_compressed(file, **vars(self))
        return file.getvalue()


@dataclass(frozen=True)
class Deviation:
    """How far one output lies from what it was."""

    output: str
    difference: float
    """Largest absolute one."""
    bound: float

    @property
    def within(self) -> bool:
        """Whether that is no difference; a number that is none never is."""
        return self.difference <= self.bound


def golden_of(network: TraversalNetwork) -> Golden:
    """Ask a network, in evaluation mode, about pixels that are always the same for its settings."""
    questions = _questions(network.settings)
    return Golden(**questions, **_answers(network, questions))


def deviations(
    golden: Golden, network: TraversalNetwork, precision: str = "float32"
) -> tuple[Deviation, ...]:
    """Ask a network again, on the device where it is; one deviation an output."""
    found = []
    for output, now in _answers(network, vars(golden)).items():
        before = getattr(golden, output)
        largest = max(_SMALLEST, float(np.abs(before).max()))
        difference = float(np.abs(now - before).max())
        found.append(Deviation(output, difference, TOLERANCES[precision] * largest))
    return tuple(found)


def _answers(network: TraversalNetwork, questions: Mapping[str, _Array]) -> dict[str, _Array]:
    """One call of the network per look of a site, since a child is told its parent's feature."""
    device = network.classifier.weight.device
    features: list[Tensor] = []
    child_logits: list[Tensor] = []
    with torch.inference_mode():
        parent = torch.zeros(SITES, network.classifier.in_features, device=device)
        for look in range(LOOKS):
            rows = {
                name: torch.from_numpy(questions[name][look::LOOKS]).to(device)
                for name in ("pixels", "validity", "depth", "centre", "path")
            }
            places = Places(rows["depth"], rows["centre"], rows["path"])
            output = network.look(network.scale(rows["pixels"], rows["validity"]), places, parent)
            parent = output.features
            features.append(output.features)
            child_logits.append(output.child_logits)
        looks = torch.stack(features, dim=1)
        mask = torch.ones(looks.shape[:2], dtype=torch.bool, device=device)
        answers = {
            "features": looks.flatten(0, 1),
            "child_logits": torch.stack(child_logits, dim=1).flatten(0, 1),
            "logits": network.aggregate(looks, mask).logits,
        }
    return {name: answer.float().cpu().numpy() for name, answer in answers.items()}


def _questions(settings: NetworkSettings) -> dict[str, _Array]:
    depth = np.minimum(np.arange(LOOKS), settings.depths - 1)
    centre, path = _places(settings.location.windows)
    return {
        "pixels": _pixels(settings),
        "validity": _validity(settings.base_px),
        "depth": np.tile(depth, SITES),
        "centre": np.tile(centre[depth], (SITES, 1)),
        "path": np.tile(path[depth], (SITES, 1)),
    }


def _places(windows: int) -> tuple[_Array, _Array]:
    """Centre and path, float32 [LOOKS, 2] each, of a root and two tiles below it."""
    centre, path, lattice, cell = np.zeros((LOOKS, 2)), np.zeros((LOOKS, 2)), np.zeros(2), np.zeros(2)
    for depth, window in enumerate(_WINDOWS, start=1):
        lattice, cell = 2 * lattice + window, windows * cell + window
        centre[depth] = (lattice + 1) / 2**depth - 1
        path[depth] = (2 * cell + 1) / windows**depth - 1
    return centre.astype(np.float32), path.astype(np.float32)


def _pixels(settings: NetworkSettings) -> _Array:
    """Squares of colours within a spread of the mean: few numbers, so that the file is small.

    Gentle ones: small hard squares make published TNet, with the weights of its parity files, amplify the
    last bits of float32 by a factor of 10^4 (measured), and nothing could be told from rounding.
    """
    known, side = settings.pixels, settings.base_px
    cells = min(side, 8)
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (known.mean, known.std))
    noise = np.random.default_rng(0).uniform(-1, 1, size=(SITES * LOOKS, known.bands, cells, cells))
    colours = mean + std * noise
    dtype = np.dtype(known.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        colours = np.clip(np.rint(colours), limits.min, limits.max)
    index = np.arange(side) * cells // side
    return np.ascontiguousarray(colours.astype(dtype)[:, :, index][:, :, :, index])


def _validity(side: int) -> _Array:
    """All valid, but for the last quarter of the columns of the second site's root."""
    validity = np.full((SITES * LOOKS, side, side), 255, dtype=np.uint8)
    validity[LOOKS, :, side - side // 4 :] = 0
    return validity


def read_golden(content: bytes, settings: NetworkSettings, features: int) -> Golden:
    """The file of a network of these settings with feature vectors of that length.

    Shapes and types are held against the network's before anything is unpacked, so that no file can
    take more memory than they do. No pickle.

    Raises:
        ValueError: it is not that, with the cause in words.
    """
    shapes = _shapes(settings, features)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in shapes):
                raise ValueError("other arrays than those of a golden file")
            return Golden(**{name: _entry(archive, name, *shapes[name]) for name in shapes})
    except _DAMAGES as error:
        raise ValueError(str(error)) from error


def _shapes(settings: NetworkSettings, features: int) -> dict[str, tuple[tuple[int, ...], str]]:
    n, side, pixels = SITES * LOOKS, settings.base_px, settings.pixels
    windows = 9 if settings.location.form == "none" else settings.location.windows**2
    return {
        "pixels": ((n, pixels.bands, side, side), pixels.dtype),
        "validity": ((n, side, side), "uint8"),
        "depth": ((n,), "int64"),
        "centre": ((n, 2), "float32"),
        "path": ((n, 2), "float32"),
        "features": ((n, features), "float32"),
        "child_logits": ((n, windows), "float32"),
        "logits": ((SITES, settings.classes), "float32"),
    }


def _entry(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: str) -> _Array:
    """One array; its header is believed only where it says what is expected."""
    wanted = np.dtype(dtype)
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{name} has numpy format {version}")
        found = np.lib.format.read_array_header_1_0(file)
        if found != (shape, False, wanted):
            raise ValueError(f"{name} is {found[2]} {found[0]}, not {wanted} {shape}")
        size = wanted.itemsize * int(np.prod(shape))
        content = file.read(size)
        if len(content) != size:
            raise ValueError(f"{name} ends early")
    return np.frombuffer(content, dtype=wanted).reshape(shape).copy()
