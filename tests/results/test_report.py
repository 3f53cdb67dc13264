"""The report is one page that needs nothing else, shows wrong answers first and spares what is not ours."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.results.synthetic import Scenes, record_of, row_of
from tnet_geo.errors import OutputExists
from tnet_geo.results import Results, finish_run, write_part, write_report
from tnet_geo.results.report import _chosen, _moment
from tnet_geo.trail import Trail

COMPARISON = {
    "walk": {"accuracy": 0.986, "tiles": 5.0, "bytes": 61440.0, "pixel_fraction": 0.078, "seconds": 0.0214},
    "dense": {"accuracy": 1.0, "tiles": 64.0, "bytes": 786432.0, "pixel_fraction": 1.0, "seconds": 0.31},
}
VOID = {"meta", "link", "img", "image", "rect", "br"}


class Page(HTMLParser):
    """Counts elements, notes where things are loaded from, and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href", "action", "data"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def text(run: tuple[Path, Scenes], tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    path = write_report(
        Results.open(run[0]), out, comparison=COMPARISON, sites=4, archive=run[1], title="Five & more"
    )
    assert path == out
    return out.read_text(encoding="utf-8")


def test_every_element_is_closed(text: str) -> None:
    assert Page(text).open == []


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    assert all(source.startswith("data:") for source in Page(text).sources)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    assert "@import" not in text
    assert "url(" not in text


def test_every_walk_has_its_scene_and_its_looks(text: str) -> None:
    elements = Page(text).elements
    assert elements.count("article") == 4
    assert elements.count("image") == 4
    assert elements.count("img") == 4 * 5


def test_wrong_answers_come_first_and_right_ones_follow(text: str) -> None:
    verdicts = re.findall(r'<span class="verdict[^>]*>(\w+)', text)
    assert verdicts == ["wrong", "wrong", "right", "right"]


def test_words_and_figures_are_on_the_page(text: str) -> None:
    words = Page(text).words
    assert words.count("Five & more") == 2
    for figure in ("85.7%", "98.6%", "768 KiB", "310.0 ms", "The walk beside its rivals", "lost/1"):
        assert figure in words
    assert "Which of 5 classes is each of 16 sites, and where does one have to look to tell?" in words


@pytest.mark.parametrize(
    ("iso", "said"),
    [
        ("2026-11-21T10:00:00Z", "2026-11-21, 10:00 UTC"),
        ("2026-11-21T23:30:00.5-02:00", "2026-11-22, 01:30 UTC"),
        ("2026-11-21T10:00:00", "2026-11-21, 10:00 UTC"),
        ("yesterday", "yesterday"),
    ],
)
def test_moments_are_told_in_utc(iso: str, said: str) -> None:
    assert _moment(iso) == said


def test_reasons_are_text_and_never_markup(text: str) -> None:
    assert "&lt;b&gt;damaged&lt;/b&gt;" in text
    assert "<b>damaged" not in text


def test_the_same_results_give_the_same_page(run: tuple[Path, Scenes], tmp_path: Path) -> None:
    pages = [write_report(Results.open(run[0]), tmp_path / name, archive=run[1], sites=2) for name in "ab"]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_without_rivals_there_is_no_comparison(results: Results, scenes: Scenes, tmp_path: Path) -> None:
    page = write_report(results, tmp_path / "report.html", sites=1, archive=scenes).read_text()
    assert "rivals" not in page
    assert "1 walk</h2>" in page


def test_without_its_archive_the_page_says_so_and_keeps_the_figures(results: Results, tmp_path: Path) -> None:
    page = write_report(results, tmp_path / "report.html", sites=3).read_text()
    assert page.count("demo/archive is not there") == 3
    assert Page(page).elements.count("article") == 3
    assert "data:image/jpeg" not in page


def test_unlabelled_sites_without_a_place_have_no_verdict_and_no_accuracy(tmp_path: Path) -> None:
    rows = [replace(row_of(n, (200, 300), georeferenced=False), expected=None) for n in range(3)]
    write_part(tmp_path / "results", "r", "p", rows)
    finish_run(tmp_path / "results", record_of("r", 3, 0))
    page = write_report(Results.open(tmp_path / "results"), tmp_path / "report.html").read_text()
    for absent in (
        "accuracy</span>",
        "precision",
        'verdict"',
        "Set aside</h2>",
        "&deg;",
        "true, and answered as",
    ):
        assert absent not in page
    assert "every site has its answer" in page


def test_a_run_without_answers_has_a_page(tmp_path: Path) -> None:
    write_part(tmp_path / "results", "r", "p", [])
    finish_run(tmp_path / "results", record_of("r", 0, 0))
    page = write_report(Results.open(tmp_path / "results"), tmp_path / "report.html").read_text()
    assert Page(page).elements.count("article") == 0


def test_an_older_report_is_replaced(results: Results, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    write_report(results, out, title="old", sites=1)
    write_report(results, out, title="new", sites=1)
    assert "<h1>new</h1>" in out.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("content", ["", "mine", "<html><head><title>tnet-geo report</title></head></html>"])
def test_a_file_that_is_no_report_is_left_alone(content: str, results: Results, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text(content)
    with pytest.raises(OutputExists) as caught:
        write_report(results, out)
    assert str(caught.value) == f"{out} exists already: name another output, or remove it first."
    assert out.read_text() == content


def test_a_folder_is_no_report(results: Results, tmp_path: Path) -> None:
    with pytest.raises(OutputExists):
        write_report(results, tmp_path)


def rows_of(wrong: int, right: int) -> list[dict[str, object]]:
    rows = [
        {"site_id": f"w{n}", "label": "a", "expected": "b", "confidence": 0.5 + n / 100} for n in range(wrong)
    ]
    labels = ("a", "b", "b", "b")
    rows += [
        {"site_id": f"r{n}", "label": labels[n % 4], "expected": labels[n % 4], "confidence": 0.9}
        for n in range(right)
    ]
    return rows


@pytest.mark.parametrize(
    ("wrong", "right", "sites"),
    [
        (1, 9, ["w0", "r0", "r1", "r4"]),
        (5, 9, ["w4", "w3", "r0", "r1"]),
        (5, 1, ["w4", "w3", "w2", "r0"]),
        (0, 2, ["r0", "r1"]),
        (2, 0, ["w1", "w0"]),
        (0, 0, []),
    ],
)
def test_shown_are_sure_mistakes_up_to_half_and_right_answers_of_all_classes_in_turn(
    wrong: int, right: int, sites: list[str]
) -> None:
    assert _chosen(rows_of(wrong, right), 4) == sites


def test_of_a_long_walk_the_page_lists_the_looks_that_weigh_most(
    run: tuple[Path, Scenes], tmp_path: Path
) -> None:
    row = row_of(3, (300, 300))
    looks = [*row.answer.trail.looks]
    looks += [
        replace(looks[n % 4 + 1], order=5 + n, parent=n % 5, evidence=1e-3 * (n + 1)) for n in range(95)
    ]
    answer = replace(row.answer, trail=Trail(tuple(looks)), ended_by="tiles")
    write_part(tmp_path / "results", "long", "a", [replace(row, answer=answer)])
    finish_run(tmp_path / "results", record_of("long", 1, 0))
    page = Page(
        write_report(Results.open(tmp_path / "results"), tmp_path / "page.html", archive=run[1]).read_text()
    )
    words = " ".join(page.words)
    assert page.elements.count("li") == 24
    assert "The other 76 looks weigh less." in words
    assert "100 looks" in words
    assert "ended by its budget of tiles" in words
