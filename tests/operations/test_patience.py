"""A place that is gone for a while is waited for; damage is not; and a server's trouble is no damage."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from rasterio.shutil import copy

from tests.archives import TinyArchive, tiny_archive
from tests.networks import small_bundle
from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import PlaceLost, PlaceUnusable
from tnet_geo.imagery import Site
from tnet_geo.operations.classifying import tasks
from tnet_geo.operations.classifying.partitions import Partition
from tnet_geo.operations.classifying.tasks import Job, Outcome, classify_partition, outcomes_of
from tnet_geo.operations.patience import is_servers, patiently, why_lost
from tnet_geo.pyramid import open_scenes
from tnet_geo.results.store import begin_run, parts_of
from tnet_geo.trail import Failure


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr("tnet_geo.operations.patience.time.sleep", pauses.append)
    return pauses


@pytest.fixture
def work(tmp_path: Path) -> tuple[TinyArchive, Job]:
    tiny = tiny_archive(tmp_path, sites=3)
    bundle = small_bundle().save(tmp_path / "bundle")
    results = tmp_path / "results"
    begin_run(results)
    job = Job(
        tiny.archive.place, bundle, results, frozenset(), "folded", "float32", run_id="r", pauses=(1, 2, 4)
    )
    return tiny, job


def test_what_comes_back_costs_pauses_and_nothing_else(waited: list[float]) -> None:
    answers = iter([OSError("Stale file handle"), PlaceUnusable("s3://a", "is away", "wait"), "there"])

    def work() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently("/mnt/a", work, (1, 2, 4)) == "there"
    assert waited == [1, 2]


def test_what_does_not_come_back_is_lost_in_one_sentence(waited: list[float]) -> None:
    def work() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(PlaceLost) as lost:
        patiently("/mnt/results", work, (1, 2))
    assert waited == [1, 2]
    assert lost.value.exit_code == 6
    assert str(lost.value).startswith(
        "/mnt/results was lost on the way ([Errno 28] No space left on device): "
    )


def test_a_defect_is_nobody_s_to_wait_for(waited: list[float]) -> None:
    with pytest.raises(ZeroDivisionError):
        patiently("/mnt/a", lambda: 1 / 0, (1, 2))
    assert waited == []


def test_an_archive_is_lost_when_its_settings_are_and_not_when_a_scene_is(tmp_path: Path) -> None:
    tiny = tiny_archive(tmp_path, sites=2)
    shutil.rmtree(tiny.archive.scenes / "s001")
    assert why_lost(tiny.archive) is None
    tiny.archive.path.rename(tmp_path / "elsewhere")
    assert why_lost(tiny.archive) == "its archive.json is gone"


def test_cogs_are_lost_when_none_of_some_is_there(tmp_path: Path) -> None:
    (tmp_path / "cogs").mkdir()
    for n in range(3):
        source = write_raster(tmp_path / f"{n}.tif", random_pixels(n, (64, 64)))
        copy(source, tmp_path / "cogs" / f"{n}.tif", driver="COG", blocksize=128)
    archive = open_scenes(tmp_path / "cogs")
    (tmp_path / "cogs" / "0.tif").unlink()
    assert why_lost(archive) is None
    (tmp_path / "cogs").rename(tmp_path / "elsewhere")
    assert str(why_lost(archive)).endswith("is gone")


def test_an_archive_that_is_lost_on_the_way_sets_nothing_aside(
    work: tuple[TinyArchive, Job], waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, job = work
    away = tiny.folder / "away"
    tasks.loaded(job)
    tiny.archive.path.rename(away)
    part = Partition("p", tiny.manifest.sites)
    with pytest.raises(PlaceLost, match=r"its archive\.json is gone"):
        classify_partition(job, part)
    assert (waited, parts_of(job.results, "r")) == ([1, 2, 4], set())
    waited.clear()
    monkeypatch.setattr(
        "tnet_geo.operations.patience.time.sleep",
        lambda pause: away.rename(tiny.archive.path) if len(waited) == 1 else waited.append(pause),
    )
    assert classify_partition(job, part).sites == 3
    assert parts_of(job.results, "r") == {"p"}
    assert not list(job.results.glob("failed/*/*"))


def test_a_folder_of_results_that_vanishes_is_not_made_anew(
    work: tuple[TinyArchive, Job], waited: list[float]
) -> None:
    tiny, job = work
    job.results.rename(tiny.folder / "away")
    with pytest.raises(PlaceLost) as lost:
        classify_partition(job, Partition("p", tiny.manifest.sites))
    assert str(job.results) in str(lost.value)
    assert not job.results.exists()


@pytest.mark.parametrize(
    ("reason", "servers"),
    [
        ("s3://b/a answers with an error (SlowDown): look into the server's log, or try again later.", True),
        ("s3://b/a cannot be reached at http://127.0.0.1:1: check AWS_ENDPOINT_URL.", True),
        ("http://h/a.tif cannot be read (HTTP error: error sending request): replace the file.", True),
        ("Scene s, tile (0, 0, 0) cannot be read (UNAVAILABLE: connection closed): mend it.", True),
        ("Scene s, tile (0, 0, 0) cannot be read (DATA_LOSS: Digest mismatch): mend it.", False),
        ("Archive a has no sealed pyramid of scene s500: build it with `tnet-geo pyramid build`.", False),
        ("http://h/500.tif cannot be read (Object at location 500.tif not found: 404): replace it.", False),
    ],
)
def test_a_server_s_trouble_is_told_from_damage(reason: str, servers: bool) -> None:
    assert is_servers(reason) is servers


def test_a_server_that_fails_for_a_while_sets_nothing_aside_and_one_that_goes_on_ends_the_job(
    work: tuple[TinyArchive, Job], waited: list[float]
) -> None:
    tiny, job = work
    asked: list[int] = []

    def ask(sites: Sequence[Site], left: float | None) -> Iterable[Outcome]:
        asked.append(len(sites))
        for site in sites:
            yield Failure(site.site_id, "Scene s cannot be read (s3://b answers with an error (SlowDown)).")

    with pytest.raises(PlaceLost, match="SlowDown"):
        outcomes_of(job, tiny.manifest.sites, ask)
    assert (waited, asked) == ([1, 2, 4], [3] * 8)
