"""Lets timm and torchmetrics be imported beside a CPU-only torch. Import it before either.

Both import torchvision, whose wheel from the default index is a CUDA build: next to a CPU torch its
compiled half does not load, and the import dies with "operator torchvision::nms does not exist".
Nothing here calls those operators; declaring their schemas is enough for the import.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

__all__: list[str] = []

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _compiled_half_loads() -> bool:
    """Whether torchvision's own operators can be loaded in this process."""
    package = importlib.util.find_spec("torchvision")
    folders = (package.submodule_search_locations or []) if package else []
    libraries = [library for folder in folders for library in sorted(Path(folder).glob("_C*.*"))]
    try:
        for library in libraries:
            torch.ops.load_library(library)
    except OSError:
        return False
    return bool(libraries)


if not _compiled_half_loads():
    _LIBRARY = torch.library.Library("torchvision", "DEF")  # the declaration lives as long as this object
    for _name in ("nms", "qnms"):
        _LIBRARY.define(_name + _SCHEMA)
