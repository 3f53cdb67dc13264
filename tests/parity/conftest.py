"""Numbers that the published TensorFlow code gave, and bundles made of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tnet_geo.operations import import_model

Numbers = Callable[[str], dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def parity(project: Path) -> Path:
    """The fixtures' folder; tests of it skip where it is missing."""
    folder = project.parent / "shared" / "parity"
    if not folder.is_dir():
        pytest.skip("numbers of the published code are not here: no folder ../shared/parity")
    return folder


@pytest.fixture(scope="session")
def numbers(parity: Path) -> Numbers:
    """All arrays of one fixture, by key."""
    known: dict[str, dict[str, np.ndarray]] = {}

    def arrays(name: str) -> dict[str, np.ndarray]:
        if name not in known:
            with np.load(parity / f"{name}.npz", allow_pickle=False) as file:
                known[name] = dict(file)
        return known[name]

    return arrays


@pytest.fixture(scope="session")
def images(numbers: Numbers) -> np.ndarray:
    """Three canvases, uint8 [3, 896, 896, 3]."""
    return numbers("images")["images_896"]


@pytest.fixture(scope="session")
def bundle_of(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The published TNet for canvases of a side, as a bundle made of the real checkpoint."""
    made: dict[int, Path] = {}

    def bundle(canvas_px: int) -> Path:
        if canvas_px not in made:
            made[canvas_px] = tmp_path_factory.mktemp("published") / str(canvas_px)
            import_model(parity / "checkpoint_tnet_fmow", "tnet-fmow", made[canvas_px], canvas_px=canvas_px)
        return made[canvas_px]

    return bundle
