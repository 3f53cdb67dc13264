"""Results of a run, and questions to them in SQL: nothing can be written, no file or network reached."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute
from pydantic import ValidationError

from tnet_geo.errors import InvalidResults, QueryRefused
from tnet_geo.results.schema import TABLES, RunRecord
from tnet_geo.results.store import part_files
from tnet_geo.results.summary import Summary, summarise
from tnet_geo.results.walks import Walk, walks_of

__all__ = ["Results"]

EXAMPLE = "SELECT label, count(*) FROM predictions GROUP BY 1"

MEMORY = "60%"
"""Of the machine's; a question that needs more is refused instead of filling a disk."""

LOCK = (
    f"SET memory_limit = '{MEMORY}'",
    "SET temp_directory = ''",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_external_access = false",  # COPY, ATTACH, read_csv, glob, INSTALL
    "SET lock_configuration = true",
)
"""What is left after these is SELECT over tables in memory."""

BY_OTHER_NAMES = re.compile(r"query|duckdb_", re.IGNORECASE)
"""`query('...')` and `query_table('...')` read tables whose names do not stand in the question."""


class Results:
    """What the latest finished run of a folder answered.

    >>> results = Results.open("results")
    >>> results.query("SELECT count(*) AS sites FROM predictions").to_pylist()
    [{'sites': 36}]
    """

    def __init__(self, path: Path, record: RunRecord) -> None:
        """Prefer `Results.open`, which checks what is there."""
        self.path, self.record = path, record

    def __repr__(self) -> str:
        return f"Results({str(self.path)!r}, run={self.record.id!r})"

    @classmethod
    def open(cls, path: str | Path, run: str | None = None) -> Results:
        """The run of folder `path` that is named, or else the one that finished last.

        Raises:
            InvalidResults: no run, or none of that name, has finished there, or its record or some of its
                parts are gone.
        """
        folder = Path(path)
        records = [_read_record(folder, file) for file in sorted((folder / "runs").glob("*.json"))]
        if run is not None:
            records = [record for record in records if record.id == run]
        if not records:
            raise InvalidResults(
                str(folder), f"holds no finished run {run}" if run else "holds no finished run"
            )
        record = max(records, key=lambda record: (record.finished, record.id))
        results = cls(folder, record)
        there = results._stored_rows("predictions")
        if there != record.answered:
            what = f"has lost parts of run {record.id} ({there} of {record.answered} answers are there)"
            raise InvalidResults(str(folder), what)
        return results

    def query(self, sql: str, *, seconds: float = 60, rows: int | None = None) -> pa.Table:
        """The answer to one SELECT in DuckDB's SQL.

        Tables: `predictions` (one row per answered site), `trails` (one per look), `failed` (one per
        site set aside), each with the column `run`. Geometries come back as WKB.

        seconds: after which the question is interrupted.
        rows: at most this many are fetched; None: all.

        Raises:
            QueryRefused: anything but one SELECT, or one that the database refuses.
            InvalidResults: a part cannot be read.
        """
        with duckdb.connect(":memory:", config={"python_enable_replacements": "false"}) as database:
            statement = _one_select(database, sql)
            clock = threading.Timer(seconds, database.interrupt)
            clock.start()
            try:
                self._load(database, sql)
                return _fetch(database.sql(statement), rows)
            except duckdb.InterruptException as error:
                remedy = "narrow it with WHERE or LIMIT, or allow it more seconds"
                raise QueryRefused(f"took longer than {seconds:g} s and was stopped", remedy) from error
            except duckdb.Error as error:
                raise _refusal(sql, error) from error
            finally:
                clock.cancel()

    def summary(self) -> Summary:
        """Answers counted and weighed: by class, with accuracy where the truth is known, and cost."""
        return summarise(self.record, self.query)

    def walks(self, sites: Sequence[str]) -> list[Walk]:
        """The answers of some sites with all their looks, in the order asked for.

        Raises:
            QueryRefused: a site has no answer, or was set aside; then the reason is told.
        """
        predictions, trails = (self.rows(table, sites) for table in ("predictions", "trails"))
        found = walks_of(predictions, trails)
        for site in sites:
            if site not in found:
                raise self._no_answer(site)
        return [found[site] for site in sites]

    def rows(self, table: str, sites: Sequence[str]) -> list[dict[str, Any]]:
        """All rows of some sites in one of the tables, read from the parts without a database."""
        only = compute.field("site_id").isin(pa.array(sites, pa.string()))
        parts = (pq.read_table(file, filters=only, partitioning=None) for file in self._files(table))
        return [row for part in parts for row in part.to_pylist()]

    def answered(self) -> pa.Table:
        """Columns `site_id` and `ended_by` of all answers, part by part."""
        parts = [
            pq.read_table(file, columns=["site_id", "ended_by"], partitioning=None)
            for file in self._files("predictions")
        ]
        return pa.concat_tables([TABLES["predictions"].empty_table().select(["site_id", "ended_by"]), *parts])

    def _no_answer(self, site: str) -> QueryRefused:
        aside = self.rows("failed", [site])
        if aside:
            reason = aside[0]["reason"].rstrip(".")
            return QueryRefused(f"names site {site!r}, which was set aside ({reason})", "name another site")
        remedy = "SELECT site_id FROM predictions lists those that have one"
        return QueryRefused(f"names site {site!r}, which has no answer", remedy)

    def failures(self) -> list[tuple[str, str]]:
        """Site and reason of all that was set aside, by site."""
        table = self.query("SELECT site_id, reason FROM failed ORDER BY ALL")
        return list(zip(table["site_id"].to_pylist(), table["reason"].to_pylist(), strict=True))

    def _files(self, table: str) -> list[Path]:
        return part_files(self.path, table, self.record.id)

    def _stored_rows(self, table: str) -> int:
        try:
            return sum(pq.read_metadata(file).num_rows for file in self._files(table))
        except (OSError, pa.ArrowException) as error:
            raise InvalidResults(str(self.path), f"has a damaged part ({_first_line(error)})") from error

    def _load(self, database: duckdb.DuckDBPyConnection, sql: str) -> None:
        """Make the three tables, fill those that the question mentions, then lock the door."""
        for name, schema in TABLES.items():
            source = database.from_arrow(schema.empty_table())
            asked = name in sql.lower() or BY_OTHER_NAMES.search(sql)
            files = [str(file) for file in self._files(name)] if asked else []
            try:
                if files:
                    source = database.read_parquet(files, hive_partitioning=False)
                source.project(f"*, '{self.record.id}' AS run").create(name)
            except (duckdb.IOException, duckdb.InvalidInputException) as error:
                raise InvalidResults(str(self.path), f"has a damaged part ({_first_line(error)})") from error
        for setting in LOCK:
            database.execute(setting)


