"""The shell: jobs over many items on Dask clusters, with ledgers, clocks and exit codes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tnet_geo.operations.build import BuildReport as BuildReport
    from tnet_geo.operations.build import build_archive as build_archive

# Loaded at first use: a job must not pay for what the others need.
_HOMES = {
    "BuildReport": "tnet_geo.operations.build",
    "build_archive": "tnet_geo.operations.build",
}

__all__ = ["BuildReport", "build_archive"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
