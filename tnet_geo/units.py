"""Bytes, seconds and metres in words that people read."""

from __future__ import annotations

__all__ = ["bytes_text", "seconds_text"]


def bytes_text(count: float) -> str:
    """A number of bytes with a binary unit and three digits.

    >>> bytes_text(71_680)
    '70.0 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def seconds_text(seconds: float) -> str:
    """A duration in the unit that suits it.

    >>> seconds_text(0.0042), seconds_text(75)
    ('4.2 ms', '1 min 15 s')
    """
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
