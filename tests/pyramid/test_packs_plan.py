"""Who goes into which pack, in how many files, and in how much memory: known before anything is written."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packs import SETTINGS, contents, member_of, members_of, pack_all
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.raster import open_raster
from tnet_geo.pyramid import ArchiveSettings, packs
from tnet_geo.pyramid.pack_reader import find_packed
from tnet_geo.pyramid.packs import (
    PackMember,
    PackPlan,
    pack_bytes,
    pack_digest,
    pack_files,
    plan_packs,
    planned_member,
)
from tnet_geo.pyramid.places import LocalStore

SITE = PackMember("s", "s.tif", None, (512, 512), 3, "uint8", True, 512 * 512)


def sites(count: int, **facts: object) -> list[PackMember]:
    return [replace(SITE, scene_id=f"s{n:07d}", source=f"s{n:07d}.tif", **facts) for n in range(count)]  # type: ignore[arg-type]


def names(plans: list[PackPlan]) -> list[list[str]]:
    return [[member.scene_id for member in plan.members] for plan in plans]


@settings(deadline=None, derandomize=True)
@given(st.permutations(range(12)), st.integers(1, 5))
def test_the_same_packs_whatever_the_order(order: list[int], most: int) -> None:
    members = [
        replace(member, shape=(8, 8) if n % 3 else (9, 8), bands=1 + n % 2)
        for n, member in enumerate(sites(12))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "MOST_SITES", most)
        plans = plan_packs(members)
        assert plan_packs([members[n] for n in order]) == plans
    assert sorted(chain.from_iterable(names(plans))) == [member.scene_id for member in members]
    assert all(len(plan.members) <= most for plan in plans)
    assert all(len({member.kind for member in plan.members}) == 1 for plan in plans)


def test_packs_are_full_before_another_is_begun() -> None:
    assert [len(plan.members) for plan in plan_packs(sites(2500))] == [1024, 1024, 452]


def test_work_for_many_minutes_is_more_than_one_pack() -> None:
    large = sites(100, source_px=400_000_000)
    assert [len(plan.members) for plan in plan_packs(large)] == [10] * 10
    assert [len(plan.members) for plan in plan_packs(sites(3, source_px=9_000_000_000))] == [1, 1, 1]


def test_a_build_that_was_killed_ends_in_the_packs_of_an_undisturbed_one() -> None:
    members = sites(5000)
    undisturbed = plan_packs(members)
    sealed = {member.scene_id for n in (0, 3) for member in undisturbed[n].members}
    sealed.remove("s0000007")  # was set aside, and will be again
    rest = plan_packs(members, sealed)
    assert rest[:-1] == [undisturbed[n] for n in (1, 2, 4)]
    assert names(rest[-1:]) == [["s0000007"]]


def test_added_sites_share_packs_however_they_are_spread() -> None:
    members = sites(5000)
    there = {member.scene_id for n, member in enumerate(members) if n % 10}
    assert [len(plan.members) for plan in plan_packs(members, there)] == [500]
    assert plan_packs(members, {member.scene_id for member in members}) == []


def test_halves_of_a_plan_find_the_one_that_breaks_a_task() -> None:
    (plan,) = plan_packs(sites(5))
    first, second = plan.halves()
    assert (*first.members, *second.members) == plan.members
    assert (len(first.members), len(second.members)) == (2, 3)


def test_large_scenes_are_not_packed_but_sites_on_a_canvas_always_are(tmp_path: Path) -> None:
    source = str(write_raster(tmp_path / "wide.tif", random_pixels(1, (4, 1025), 1)))
    with open_raster(source) as raster:
        info = raster.info
    assert planned_member("wide", source, None, info, SETTINGS) is None
    fits = replace(info, shape=(1024, 1024))
    assert planned_member("wide", source, None, fits, SETTINGS) is not None
    site = planned_member("a", source, Window(0, 3, 2, 2), info, ArchiveSettings(canvas="fit:32"))
    assert site is not None
    assert (site.shape, site.window) == ((32, 32), Window(0, 3, 2, 2))


def test_a_window_beside_its_source_is_named(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "a.tif", random_pixels(1, (70, 50)))
    with pytest.raises(SourceUnreadable, match="no pixel in the window of far"):
        member_of("far", source, ArchiveSettings(canvas="fit:32"), Window(100, 0, 10, 10))


def test_digests_follow_from_bytes_settings_and_on_a_canvas_from_the_window() -> None:
    fit, other = ArchiveSettings(canvas="fit:32"), ArchiveSettings(canvas="fit:64")
    here, there = Window(0, 0, 5, 5), Window(1, 0, 5, 5)
    digests = {
        pack_digest(source, window, chosen)
        for source in ("aa", "bb")
        for window in (None, here, there)
        for chosen in (fit, other)
    }
    assert len(digests) == 12
    assert pack_digest("aa", here, SETTINGS) == pack_digest("aa", None, SETTINGS)  # the scene is packed whole


# --- files ---


@pytest.mark.parametrize("half_px", [16, 32, 56, 64, 112, 128, 224])
@pytest.mark.parametrize("all_valid", [True, False])
def test_a_million_sites_of_512_px_are_at_most_50_000_files(half_px: int, all_valid: bool) -> None:
    site = replace(SITE, all_valid=all_valid)
    assert 0 < pack_files(1_000_000, site, ArchiveSettings(half_px=half_px)) <= 50_000


@pytest.mark.parametrize("masked", [False, True])
def test_as_many_files_as_were_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masked: bool) -> None:
    monkeypatch.setattr("tnet_geo.pyramid.pack_layout.SHARD_BYTES", 40_000)
    monkeypatch.setattr(packs, "MOST_SITES", 8)
    store = LocalStore(f"{tmp_path}/archive")
    mask = np.where(np.arange(50) > 3, 255, np.zeros((70, 50))).astype(np.uint8)
    valid = mask if masked else None
    sources = {
        f"s{n:02d}": write_raster(tmp_path / f"s{n:02d}.tif", random_pixels(n, (70, 50)), valid)
        for n in range(19)
    }
    members = members_of(sources)
    outcomes = pack_all(store, members)
    assert len(contents(store)) == sum(outcome.files for outcome in outcomes)
    assert len(contents(store)) == pack_files(19, members[0], SETTINGS)


@pytest.mark.slow
def test_20_000_tiny_sites_are_a_few_hundred_files(tmp_path: Path) -> None:
    """Built for real: 20 packs, each found again, and as many files as the plan says."""
    source = tmp_path / "sources"
    source.mkdir()
    random = np.random.default_rng(11)
    tiny = random.integers(0, 255, (20_000, 1, 16, 16), np.uint8)
    paths = {}
    for n, pixels in enumerate(tiny):
        path = source / f"{n:05d}.png"
        cv2.imwrite(str(path), pixels[0])
        paths[f"s{n:05d}"] = path
    chosen = ArchiveSettings(half_px=4, store="packs")
    store = LocalStore(f"{tmp_path}/archive")
    one = member_of("s", paths["s00000"], chosen)
    members = [replace(one, scene_id=scene_id, source=str(path)) for scene_id, path in paths.items()]
    outcomes = pack_all(store, members, chosen)
    assert sum(len(outcome.packed) for outcome in outcomes) == 20_000
    files = sum(len(found) for _, _, found in os.walk(store.url))
    assert files == pack_files(20_000, one, chosen) <= 400
    for n in random.choice(20_000, 500, replace=False):
        reader = find_packed(store, f"s{n:05d}")
        assert reader is not None
        np.testing.assert_array_equal(reader.read_level(0)[0], tiny[n])


# --- memory ---


@pytest.mark.slow
@pytest.mark.parametrize("canvas", ["native", "fit:512"])
def test_packing_stays_within_the_memory_that_is_planned(tmp_path: Path, canvas: str) -> None:
    """600 sites of 512 px in a process of its own: what it needs beyond its first pack of one site."""
    script = f"""
