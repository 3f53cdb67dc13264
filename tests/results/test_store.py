"""A part is whole or absent, and the same answers are the same bytes, whatever happens meanwhile."""

from __future__ import annotations

import csv
import os
import random
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.results.synthetic import record_of, row_of
from tnet_geo.errors import Incomplete
from tnet_geo.results import PredictionRow, RunRecord, finish_run, has_part, parts_of, store, write_part
from tnet_geo.results.store import adopt_parts
from tnet_geo.trail import Failure

ROWS = [row_of(n, (200, 300)) for n in range(6)]
FAILURES = [Failure("z", "Scene z cannot be read."), Failure("y", "Scene y cannot be read.")]


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder but hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_version(folder: Path, version: int) -> None:
    """Write part `p`: version 0 answers all sites, version k sets site k aside."""
    rows = [row for n, row in enumerate(ROWS) if version == 0 or n != version]
    failures = [Failure(ROWS[version].answer.site_id, f"version {version}")] if version else []
    write_part(folder, "r", "p", rows, failures)


def test_the_same_answers_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    write_part(tmp_path / "one", "r", "p", ROWS, FAILURES)
    write_part(tmp_path / "other", "r", "p", shuffled, FAILURES[::-1])
    assert content(tmp_path / "one") == content(tmp_path / "other")
    assert sorted(content(tmp_path / "one")) == [
        "failed/run=r/part-p.parquet",
        "predictions/run=r/part-p.parquet",
        "trails/run=r/part-p.parquet",
    ]


def test_a_part_without_answers_is_sealed_too(tmp_path: Path) -> None:
    seal = write_part(tmp_path, "r", "p", [], FAILURES)
    assert pq.read_metadata(seal).num_rows == 0
    assert has_part(tmp_path, "r", "p")
    assert not has_part(tmp_path, "r", "q")
    assert parts_of(tmp_path, "r") == {"p"}
    assert parts_of(tmp_path, "s") == set()


def test_writing_a_part_again_touches_nothing(tmp_path: Path) -> None:
    seal = write_part(tmp_path, "r", "p", ROWS, FAILURES)
    before = seal.stat().st_ino
    assert write_part(tmp_path, "r", "p", ROWS, FAILURES).stat().st_ino == before


def test_a_part_that_says_something_else_takes_the_place_of_the_first(tmp_path: Path) -> None:
    write_part(tmp_path / "twice", "r", "p", ROWS[:3], FAILURES)
    write_part(tmp_path / "twice", "r", "p", ROWS)
    write_part(tmp_path / "once", "r", "p", ROWS)
    assert content(tmp_path / "twice") == content(tmp_path / "once")


