"""What came out: parts of runs on disk, questions in SQL, pictures of walks, the report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tnet_geo.results.drawing import picture as picture
    from tnet_geo.results.query import Results as Results
    from tnet_geo.results.report import write_report as write_report
    from tnet_geo.results.schema import PredictionRow as PredictionRow
    from tnet_geo.results.schema import RunRecord as RunRecord
    from tnet_geo.results.store import finish_run as finish_run
    from tnet_geo.results.store import has_part as has_part
    from tnet_geo.results.store import parts_of as parts_of
    from tnet_geo.results.store import write_part as write_part
    from tnet_geo.results.summary import Summary as Summary

# Loaded at first use: a question needs no pictures, and a worker that writes parts no database.
_HOMES = {
    "PredictionRow": "schema",
    "Results": "query",
    "RunRecord": "schema",
    "Summary": "summary",
    "finish_run": "store",
    "has_part": "store",
    "parts_of": "store",
    "picture": "drawing",
    "write_part": "store",
    "write_report": "report",
}

__all__ = [
    "PredictionRow",
    "Results",
    "RunRecord",
    "Summary",
    "finish_run",
    "has_part",
    "parts_of",
    "picture",
    "write_part",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
