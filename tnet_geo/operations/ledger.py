"""What every run writes down about itself."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["run_facts", "write_json"]

_NAMED = ("tnet-geo", "torch", "timm", "numpy", "rasterio", "zarr", "tensorstore", "distributed", "pyarrow")


def run_facts() -> dict[str, Any]:
    """When, where and with which versions a run was made."""
    return {
        # To the microsecond: of two runs of one folder the later one is the latest, however short they were.
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "host": platform.node(),
        "machine": f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} usable cores"
        if hasattr(os, "sched_getaffinity")
        else f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _NAMED},
    }


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write one JSON document, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
    draft.replace(path)
