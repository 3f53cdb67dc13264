"""What training has seen of the ground: distances, values, and how high they go."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tnet_geo.grid import Window, root_of
from tnet_geo.inference import SiteTask
from tnet_geo.learning.seen import seen_in
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.pyramid import MemoryReader

HALF_PX = 16


def site(
    pixels: NDArray[np.uint16], validity: NDArray[np.uint8] | None = None, gsd_m: float | None = None
) -> LabelledSite:
    reader = MemoryReader.of(pixels, HALF_PX, validity)
    window = Window(0, 0, *reader.spec.shape)
    return LabelledSite(0, SiteTask("site", reader, window), 0, root_of(window, HALF_PX), gsd_m)


def flat(value: int, side: int = 128) -> NDArray[np.uint16]:
    return np.full((2, side, side), value, np.uint16)


def test_distances_span_all_sites_that_know_theirs() -> None:
    sites = [site(flat(9), gsd_m=gsd_m) for gsd_m in (None, 0.31, 2.4, 0.5)]
    assert seen_in(sites).gsd_m == (0.31, 2.4)
    assert seen_in(sites[:1]).gsd_m is None


def test_values_span_all_but_a_thousandth_on_either_side() -> None:
    ramp = np.tile(np.arange(128, dtype=np.uint16), (2, 128, 1)) * 100
    seen = seen_in([site(ramp)])
    assert seen.value_range is not None
    low, high = seen.value_range
    assert 0 <= low <= 100
    assert 12_600 <= high <= 12_700


def test_one_hot_pixel_is_no_range() -> None:
    hot = flat(700)
    hot[:, 3, 3] = 65_535
    assert seen_in([site(hot)]).value_range == (700, 700)


def test_peaks_are_those_of_the_dimmest_and_the_brightest_site() -> None:
    seen = seen_in([site(flat(value)) for value in (900, 250, 4000)])
    assert seen.value_peaks == (250, 4000)
    assert seen.value_range == (250, 4000)


def test_pixels_that_are_not_valid_were_not_seen() -> None:
    pixels, validity = flat(500), np.full((128, 128), 255, np.uint8)
    pixels[:, :64], validity[:64] = 60_000, 0
    nothing = site(flat(60_000), np.zeros((128, 128), np.uint8))
    seen = seen_in([site(pixels, validity), nothing])
    assert seen.value_range == seen.value_peaks == (500, 500)
    assert seen_in([nothing]).facts() == {"gsd_m": None, "value_range": None, "value_peaks": None}


@pytest.mark.parametrize("count", [257, 600])
def test_values_of_many_sites_are_those_of_some_that_are_evenly_spread(count: int) -> None:
    sites = [site(flat(number, side=32)) for number in range(count)]
    seen = seen_in(sites)
    read = [one for one in sites if one.task.reader.meter.tiles]
    assert len(read) <= 256
    assert seen.value_peaks is not None
    assert seen.value_peaks[0] == 0
    assert seen.value_peaks[1] >= count - 3
