"""Splits that stay where they are when sites are added."""

from __future__ import annotations

import hashlib

from tnet_geo.errors import UsageError

__all__ = ["check_shares", "split_of"]


def split_of(site_id: str, val: float, test: float) -> str:
    """The split of a site: `train`, `val` or `test`, from a hash of its id alone.

    >>> split_of("harbour/0001", val=0.2, test=0.2)
    'val'
    """
    place = int.from_bytes(hashlib.sha256(site_id.encode()).digest()[:8], "big") / 2**64
    if place < test:
        return "test"
    return "val" if place < test + val else "train"


def check_shares(val: float, test: float) -> None:
    """Refuse shares that no split can have.

    Raises:
        UsageError: the shares are negative or leave nothing to train on.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UsageError(
            f"--val {val} and --test {test} leave nothing to train on: let them sum to less than 1."
        )
