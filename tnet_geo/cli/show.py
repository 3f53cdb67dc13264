"""Reports as people or as machines read them, on stdout."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from tnet_geo.errors import OutputExists
from tnet_geo.units import bytes_text, seconds_text

__all__ = ["as_json_text", "as_lines", "show", "write_new"]


def show(report: object, *, as_json: bool) -> None:
    """Print a report: a dataclass, with a `lines()` of its own if it has better words than ours."""
    print(as_json_text(report) if as_json else "\n".join(as_lines(report)))


def as_json_text(report: object) -> str:
    """One JSON document; numbers that are none become null."""
    plain = _plain(report)
    if isinstance(plain, dict) and hasattr(report, "exit_code"):
        plain["exit_code"] = report.exit_code
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)


def as_lines(report: object) -> list[str]:
    """One line per fact, one per item set aside; durations and sizes in the unit that suits them."""
    own = getattr(report, "lines", None)
    if callable(own):
        return [str(line) for line in own()]
    plain = _plain(report)
    if not isinstance(plain, dict):
        return [str(plain)]
    width = max((len(key) for key in plain), default=0)
    lines = []
    for key, value in plain.items():
        name = key.replace("_", " ").ljust(width)
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            lines.append(f"{name}  {len(value)}")
            lines += ["  " + ": ".join(str(part) for part in item.values()) for item in value]
        else:
            lines.append(f"{name}  {_words(key, value)}")
    return lines


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet.

    Raises:
        OutputExists: it is there.
    """
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise OutputExists(str(path)) from error


def _words(key: str, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.endswith("seconds") or key.startswith("seconds"):
            return seconds_text(value)
        if "bytes" in key or key.startswith("memory"):
            return bytes_text(value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(name, item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_words(key, item) for item in value) or "0"
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    """Dataclasses, tuples, paths and names as the types that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Enum | PurePath) else value