@pytest.mark.parametrize("step", range(3))
def test_a_write_that_dies_between_two_files_leaves_no_seal_and_is_mended(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(tmp_path / "part", "r", "p", ROWS[:2])
    steps = iter(range(9))
    whole = store._replace

    def dying(path: Path, told: bytes | None) -> None:
        if next(steps) == step:
            raise KeyboardInterrupt
        whole(path, told)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_replace", dying)
        with pytest.raises(KeyboardInterrupt):
            write_part(tmp_path / "part", "r", "p", ROWS, FAILURES)
    assert not has_part(tmp_path / "part", "r", "p")
    write_part(tmp_path / "part", "r", "p", ROWS, FAILURES)
    write_part(tmp_path / "fresh", "r", "p", ROWS, FAILURES)
    assert content(tmp_path / "part") == content(tmp_path / "fresh")


def write_for_ever(folder: Path) -> None:
    version = 0
    while True:
        write_version(folder, version)
        version = (version + 1) % len(ROWS)


def test_what_a_killed_writer_leaves_is_mended_by_the_next(tmp_path: Path) -> None:
    write_version(tmp_path / "fresh", 0)
    for pause in (0.0, 0.023):
        folder = tmp_path / f"killed after {pause}"
        writer = get_context("spawn").Process(target=write_for_ever, args=(folder,))
        writer.start()
        while not has_part(folder, "r", "p") and writer.is_alive():
            time.sleep(0.001)
        time.sleep(pause)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        write_version(folder, 0)
        assert content(folder) == content(tmp_path / "fresh")
        assert not list(folder.rglob("*.draft"))


def test_processes_that_write_one_part_at_once_leave_that_of_one_of_them(tmp_path: Path) -> None:
    versions = [version for _ in range(5) for version in range(4)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(write_version, [tmp_path / "part"] * len(versions), versions))
    for version in range(4):
        write_version(tmp_path / str(version), version)
    assert content(tmp_path / "part") in [content(tmp_path / str(version)) for version in range(4)]


@pytest.mark.parametrize("name", ["", "../p", "a b", ".p", "p/q"])
def test_a_name_that_cannot_be_a_file_s_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be part of a file's name"):
        write_part(tmp_path, "r", name, ROWS)
    with pytest.raises(ValueError, match="cannot be part of a file's name"):
        write_part(tmp_path, name, "p", ROWS)
    assert not content(tmp_path)


def test_a_site_with_two_outcomes_in_a_part_is_refused(tmp_path: Path) -> None:
    site = ROWS[0].answer.site_id
    with pytest.raises(ValueError, match=f"two outcomes in one part: {site}"):
        write_part(tmp_path, "r", "p", ROWS, [Failure(site, "lost")])
    assert not content(tmp_path)


def two_parts(folder: Path, rows: list[PredictionRow]) -> None:
    write_part(folder, "r", "p", rows[:3], FAILURES[:1])
    write_part(folder, "r", "q", rows[3:], FAILURES[1:])


def test_a_run_that_adds_up_is_recorded_with_its_failures(tmp_path: Path) -> None:
    two_parts(tmp_path, ROWS)
    path = finish_run(tmp_path, record_of("r", answered=6, set_aside=2))
    assert path == tmp_path / "runs/r.json"
    assert RunRecord.model_validate_json(path.read_bytes()) == record_of("r", answered=6, set_aside=2)
    with (tmp_path / "failed.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["site_id", "reason"],
            ["y", "Scene y cannot be read."],
            ["z", "Scene z cannot be read."],
        ]


def test_a_run_without_failures_takes_the_list_of_an_earlier_one_away(tmp_path: Path) -> None:
    (tmp_path / "failed.csv").write_text("site_id,reason\nold,old\n")
    write_part(tmp_path, "r", "p", ROWS)
    finish_run(tmp_path, record_of("r", answered=6, set_aside=0))
    assert not (tmp_path / "failed.csv").exists()


@pytest.mark.parametrize(
    ("answered", "set_aside", "selected"), [(5, 2, 7), (6, 1, 7), (6, 2, 9), (7, 1, 8), (6, 2, 7)]
)
def test_a_run_that_does_not_add_up_is_red(
    answered: int, set_aside: int, selected: int, tmp_path: Path
) -> None:
    two_parts(tmp_path, ROWS)
    record = record_of("r", answered, set_aside).model_copy(update={"selected": selected})
    with pytest.raises(
        Incomplete, match=f"Run r selected {selected} items, but has 6 results and 2 set aside"
    ):
        finish_run(tmp_path, record)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "failed.csv").exists()


def test_a_site_that_is_in_two_parts_makes_the_run_red(tmp_path: Path) -> None:
    two_parts(tmp_path, [*ROWS, ROWS[0]])
    with pytest.raises(Incomplete):
        finish_run(tmp_path, record_of("r", answered=7, set_aside=2))


def test_parts_that_another_run_has_are_taken_from_there_and_written_once(tmp_path: Path) -> None:
    write_part(tmp_path, "first", "p", ROWS[:3], FAILURES)
    write_part(tmp_path, "first", "q", ROWS[3:])
    before = content(tmp_path)
    assert adopt_parts(tmp_path, "second", ["p", "new"]) == {"p"}
    after = content(tmp_path)
    assert parts_of(tmp_path, "second") == {"p"}
    assert before.items() <= after.items()
    for name in after.keys() - before.keys():
        origin = name.replace("run=second", "run=first")
        assert (tmp_path / name).samefile(tmp_path / origin)
    assert len(after) == len(before) + 3
    write_part(tmp_path, "second", "p", ROWS[:2])  # in place of what it shared, which the other run keeps
    assert {name: content(tmp_path)[name] for name in before} == before


def test_parts_are_copied_where_files_cannot_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_part(tmp_path, "first", "p", ROWS)
    assert adopt_parts(tmp_path, "second", ["p"]) == {"p"}
    (first,), (second,) = (list(tmp_path.glob(f"predictions/run={run}/*")) for run in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert not first.samefile(second)


def test_an_unsealed_part_is_not_taken(tmp_path: Path) -> None:
    write_part(tmp_path, "first", "p", ROWS).unlink()
    assert adopt_parts(tmp_path, "second", ["p"]) == set()


def test_evidence_and_bias_are_stored_so_that_they_add_up_to_the_logit(tmp_path: Path) -> None:
    seal = write_part(tmp_path, "r", "p", [replace(ROWS[0], split=None)])
    row = pq.read_table(seal).to_pylist()[0]
    looks = pq.read_table(tmp_path / "trails/run=r/part-p.parquet").to_pylist()
    assert row["logit"] == pytest.approx(row["bias"] + sum(look["evidence"] for look in looks))
    assert row["tiles"] == len(looks) == 5
    assert row["split"] is None
    assert [look["look"] for look in looks] == [0, 1, 2, 3, 4]
    assert [look["parent"] for look in looks][:2] == [None, 0]
