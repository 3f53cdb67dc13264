"""Sites that crash whoever reads them, and damaged pixels: they cost themselves and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.jobs import SETTINGS, Work, cog_work, haunted, outcomes, parts, pyramid_work, set_aside

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CURSED = ("cursed0", "cursed1", "cursed2")
"""The first two stand side by side, in one partition."""


@dataclass(frozen=True)
class Undisturbed:
    work: Work
    folder: Path
    whole: Mapping[str, bytes]


@pytest.fixture(scope="module", params=["pyramids", "cogs"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """200 sites, and three that are cursed when somebody says so."""
    folder = tmp_path_factory.mktemp("sites")
    work = (pyramid_work if request.param == "pyramids" else cog_work)(folder, 10, 20, CURSED)
    assert work.run(folder / "whole") == 0
    return Undisturbed(work, folder, parts(folder / "whole"))


def rows(content: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table, in any order."""
    files = content.glob(f"{table}/run=*/part-*.parquet")
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def check_all_but(undisturbed: Undisturbed, out: Path, aside: set[str]) -> None:
    """These are set aside; all others have the rows, and other partitions the bytes, that they would have."""
    names = {site.site_id for site in undisturbed.work.sites}
    assert outcomes(out) == Counter(names)
    assert set(set_aside(out)) == aside
    for table in ("predictions", "trails"):
        whole = [row for row in rows(undisturbed.folder / "whole", table) if row["site_id"] not in aside]
        found = rows(out, table)
        assert len(found) == len(whole)
        assert all(row in whole for row in found)
    changed = {
        Path(name).name for name, content in parts(out).items() if undisturbed.whole.get(name) != content
    }
    assert len(changed) <= len(aside)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os._exit(7)", "status 7"),
        ("os.abort()", "SIGABRT"),
        ("raise RuntimeError('a defect')", "a defect"),
    ],
    ids=["segfault", "exit", "abort", "raise"],
)
def test_sites_that_crash_their_process_are_set_aside_alone(
    undisturbed: Undisturbed, tmp_path: Path, body: str, reason: str
) -> None:
    running = undisturbed.work.start(tmp_path / "out", haunted(tmp_path / "haunted", "cursed", body))
    assert running.ended() == 3, running.said()
    check_all_but(undisturbed, tmp_path / "out", set(CURSED))
    for name, why in set_aside(tmp_path / "out").items():
        assert why.startswith(f"Site {name} broke its task (")
        assert reason in why
    # What was set aside is remembered; whoever wants it asked again takes another folder.
    again = undisturbed.work.start(tmp_path / "out")
    assert again.ended() == 3, again.said()


def test_a_site_that_eats_all_memory_is_set_aside_alone(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """A process that takes too much is killed from outside: by SIGKILL, as whole machines are."""
    body = "os.kill(os.getpid(), signal.SIGKILL)"
    running = undisturbed.work.start(tmp_path / "out", haunted(tmp_path / "haunted", "cursed0", body))
    assert running.ended() == 3, running.said()
    check_all_but(undisturbed, tmp_path / "out", {"cursed0"})


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("stored")
    work = pyramid_work(folder, 4, 12)
    assert work.run(folder / "whole") == 0
    return Undisturbed(work, folder, parts(folder / "whole"))


def test_a_flipped_byte_sets_aside_the_one_site_that_looks_at_it(stored: Undisturbed, tmp_path: Path) -> None:
    readers: dict[tuple[str, int, int, int], set[str]] = {}
    scene_of = {site.site_id: site.scene_id for site in stored.work.sites}
    for look in rows(stored.folder / "whole", "trails"):
        for i in (0, 1):
            for j in (0, 1):
                chunk = (scene_of[look["site_id"]], look["level"], look["row"] + i, look["col"] + j)
                readers.setdefault(chunk, set()).add(look["site_id"])
    scene, level, row, col = next(chunk for chunk, sites in sorted(readers.items()) if len(sites) == 1)
    (alone,) = readers[scene, level, row, col]
    folder = Path(stored.work.archive) / "scenes" / scene / str(level) / "data"
    flip_chunk(folder, row, col)
    running = stored.work.start(tmp_path / "out")
    assert running.ended() == 3, running.said()
    check_all_but(stored, tmp_path / "out", {alone})
    assert f"Scene {scene}, tile (level {level}" in set_aside(tmp_path / "out")[alone]


def flip_chunk(array: Path, row: int, col: int) -> None:
    """Change a bit in the middle of one stored chunk, which the index at the end of its shard finds."""
    side = SETTINGS.shard_chunks
    shard = array / "c" / "0" / str(row // side) / str(col // side)
    content = bytearray(shard.read_bytes())
    index = np.frombuffer(content[-(16 * side**2 + 4) : -4], "<u8").reshape(-1, 2)
    start, length = (int(number) for number in index[row % side * side + col % side])
    content[start + length // 2] ^= 0x10
    shard.write_bytes(content)


def test_damage_in_a_cog_sets_aside_the_sites_that_look_at_the_damaged_block(tmp_path: Path) -> None:
    work = cog_work(tmp_path, 4, 12)
    assert work.run(tmp_path / "whole") == 0
    cog = Path(work.archive) / "s002.tif"
    content = bytearray(cog.read_bytes())
    middle = len(content) // 2  # of five blocks the third one: overview, then native ones row by row
    content[middle : middle + 2000] = bytes(2000)
    cog.write_bytes(content)
    expected = {
        look["site_id"]
        for look in rows(tmp_path / "whole", "trails")
        if look["site_id"].startswith("002-")
        and look["level"] == 0
        and look["row"] * 16 < 128 < look["col"] * 16 + 32  # half_px is 16, blocks have 128 pixels a side
    }
    assert 0 < len(expected) < 12
    running = work.start(tmp_path / "out")
    assert running.ended() == 3, running.said()
    aside = set_aside(tmp_path / "out")
    assert set(aside) == expected
    assert all("tile (level 0" in reason for reason in aside.values())
    whole = {row["site_id"]: row for row in rows(tmp_path / "whole", "predictions")}
    found = {row["site_id"]: row for row in rows(tmp_path / "out", "predictions")}
    assert found == {name: row for name, row in whole.items() if name not in aside}