def _read_record(folder: Path, file: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        what = f"has a record that this version does not read, runs/{file.name}"
        raise InvalidResults(str(folder), what) from error


def _one_select(database: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The only statement, if it is a SELECT (WITH, FROM, VALUES, DESCRIBE and SUMMARIZE count as one)."""
    try:
        statements = database.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryRefused(f"is not SQL ({_first_line(error)})", f"ask one SELECT, like {EXAMPLE}") from error
    if not statements:
        raise QueryRefused("is empty", f"ask one SELECT, like {EXAMPLE}")
    if len(statements) > 1:
        raise QueryRefused(f"holds {len(statements)} statements", "ask one SELECT at a time")
    if statements[0].type != duckdb.StatementType.SELECT:
        remedy = "results cannot be changed from here, ask one SELECT"
        raise QueryRefused(f"is a {statements[0].type.name} statement", remedy)
    return statements[0]


def _fetch(answer: duckdb.DuckDBPyRelation, rows: int | None) -> pa.Table:
    if rows is None:
        return answer.to_arrow_table()
    reader = answer.to_arrow_reader(max(1, min(rows, 65_536)))
    batches: list[pa.RecordBatch] = []
    while sum(batch.num_rows for batch in batches) < rows:
        try:
            batches.append(reader.read_next_batch())
        except StopIteration:
            break
    return pa.Table.from_batches(batches, reader.schema).slice(0, rows)


def _refusal(sql: str, error: duckdb.Error) -> QueryRefused:
    """What the database refuses, with the columns that there are or the way out."""
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException):
        return QueryRefused(f"does not fit the tables ({_first_line(error)})", _known_columns(sql))
    if isinstance(error, duckdb.PermissionException):
        return QueryRefused(
            "reaches for a file", "only the tables predictions, trails and failed can be read"
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        remedy = "select fewer columns or rows, or open the Parquet files with DuckDB itself"
        return QueryRefused(f"needs more than {MEMORY} of the memory", remedy)
    return QueryRefused(f"failed ({_first_line(error)})", "mend it and ask again")


def _known_columns(sql: str) -> str:
    """The columns of the tables that a question mentions; of all if it mentions none."""
    named = [table for table in TABLES if re.search(rf"\b{table}\b", sql, re.IGNORECASE)]
    return "; ".join(f"{table} has {_listed([*TABLES[table].names, 'run'])}" for table in named or TABLES)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _first_line(error: BaseException) -> str:
    """DuckDB's message without its kind, position and trailing stop."""
    line = str(error).split("\n", maxsplit=1)[0]
    return re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", line).rstrip(" .!")
