"""What a walk may cost, as options that `classify`, `estimate` and `evaluate` share."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Option

from tnet_geo.errors import UsageError

if TYPE_CHECKING:  # it comes with torch, which --help must not wait for
    from tnet_geo.inference.budgets import Budget

__all__ = ["Bytes", "Deadline", "Keep", "StopAt", "Tiles", "budget_of", "keep_of"]

_SIZES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_SPANS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE)


def _measured(text: str, units: dict[str, int], what: str) -> float:
    """A number times its unit. Raises: BadParameter."""
    found = _NUMBER.fullmatch(text)
    unit = found and units.get(found[2].lower())
    if found is None or unit is None or not 0 < (size := float(found[1]) * unit) < math.inf:
        raise BadParameter(f"{text!r} is no {what}.")
    return size


def _bytes(text: str) -> int:
    units = _SIZES | {f"{unit}b": size for unit, size in _SIZES.items()}
    return round(_measured(text, units, "number of bytes: write 300k, 2MB or 1.5GiB"))


def _seconds(text: str) -> float:
    return _measured(text, _SPANS, "length of time: write 90, 90s, 15m or 2h")


Keep = Annotated[
    str | None,
    Option(
        help="Tiles kept below each of depth 0, 1, ..., as 2,1,1; the bundle's by default.", metavar="N,..."
    ),
]
Tiles = Annotated[int | None, Option(help="Look at so many tiles a site, likeliest paths first.", min=1)]
StopAt = Annotated[
    float | None, Option(help="End a walk once its calibrated confidence is this, such as 0.95.")
]
Bytes = Annotated[
    int | None,
    Option("--bytes", help="Decode at most so much a site: 300k, 2MB, 1GiB.", parser=_bytes, metavar="SIZE"),
]
Deadline = Annotated[
    float | None,
    Option(help="Time for all sites: 90s, 15m, 2h; late ones get one look.", parser=_seconds, metavar="TIME"),
]


def keep_of(text: str | None) -> tuple[int, ...] | None:
    """What `--keep` says; None: nothing was said.

    >>> keep_of("2,1,1")
    (2, 1, 1)

    Raises:
        UsageError: not whole numbers above 0 between commas.
    """
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--keep {text!r} is no list of whole numbers above 0: write it as 2,1,1.")
    return tuple(int(part) for part in parts)


def budget_of(
    tiles: int | None = None,
    stop_at: float | None = None,
    size: int | None = None,
    deadline: float | None = None,
) -> Budget:
    """What `--tiles`, `--stop-at`, `--bytes` and `--deadline` say.

    Raises:
        UsageError: they cannot be, alone or together.
    """
    from tnet_geo.inference.budgets import Budget

    return Budget(tiles=tiles, stop_at=stop_at, bytes=size, deadline=deadline)
