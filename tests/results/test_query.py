"""One SELECT at a time, over the latest finished run, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.results.synthetic import Scenes, land, make_results, record_of, row_of
from tnet_geo.errors import InvalidResults, QueryRefused
from tnet_geo.results import Results, finish_run, write_part

FAILED_COLUMNS = "failed has site_id, reason, run"


def refusal(results: Results, sql: str, **how: float) -> str:
    with pytest.raises(QueryRefused) as caught:
        results.query(sql, **how)  # type: ignore[arg-type]
    return str(caught.value)


def test_tables_are_answers_looks_and_failures_of_the_run(results: Results) -> None:
    counts = """
        SELECT
            (SELECT count(*) FROM predictions) AS answers,
            (SELECT count(*) FROM trails) AS looks,
            (SELECT count(*) FROM failed) AS failures,
            (SELECT any_value(run) FROM predictions) AS run
    """
    assert results.query(counts).to_pylist() == [{"answers": 14, "looks": 70, "failures": 2, "run": "first"}]


def test_tables_can_be_joined_and_every_column_has_its_type(results: Results) -> None:
    sql = """
        SELECT p.label, t."row", t.col, t.parent, p.probabilities[1] AS first, p.bbox.xmin AS west, t.geometry
        FROM predictions AS p JOIN trails AS t USING (site_id)
        WHERE t.look = 0 ORDER BY site_id
    """
    rows = results.query(sql).to_pylist()
    assert len(rows) == 14
    assert rows[0]["parent"] is None
    assert isinstance(rows[0]["geometry"], bytes)
    assert rows[0]["west"] == pytest.approx(15, abs=0.1)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM predictions",
        "WITH few AS (SELECT * FROM trails LIMIT 3) SELECT * FROM few",
        "VALUES (1)",
        "DESCRIBE trails",
        "SUMMARIZE predictions",
        "SELECT 1;",
        "-- a remark\nSELECT 1",
    ],
)
def test_whatever_only_selects_is_answered(sql: str, results: Results) -> None:
    assert results.query(sql).num_rows > 0


@pytest.mark.parametrize("source", ["query_table('pred' || 'ictions')", "query('FROM pred' || 'ictions')"])
def test_tables_that_are_named_in_pieces_are_full_too(source: str, results: Results) -> None:
    assert results.query(f"SELECT count(*) AS n FROM {source}").to_pylist() == [{"n": 14}]


@pytest.mark.parametrize("rows", [0, 1, 7, 99])
def test_no_more_rows_are_fetched_than_asked_for(rows: int, results: Results) -> None:
    ordered = results.query("SELECT site_id FROM predictions ORDER BY site_id")
    assert results.query("SELECT site_id FROM predictions ORDER BY site_id", rows=rows) == ordered.slice(
        0, rows
    )


def test_two_statements_are_refused(results: Results) -> None:
    assert refusal(results, "SELECT 1; SELECT 2") == "The query holds 2 statements: ask one SELECT at a time."


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("COPY predictions TO 'mine.csv'", "COPY"),
        ("DROP TABLE predictions", "DROP"),
        ("CREATE TABLE mine AS SELECT 1", "CREATE"),
        ("INSERT INTO failed VALUES ('a', 'b', 'c')", "INSERT"),
        ("SET enable_external_access = true", "SET"),
        ("ATTACH 'other.db'", "ATTACH"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
    ],
)
def test_what_is_no_select_is_refused(
    sql: str, kind: str, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = f"The query is a {kind} statement: results cannot be changed from here, ask one SELECT."
    assert refusal(results, sql) == said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sql", ["", " ; ", "-- nothing"])
def test_an_empty_query_is_refused(sql: str, results: Results) -> None:
    said = "The query is empty: ask one SELECT, like SELECT label, count(*) FROM predictions GROUP BY 1."
    assert refusal(results, sql) == said


def test_what_is_not_sql_is_refused_with_an_example(results: Results) -> None:
    assert refusal(results, "how many?") == (
        'The query is not SQL (syntax error at or near "how"): '
        "ask one SELECT, like SELECT label, count(*) FROM predictions GROUP BY 1."
    )


def test_an_unknown_column_is_refused_with_those_that_there_are(results: Results) -> None:
    cause = 'Referenced column "why" not found in FROM clause'
    said = f"The query does not fit the tables ({cause}): {FAILED_COLUMNS}."
    assert refusal(results, "SELECT why FROM failed") == said


def test_an_unknown_table_is_refused_with_all_columns(results: Results) -> None:
    said = refusal(results, "SELECT * FROM answers")
    cause = "Table with name answers does not exist"
    assert said.startswith(f"The query does not fit the tables ({cause}): predictions has site_id, ")
    assert "; trails has site_id, look, depth, level, row, col, parent, " in said
    assert said.endswith(f"; {FAILED_COLUMNS}.")


def test_a_runaway_query_is_interrupted(results: Results) -> None:
    endless = "SELECT count(*) FROM range(100000000000) AS a, range(1000000) AS b"
    assert refusal(results, endless, seconds=0.3) == (
        "The query took longer than 0.3 s and was stopped: "
        "narrow it with WHERE or LIMIT, or allow it more seconds."
    )


def test_a_query_that_runs_away_while_its_rows_are_fetched_is_interrupted(results: Results) -> None:
    endless = "SELECT * FROM range(100000000000000) AS a WHERE a.range = -1"
    said = refusal(results, endless, seconds=0.3, rows=5)
    assert said.startswith("The query took longer than 0.3 s and was stopped: ")


@pytest.mark.parametrize("reader", ["read_csv", "read_text", "read_blob", "glob", "read_parquet"])
def test_files_cannot_be_reached(reader: str, results: Results) -> None:
    said = "The query reaches for a file: only the tables predictions, trails and failed can be read."
    assert refusal(results, f"SELECT * FROM {reader}('{results.path}/runs/first.json')") == said


def test_neither_file_names_nor_python_s_variables_are_tables(results: Results) -> None:
    secret = results.query("SELECT 1 AS one")
    assert secret.num_rows == 1
    assert "Table with name secret does not exist" in refusal(results, "SELECT * FROM secret")
    for file in ("runs/first.json", "/nowhere/at.csv", "https://example.org/a.parquet"):
        assert refusal(results, f"SELECT * FROM '{file}'")


def test_a_value_that_does_not_fit_is_the_question_s_fault(results: Results) -> None:
    said = refusal(results, "SELECT site_id::INTEGER FROM predictions")
    assert said.startswith("The query failed (Could not convert string")
    assert said.endswith("): mend it and ask again.")


def test_the_run_that_finished_last_is_the_one_that_is_asked(tmp_path: Path) -> None:
    for run, sites, finished in (("b", 2, "2026-11-21T10:00:00Z"), ("a", 3, "2026-11-21T11:00:00Z")):
        write_part(tmp_path, run, "p", [row_of(n, (200, 300)) for n in range(sites)])
        finish_run(tmp_path, record_of(run, sites, 0, finished))
    write_part(tmp_path, "unfinished", "p", [row_of(0, (200, 300))])
    results = Results.open(tmp_path)
    assert results.record.id == "a"
    assert results.query("SELECT DISTINCT run, count(*) AS n FROM predictions GROUP BY 1").to_pylist() == [
        {"run": "a", "n": 3}
    ]
    assert results.query("SELECT * FROM failed").num_rows == 0


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_without_a_finished_run_is_refused(there: bool, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    if there:
        write_part(folder, "r", "p", [row_of(0, (200, 300))])
    with pytest.raises(InvalidResults) as caught:
        Results.open(folder)
    assert str(caught.value) == f"{folder} holds no finished run: run `tnet-geo classify ... -o {folder}`."


@pytest.mark.parametrize("record", ["{", "{}", '{"format": "tnet-geo results", "version": 2}'])
def test_a_record_of_another_version_is_refused(record: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/r.json").write_text(record)
    with pytest.raises(InvalidResults, match=r"has a record that this version does not read, runs/r\.json"):
        Results.open(tmp_path)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return make_results(tmp_path / "own", sites=4)[0]


def test_lost_parts_are_noticed(own: Path) -> None:
    (own / "predictions/run=first/part-a.parquet").unlink()
    with pytest.raises(InvalidResults, match=r"has lost parts of run first \(2 of 4 answers are there\)"):
        Results.open(own)


@pytest.mark.parametrize("cut", [0, 100, 3000])
def test_a_damaged_part_is_named_instead_of_answered_from(cut: int, own: Path) -> None:
    opened = Results.open(own)
    file = own / "predictions/run=first/part-a.parquet"
    content = bytearray(file.read_bytes())
    file.write_bytes(content[:cut])
    with pytest.raises(InvalidResults, match="has a damaged part"):
        Results.open(own)
    with pytest.raises(InvalidResults, match="has a damaged part"):
        opened.query("SELECT * FROM predictions")


def test_the_summary_counts_what_a_plain_loop_counts(run: tuple[Path, Scenes], results: Results) -> None:
    rows = results.query("SELECT * FROM predictions").to_pylist()
    summary = results.summary()
    right = sum(row["label"] == row["expected"] for row in rows)
    assert (summary.selected, summary.answered, summary.set_aside) == (16, 14, 2)
    assert (summary.correct, summary.known, summary.accuracy) == (right, 14, right / 14)
    assert summary.tiles == 5
    assert summary.bytes == 5 * 64 * 64 * 3
    assert summary.pixel_fraction == pytest.approx(5 * 64 * 64 / 512**2)
    assert [row.label for row in summary.classes] == list(results.record.classes)
    for figures in summary.classes:
        answered = [row for row in rows if row["label"] == figures.label]
        truth = [row for row in rows if row["expected"] == figures.label]
        both = [row for row in answered if row["expected"] == figures.label]
        assert (figures.sites, figures.expected) == (len(answered), len(truth))
        assert figures.confidence == pytest.approx(sum(row["confidence"] for row in answered) / len(answered))
        assert figures.precision == len(both) / len(answered)
        assert figures.recall == len(both) / len(truth)
    assert summary.lines()[1] == f"accuracy {right / 14:.3f} ({right} of 14 whose class is known)"


def test_a_run_whose_sites_were_all_set_aside_has_a_summary(tmp_path: Path) -> None:
    write_part(tmp_path, "r", "p", [])
    finish_run(tmp_path, record_of("r", 0, 0))
    summary = Results.open(tmp_path).summary()
    assert summary.accuracy is None
    assert summary.tiles is None
    assert summary.lines()[0] == "run r: 0 sites selected, 0 answered, 0 set aside"


def test_walks_come_back_as_they_were_stored_in_the_order_asked_for(results: Results) -> None:
    sites = ["quarry/0003", "airfield/0000"]
    walks = results.walks(sites)
    assert [walk.site_id for walk in walks] == sites
    assert walks[0].looks == row_of(3, land(3)[1]).answer.trail.looks
    assert walks[0].half_px == 32
    assert walks[0].wrong
    assert not walks[1].wrong


def test_a_walk_of_a_site_without_answer_is_refused(results: Results) -> None:
    with pytest.raises(QueryRefused) as caught:
        results.walks(["nobody"])
    assert str(caught.value) == (
        "The query names site 'nobody', which has no answer: "
        "SELECT site_id FROM predictions lists those that have one."
    )


def test_failures_are_listed_with_their_reasons(results: Results) -> None:
    assert [site for site, _ in results.failures()] == ["lost/0", "lost/1"]


def test_a_walk_of_a_site_that_was_set_aside_is_refused_with_the_reason(results: Results) -> None:
    with pytest.raises(QueryRefused) as caught:
        results.walks(["lost/0"])
    assert str(caught.value) == (
        "The query names site 'lost/0', which was set aside (Scene lost-0, a tile cannot be read: "
        "<b>damaged</b>): name another site."
    )


def test_any_finished_run_can_be_opened_by_its_name(run: tuple[Path, Scenes], tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(run[0], folder)
    finish_run(folder, record_of("later", 0, 0, finished="2026-11-22T10:00:00Z"))
    assert Results.open(folder).record.id == "later"
    first = Results.open(folder, "first")
    assert first.query("SELECT count(*) AS n FROM predictions").to_pylist() == [{"n": 14}]
    with pytest.raises(InvalidResults, match="holds no finished run third"):
        Results.open(folder, "third")
