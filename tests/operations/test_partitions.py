"""Partitions: every site once, in order, about equal in looks, each named by what its answers depend on."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.archives import SETTINGS, TinyArchive, tiny_archive
from tests.rasters import random_pixels, write_raster
from tnet_geo.grid import Window
from tnet_geo.imagery import Site
from tnet_geo.operations.classifying.partitions import cut, partitions_of
from tnet_geo.pyramid.build import build_scene

LOOKS = st.lists(st.integers(1, 200), max_size=300)


def looks_of(window: Window) -> int:
    return max(1, window.height * window.width // 1000)


@given(LOOKS, st.integers(1, 64))
def test_groups_hold_every_site_once_in_order_and_are_small_or_alone(looks: list[int], most: int) -> None:
    groups = list(cut(looks, most))
    assert [n for group in groups for n in range(group.start, group.stop)] == list(range(len(looks)))
    for group in groups:
        count = group.stop - group.start
        assert count <= most
        assert count == 1 or sum(looks[group]) <= most


@given(LOOKS.filter(bool), st.integers(1, 64), st.data())
def test_a_site_of_other_looks_moves_borders_in_its_block_alone(
    looks: list[int], most: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(looks) - 1))
    changed = [*looks]
    changed[place] = data.draw(st.integers(1, 200))
    block = place // most
    differ = {(g.start, g.stop) for g in cut(looks, most)} ^ {(g.start, g.stop) for g in cut(changed, most)}
    assert all(start // most == block for start, _ in differ)


@given(LOOKS, LOOKS, st.sampled_from([1, 4, 32]))
def test_sites_that_come_at_the_end_leave_all_but_the_last_block(
    looks: list[int], more: list[int], most: int
) -> None:
    whole = len(looks) // most * most
    before = [(g.start, g.stop) for g in cut(looks, most) if g.stop <= whole]
    after = [(g.start, g.stop) for g in cut([*looks, *more], most) if g.stop <= whole]
    assert before == after


def test_tiny_sites_share_a_partition_and_a_large_one_has_its_own(tiny: TinyArchive) -> None:
    site = tiny.manifest.sites[0]
    sites = [Site(f"{n:02}", site.scene, site.scene_id, Window(0, 0, 20, 20)) for n in range(40)]
    sites[9] = Site("09", site.scene, site.scene_id, Window(0, 0, 64, 64))
    found = partitions_of(
        sites,
        tiny.archive,
        ["settings"],
        looks_of=lambda window: 1000 if window.height == 64 else 1,
        most_looks=64,
    )
    assert [[site.site_id for site in part.sites] for part in found if part.looks >= 1000] == [["09"]]
    assert max(len(part.sites) for part in found) >= 16
    assert [site for part in found for site in part.sites] == sites


def test_names_follow_pixels_settings_and_what_the_manifest_says_and_nothing_else(tmp_path: Path) -> None:
    tiny = tiny_archive(tmp_path, sites=12)

    def names(sites: tuple[Site, ...], *settings: str) -> list[str]:
        found = partitions_of(sites, tiny.archive, settings, looks_of=looks_of, most_looks=8)
        return [part.name for part in found]

    sites = tiny.manifest.sites
    before = names(sites, "bundle")
    assert len(before) == len(set(before)) > 2
    assert names(sites, "bundle") == before
    assert not set(names(sites, "another bundle")) & set(before)
    more = names((*sites, Site("new", sites[0].scene, sites[0].scene_id)), "bundle")
    assert more[:-1] == before
    changed = write_raster(tmp_path / "scenes" / "005.tif", random_pixels(99, (64, 64)))
    build_scene(str(changed), "s005", tiny.archive.path, SETTINGS)
    after = names(sites, "bundle")
    assert len(set(after) - set(before)) == 1
    assert len(after) == len(before)
