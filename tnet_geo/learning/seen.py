"""What a network has seen of the ground in training: what its bundle expects of pixels from then on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet_geo.grid import Tile
from tnet_geo.inference.expectations import peak_of
from tnet_geo.learning.dense import native_bag
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.pyramid import TileBatch

__all__ = ["Seen", "seen_in"]

_SAMPLED_SITES = 256
_NATIVE_TILES = 4
_SAMPLES = 64
"""Pixels along each side of a tile: bounds memory, not what is seen of a site."""
_TAILS = (0.1, 99.9)
"""Percentiles: a single hot pixel is no range."""


@dataclass(frozen=True)
class Seen:
    """Fields of `BundleFacts` of the same names."""

    gsd_m: tuple[float, float] | None
    value_range: tuple[float, float] | None
    value_peaks: tuple[float, float] | None

    def facts(self) -> dict[str, Any]:
        """The same as keywords."""
        return asdict(self)


def seen_in(sites: Sequence[LabelledSite]) -> Seen:
    """Sampling distances of all sites; values in the root and in native tiles of evenly spread ones.

    Raises:
        TileUnreadable: damage that came after the sites were loaded.
    """
    distances = [site.gsd_m for site in sites if site.gsd_m is not None]
    step = -(-len(sites) // _SAMPLED_SITES)
    values, peaks = [], []
    for site in sites[::step]:
        root = [site.root]
        native: list[Tile] = [tile for tile in native_bag(site, None, _NATIVE_TILES) if tile not in root]
        batch = site.task.reader.read(root + native)
        values.append(_valid(batch))
        peaks.append(peak_of(TileBatch(batch.pixels[:1], batch.validity[:1])))
    pixels, reached = np.concatenate(values), [peak for peak in peaks if peak is not None]
    return Seen(
        gsd_m=_span(min(distances), max(distances)) if distances else None,
        value_range=_span(*np.percentile(pixels, _TAILS)) if pixels.size else None,
        value_peaks=_span(min(reached), max(reached)) if reached else None,
    )


def _valid(batch: TileBatch) -> NDArray[Any]:
    """Values of all bands where pixels are valid, some of each tile: [n]."""
    step = max(1, batch.pixels.shape[-1] // _SAMPLES)
    valid = batch.validity[:, ::step, ::step] > 0
    picked: NDArray[Any] = batch.pixels[..., ::step, ::step].transpose(0, 2, 3, 1)[valid].ravel()
    return picked


def _span(low: float, high: float) -> tuple[float, float]:
    """Rounded outwards by nothing that matters: six digits are enough for what is compared by halves."""
    return float(f"{low:.6g}"), float(f"{high:.6g}")
