"""Archives on servers that throttle, fail, hang up in the middle, or go away while a job runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.faulty_proxy import KINDS, FaultyProxy, faulty_proxy
from tests.file_server import file_server
from tests.jobs import Running, Work, check, cog_work, parts, pyramid_work
from tests.object_store import BUCKET, object_server
from tnet_geo.operations import build_archive
from tnet_geo.pyramid.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LOST = 6
"""Exit status of a job that lost a place."""
SCENES, WINDOWS = 6, 20


@dataclass(frozen=True)
class Served:
    """A work whose archive lies behind a proxy, and what it publishes when nothing fails."""

    work: Work
    environment: Mapping[str, str]
    proxy: FaultyProxy
    whole: Mapping[str, bytes]
    counts: Counter[str]
    """Requests and bytes of that run."""
    record: Mapping[str, object]
    """Of that run."""

    def start(self, out: Path) -> Running:
        return self.work.start(out, self.environment)


def served(work: Work, environment: Mapping[str, str], proxy: FaultyProxy, out: Path) -> Served:
    proxy.counts()
    running = work.start(out, environment)
    assert running.ended() == 0, running.said()
    (record,) = out.glob("runs/*.json")
    whole = parts(out)
    check(work, out, whole)
    return Served(work, environment, proxy, whole, proxy.counts(), json.loads(record.read_text()))


@pytest.fixture(scope="module", params=["s3-pyramids", "s3-cogs", "http-cogs"])
def remote(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    server, kind = request.param.split("-")
    work = (pyramid_work if kind == "pyramids" else cog_work)(folder, SCENES, WINDOWS)
    if server == "http":
        with file_server(Path(work.archive)) as url, faulty_proxy(url, seed=1) as proxy:
            listed = folder / "cogs.txt"
            listed.write_text("\n".join(f"{proxy.url}/s{n:03d}.tif" for n in range(SCENES)) + "\n")
            yield served(replace(work, archive=str(listed)), {}, proxy, folder / "whole")
        return
    with object_server(folder / "server.log") as store, faulty_proxy(store.endpoint, seed=2) as proxy:
        environment = store.environment | {"AWS_ENDPOINT_URL": proxy.url}
        place = f"s3://{BUCKET}/{kind}"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            if kind == "pyramids":
                assert build_archive(work.manifest, place, half_px=16, workers=1).exit_code == 0
            else:
                for path in Path(work.archive).iterdir():
                    open_store(place).write(path.name, path.read_bytes())
        yield served(replace(work, archive=place), environment, proxy, folder / "whole")


def test_the_record_says_what_the_server_has_counted(remote: Served) -> None:
    """Beside the walks the command itself asks for what names and describes the scenes, and no more."""
    measured, counts = remote.record["measured"], remote.counts
    assert isinstance(measured, dict)
    assert 0 <= counts["requests"] - measured["requests"] <= 30 * SCENES
    assert 0 <= counts["bytes"] - measured["bytes_fetched"] <= 4 * 65_536 * SCENES
    if not remote.work.archive.endswith("pyramids"):  # blocks of COGs are fetched together, and once
        assert counts["requests"] < measured["tiles"]
        assert counts["bytes"] < measured["bytes_decoded"]


def test_one_failed_request_in_ten_costs_nothing(remote: Served, tmp_path: Path) -> None:
    remote.proxy.fail(0.1)
    try:
        running = remote.start(tmp_path / "out")
        assert running.ended() == 0, running.said()
    finally:
        remote.proxy.fail(0)
    counts = remote.proxy.counts()
    assert all(counts[kind] > 0 for kind in KINDS)
    assert sum(counts[kind] for kind in KINDS) > counts["requests"] / 20
    check(remote.work, tmp_path / "out", remote.whole)


def test_a_server_that_goes_away_and_comes_back_costs_nothing(remote: Served, tmp_path: Path) -> None:
    running = remote.start(tmp_path / "out")
    try:
        running.until_parts(3)
        remote.proxy.fail(1)
        time.sleep(8)
    finally:
        remote.proxy.fail(0)
    assert running.ended() == 0, running.said()
    check(remote.work, tmp_path / "out", remote.whole)


def test_a_server_that_stays_away_ends_the_job_in_one_sentence_and_sets_nothing_aside(
    remote: Served, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    running = remote.start(out)
    try:
        running.until_parts(3)
        remote.proxy.fail(1)
        assert running.ended(900) == LOST, running.said()
    finally:
        remote.proxy.fail(0)
    assert remote.work.archive in running.last_word()
    assert "run the same command" in running.last_word()
    left = parts(out)
    assert not any(name.startswith("failed") for name in left)
    assert left.items() <= remote.whole.items()
    assert remote.start(out).ended() == 0
    check(remote.work, out, remote.whole)
