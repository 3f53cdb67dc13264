"""Splits that stay where they are when sites are added."""

from __future__ import annotations

import hashlib

__all__ = ["split_of"]


def split_of(site_id: str, val: float, test: float) -> str:
    """The split of a site: `train`, `val` or `test`, from a hash of its id alone.

    >>> split_of("harbour/0001", val=0.2, test=0.2)
    'val'
    """
    place = int.from_bytes(hashlib.sha256(site_id.encode()).digest()[:8], "big") / 2**64
    if place < test:
        return "test"
    return "val" if place < test + val else "train"
