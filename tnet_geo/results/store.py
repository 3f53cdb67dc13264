"""Parts of a run and its record on disk: whole or absent, the same bytes for the same answers.

RESULTS/trails/run=<id>/part-<name>.parquet         GeoParquet 1.1
RESULTS/failed/run=<id>/part-<name>.parquet         absent where nothing was set aside
RESULTS/predictions/run=<id>/part-<name>.parquet    GeoParquet 1.1; written last: the part's seal
RESULTS/runs/<id>.json                              written when all parts are there
RESULTS/failed.csv                                  what the latest run has set aside
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from tnet_geo.errors import Incomplete
from tnet_geo.results.geoparquet import parquet_bytes
from tnet_geo.results.schema import FAILED, NAME, PredictionRow, RunRecord
from tnet_geo.results.tables import prediction_table, trail_table
from tnet_geo.trail import Failure

__all__ = [
    "adopt_parts",
    "begin_run",
    "finish_run",
    "has_part",
    "part_files",
    "parts_of",
    "record_of",
    "write_part",
]


def part_files(folder: Path, table: str, run: str) -> list[Path]:
    """The files of one run's table, sorted; `table` is predictions, trails or failed."""
    return sorted((folder / table / f"run={run}").glob("part-*.parquet"))


def parts_of(folder: str | Path, run: str) -> set[str]:
    """Names of the parts of a run that are sealed."""
    return {path.stem.removeprefix("part-") for path in part_files(Path(folder), "predictions", run)}


def has_part(folder: str | Path, run: str, part: str) -> bool:
    """Whether a part is sealed: its predictions, trails and failures are all there."""
    return _part_file(Path(folder), "predictions", run, part).is_file()


def begin_run(folder: str | Path) -> None:
    """Make the folder of results, so that parts can be written to it. Raises: OSError."""
    with _turn(Path(folder)):
        pass


def adopt_parts(folder: str | Path, run: str, names: Collection[str]) -> set[str]:
    """Take what other runs of this folder have published for parts of this one; gives all that it has then.

    Parts of one name say the same, whatever run wrote them. They share files where the file system can.

    Raises: OSError.
    """
    root = Path(folder)
    there = parts_of(root, run)
    wanted = set(names) - there
    if not wanted:
        return there
    with _turn(root):
        homes = _homes(root, wanted, run)
        for table in ("trails", "failed", "predictions"):  # what seals them is last
            for name, home in homes.items():
                source, target = (_part_file(root, table, which, name) for which in (home, run))
                if source.exists():
                    _link(source, target)
            _flush_folder(root / table / f"run={run}")
    return there | homes.keys()


def _homes(root: Path, wanted: set[str], run: str) -> dict[str, str]:
    """Of wanted parts a run, other than this one, that has them."""
    found = {}
    for other in sorted((root / "predictions").glob("run=*")):
        name = other.name.removeprefix("run=")
        if name != run:
            found.update(dict.fromkeys(wanted & parts_of(root, name), name))
    return {part: home for part, home in found.items() if _part_file(root, "trails", home, part).exists()}