import resource, sys
from pathlib import Path
from dataclasses import replace
from tests.packs import member_of
from tests.rasters import random_pixels, write_raster
from tnet_geo.pyramid import ArchiveSettings
from tnet_geo.pyramid.packs import pack_bytes, plan_packs
from tnet_geo.pyramid.pack_writer import write_pack
from tnet_geo.pyramid.places import LocalStore
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
folder, chosen = Path({str(tmp_path)!r}), ArchiveSettings(canvas={canvas!r}, store="packs")
pixels = [random_pixels(n, (512, 512)) for n in range(8)]
sources = [write_raster(folder / f"{{n}}.tif", pixels[n]) for n in range(8)]
members = [member_of(f"s{{n:04d}}", sources[n % 8], chosen) for n in range(600)]
store = LocalStore(f"{{folder}}/archive")
write_pack(plan_packs(members[:1])[0], store, chosen)
before = peak()
(plan,) = plan_packs(members[1:])
write_pack(plan, store, chosen)
print(peak() - before, pack_bytes(plan, chosen))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    needed, planned = map(int, done.stdout.split())
    assert needed < planned < 5 * needed


def test_memory_is_planned_by_shards_and_not_by_sites() -> None:
    full, tenth = (pack_bytes(plan_packs(sites(count))[0], ArchiveSettings()) for count in (1024, 102))
    assert tenth < full < 1 << 30
    assert pack_bytes(plan_packs(sites(1024, shape=(1024, 1024)))[0], ArchiveSettings()) < 3 << 29
    assert pack_bytes(plan_packs(sites(1, shape=(70, 50)))[0], SETTINGS) < 1 << 20
