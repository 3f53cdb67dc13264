"""What a bundle was made for, against the pixels that it is given: contradictions are refused by name.

A wrong scaling of uint16 pixels, or pixels of ten metres instead of half a metre, cost most of the
accuracy without a sign of it. Each check can be waived by name, for one run and in so many words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np

from tnet_geo.errors import ArchiveMismatch, SiteMismatch, UsageError
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.model.facts import BundleFacts
from tnet_geo.pyramid import SceneArchive
from tnet_geo.pyramid.ground import pixel_m
from tnet_geo.pyramid.tiles import RasterSpec, TileBatch

__all__ = ["CONTRADICTIONS", "Contradiction", "Expectations", "ground_sampling", "peak_of"]

Contradiction = Literal["canvas", "dtype", "gsd", "reduction", "value_range"]
CONTRADICTIONS: tuple[Contradiction, ...] = get_args(Contradiction)
"""What may be accepted by name. Another number of bands never is: the network has no place for them."""

GSD_FACTOR = 2.0
"""Pixels that are so much finer or coarser than any seen in training are of other things."""
_MEASURED = 1.01
"""One per cent: what a projection makes of a sampling distance that was meant to be exactly twice."""
PEAK_FACTOR = 2.0
"""Values that go so much higher than at the brightest training site, or so much less high than at the
dimmest, are scaled otherwise. Both are counted from the least value seen."""
PEAK_PERCENT = 99
_SAMPLES = 32
"""Pixels along each side of a tile that percentiles are taken of."""


@dataclass(frozen=True)
class Expectations:
    """What a bundle expects of archives and sites; prefer `Expectations.of`, which checks `accept`."""

    facts: BundleFacts
    accept: frozenset[str] = frozenset()
    """Contradictions that are waived."""

    @classmethod
    def of(cls, facts: BundleFacts, accept: Collection[str] = ()) -> Expectations:
        """The expectations of a bundle, some of them waived.

        Raises:
            UsageError: `accept` holds what is no contradiction.
        """
        strange = sorted(set(accept) - set(CONTRADICTIONS))
        if strange:
            raise UsageError(f"{strange[0]!r} cannot be accepted: it is one of {', '.join(CONTRADICTIONS)}.")
        return cls(facts, frozenset(accept))

    def check_archive(self, archive: SceneArchive) -> None:
        """Refuse an archive whose sites lie otherwise in their scenes, or were reduced otherwise.

        Raises:
            ArchiveMismatch: both sides are named.
        """
        facts = self.facts
        if archive.canvas != facts.canvas and "canvas" not in self.accept:
            wants = f"canvas {facts.canvas} (or --accept canvas)"
            raise ArchiveMismatch(archive.place, f"canvas {archive.canvas}", wants)
        if facts.reduction != "mean" and "reduction" not in self.accept:
            wants = (
                f"reduction {facts.reduction}, which only pictures in memory have, (or --accept reduction)"
            )
            raise ArchiveMismatch(archive.place, "reduction mean", wants)

    def check_site(self, site: Site, spec: RasterSpec, window: Window | None = None) -> None:
        """Refuse a site whose pixels are of another kind; `window` is where it lies in its scene.

        Raises:
            SiteMismatch: both sides are named.
        """
        pixels = self.facts.network.pixels
        if spec.bands != pixels.bands or (spec.dtype != pixels.dtype and "dtype" not in self.accept):
            has, wants = f"{spec.bands} bands of {spec.dtype}", f"{pixels.bands} of {pixels.dtype}"
            way_out = _waived("dtype") if spec.bands == pixels.bands else ""
            raise SiteMismatch(site.site_id, has, f"the bundle was trained on {wants}{way_out}")
        seen = self.facts.gsd_m
        found = None if seen is None or "gsd" in self.accept else self._ground_sampling(site, spec, window)
        if seen is None or found is None:
            return
        reach = GSD_FACTOR / _MEASURED
        if not seen[0] < found * reach < seen[1] * reach * reach:
            wants = f"the bundle was trained on pixels of {_span(*seen)} m{_waived('gsd')}"
            raise SiteMismatch(site.site_id, f"pixels of {_number(float(f'{found:.3g}'))} m", wants)

    def _ground_sampling(self, site: Site, spec: RasterSpec, window: Window | None) -> float | None:
        return ground_sampling(site, spec, window, canvas=self.facts.canvas)

    def examine(self, site_id: str, spec: RasterSpec) -> Callable[[TileBatch], None] | None:
        """What the engine asks about a site's first tiles; None where there is nothing to ask.

        The function raises SiteMismatch where the values are not of the range that training has seen.
        """
        trained = self.facts.network.pixels.dtype
        if "value_range" in self.accept or spec.dtype == trained == "uint8" or self._seen() is None:
            return None
        return partial(self._check_values, site_id)

    def _seen(self) -> tuple[float, float] | None:
        """The range of values seen in training; all that uint8 has where a bundle does not say."""
        whole = (0.0, 255.0) if self.facts.network.pixels.dtype == "uint8" else None
        return self.facts.value_range or whole

    def _check_values(self, site_id: str, batch: TileBatch) -> None:
        """How high the values go: to half of the dimmest training site or more, to twice the brightest."""
        seen, peak = self._seen(), peak_of(batch)
        if seen is None or peak is None:
            return
        low, high = seen
        dimmest, brightest = self.facts.value_peaks or (low, high)
        if (dimmest - low) / PEAK_FACTOR <= peak - low <= PEAK_FACTOR * (max(high, brightest) - low):
            return
        each = f", up to {_number(dimmest)} or more at every site" if self.facts.value_peaks else ""
        wants = f"the bundle was trained on values of {_span(low, high)}{each}{_waived('value_range')}"
        raise SiteMismatch(site_id, f"values up to {_number(peak)}", wants)


def peak_of(batch: TileBatch) -> float | None:
    """How high the values of some tiles go: the 99th percentile of the valid ones; None: none is valid."""
    step = max(1, batch.pixels.shape[-1] // _SAMPLES)
    valid = batch.validity[:, ::step, ::step] > 0
    values = batch.pixels[..., ::step, ::step].transpose(0, 2, 3, 1)[valid]
    return float(np.percentile(values, PEAK_PERCENT)) if values.size else None


def ground_sampling(site: Site, spec: RasterSpec, window: Window | None, *, canvas: str) -> float | None:
    """Metres a native pixel of a stored site: by its georeference, otherwise as the manifest says.

    None where neither knows. What a manifest says is of the scene, not of a canvas made of it.
    """
    return pixel_m(spec, window) or (site.gsd if canvas == "native" else None)


def _span(low: float, high: float) -> str:
    return _number(low) if low == high else f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _waived(word: Contradiction) -> str:
    return f" (--accept {word} takes it as it is)"