def _link(source: Path, target: Path) -> None:
    """One file under two names, or a copy where links cannot be; whole or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        draft.hardlink_to(source)
    except OSError:
        draft.unlink(missing_ok=True)
        _write(draft, source.read_bytes())
    draft.replace(target)


def write_part(
    folder: str | Path,
    run: str,
    part: str,
    rows: Sequence[PredictionRow],
    failures: Sequence[Failure] = (),
    *,
    there: bool = False,
) -> Path:
    """Publish what became of one group of sites; gives the file that seals it.

    Rows are sorted by site, so that the same answers in any order give the same bytes. Killed at any
    moment, the part is sealed or it is not, and writing it again mends it. Processes that write the
    same part at once take turns; what is there in the end is all of one writer. A sealed part
    that says something else is unsealed first.

    there: `begin_run` has made the folder; where it is gone nothing may take its place, such as what lies
    below a file system that is mounted there.

    Raises:
        ValueError: a name that cannot be a file's, or one site twice.
        OSError: the disk is full, or the folder is gone.
    """
    root = Path(folder)
    contents = _part_contents(rows, failures)
    files = {table: _part_file(root, table, run, part) for table in contents}
    with _turn(root, make=not there):
        if all(_holds(files[table], content) for table, content in contents.items()):
            return files["predictions"]
        files["predictions"].unlink(missing_ok=True)
        for table, content in contents.items():  # predictions are last
            _replace(files[table], content)
    return files["predictions"]


def finish_run(folder: str | Path, record: RunRecord) -> Path:
    """Check that every selected site is in the parts once, then write the run's record.

    `failed.csv` is written where sites were set aside, and removed where none were.

    Raises:
        Incomplete: the parts, or the record, do not add up to what was selected.
    """
    root = Path(folder)
    answered, failed = _site_ids(root, record.id), _failed_rows(root, record.id)
    aside = pa.array([site for site, _ in failed], pa.string())
    distinct = pc.count_distinct(pa.chunked_array([*answered.chunks, aside], pa.string())).as_py()
    once = distinct == len(answered) + len(aside) == record.selected
    if not once or (record.answered, record.set_aside) != (len(answered), len(aside)):
        raise Incomplete(record.id, record.selected, len(answered), len(aside))
    path = root / "runs" / f"{record.id}.json"
    with _turn(root):
        _replace(root / "failed.csv", _csv_bytes(failed) if failed else None)
        _replace(path, (record.model_dump_json(indent=2) + "\n").encode())
    return path


def record_of(folder: str | Path, run: str) -> RunRecord | None:
    """The record of a run; None while it is not finished, or where it cannot be read."""
    try:
        content = (Path(folder) / "runs" / f"{run}.json").read_bytes()
        return RunRecord.model_validate_json(content)
    except (FileNotFoundError, ValidationError):
        return None


def _part_contents(rows: Sequence[PredictionRow], failures: Sequence[Failure]) -> dict[str, bytes | None]:
    """Bytes of a part's files by table, in the order in which they are written; None: no file."""
    rows = sorted(rows, key=lambda row: row.answer.site_id)
    failures = sorted(failures, key=lambda failure: failure.site_id)
    sites = [row.answer.site_id for row in rows] + [failure.site_id for failure in failures]
    if len(set(sites)) < len(sites):
        twice = sorted({site for site in sites if sites.count(site) > 1})
        raise ValueError(f"sites have two outcomes in one part: {', '.join(twice)}")
    failed = [{"site_id": failure.site_id, "reason": failure.reason} for failure in failures]
    return {
        "trails": parquet_bytes(trail_table(rows)),
        "failed": parquet_bytes(pa.Table.from_pylist(failed, FAILED)) if failed else None,
        "predictions": parquet_bytes(prediction_table(rows)),
    }


def _part_file(root: Path, table: str, run: str, part: str) -> Path:
    for name in (run, part):
        if not re.match(NAME, name):
            raise ValueError(f"{name!r} cannot be part of a file's name: use letters, digits and . _ -")
    return root / table / f"run={run}" / f"part-{part}.parquet"


@contextmanager
def _turn(root: Path, *, make: bool = True) -> Iterator[None]:
    """Be the only writer of these results; a killed one's turn ends with it."""
    if make:
        root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("ab" if make else "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _holds(path: Path, content: bytes | None) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return content is None


def _replace(path: Path, content: bytes | None) -> None:
    """Write a file, all of it or nothing, or remove it. The draft's name is free: writers take turns."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    try:
        _write(draft, content)
    except OSError:
        with suppress(OSError):  # a full disk is to keep nothing of it
            draft.unlink(missing_ok=True)
        raise
    draft.replace(path)
    _flush_folder(path.parent)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Force the names in a folder, if it is there, to disk."""
    with suppress(FileNotFoundError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _site_ids(root: Path, run: str) -> pa.ChunkedArray:
    """Sites that have an answer; as Arrow keeps them: there may be millions."""
    files = part_files(root, "predictions", run)
    tables = [pq.read_table(file, columns=["site_id"], partitioning=None) for file in files]
    chunks = [chunk for table in tables for chunk in table["site_id"].chunks]
    return pa.chunked_array(chunks, pa.string())


def _failed_rows(root: Path, run: str) -> list[tuple[str, str]]:
    """Site and reason of what a run has set aside, in the order of sites."""
    tables = [pq.read_table(file, partitioning=None) for file in part_files(root, "failed", run)]
    return sorted((row["site_id"], row["reason"]) for table in tables for row in table.to_pylist())


def _csv_bytes(rows: Sequence[tuple[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([tuple(FAILED.names), *rows])
    return text.getvalue().encode()
