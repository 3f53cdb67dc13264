"""`tnet-geo explain`: a site's walk as a tree and a picture, and the proof, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.results.synthetic import make_results, record_of
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.operations.evidence import explaining
from tnet_geo.operations.evidence.explaining import Finding, WalkProof
from tnet_geo.results import finish_run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs; the later one has no answers."""
    folder = make_results(tmp_path_factory.mktemp("run") / "results", sites=4)[0]
    finish_run(folder, record_of("later", 0, 0, finished="2026-11-22T10:00:00Z"))
    return folder


def test_a_site_is_explained_whether_or_not_the_verb_is_typed(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for typed in (["depot/0001"], ["site", "depot/0001"]):
        assert run(app, ["explain", *typed, "--results", str(results), "--run", "first"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].startswith("site depot/0001 of scene scene-0001, rows 0-512, columns 0-512\n")
    assert "└─ " in said[0]


def test_options_may_come_before_the_site_which_may_be_called_as_a_verb(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["explain", "--results", str(results), "verify"]) == 4
    assert "names site 'verify', which has no answer" in capsys.readouterr().err


def test_an_explanation_for_machines_has_footprints_and_adds_up(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["explain", "depot/0001", "--results", str(results), "--run", "first", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ended_by"] == "complete"
    assert [look["look"] for look in told["looks"]] == [0, 1, 2, 3, 4]
    assert {look["footprint"]["type"] for look in told["looks"]} == {"Polygon"}
    total = told["bias"] + sum(look["evidence"] for look in told["looks"])
    assert total == pytest.approx(told["logit"], abs=told["rounding"])


def test_the_walk_is_drawn_where_a_picture_is_asked_for(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tnet_geo.results import drawing

    asked: dict[str, Any] = {}
    monkeypatch.setattr(drawing, "picture", lambda *given, **named: asked.update(named) or b"png")
    typed = [
        "explain",
        "depot/0001",
        "--results",
        str(results),
        "--run",
        "first",
        "-o",
        str(tmp_path / "a.png"),
    ]
    assert run(app, [*typed, "--archive", "s3://bucket/archive"]) == 0
    assert asked == {"archive": "s3://bucket/archive"}
    assert (tmp_path / "a.png").read_bytes() == b"png"
    assert run(app, typed) == 4
    assert "a.png exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["nobody", "--run", "first"], "names site 'nobody', which has no answer"),
        (["lost/0", "--run", "first"], "names site 'lost/0', which was set aside (Scene lost-0, a tile"),
        (["depot/0001", "--run", "third"], "holds no finished run third"),
        (["depot/0001"], "names site 'depot/0001', which has no answer"),
    ],
    ids=["unknown", "set aside", "no such run", "latest run"],
)
def test_what_cannot_be_explained_is_said(
    typed: list[str], words: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["explain", *typed, "--results", str(results)]) == 4
    assert words in capsys.readouterr().err


PROOF = WalkProof(
    run="first",
    archive="archive",
    bundle="bundle",
    runtime="folded",
    stored=True,
    sites=("a", "b"),
    looks=8,
    scenes=2,
    chunks_read=20,
    chunks_noised=300,
    left_out=0,
    findings=(),
)


@pytest.mark.parametrize(
    ("findings", "code", "last"),
    [
        ((), 0, "Nothing differs: no answer depends on a pixel outside its trail."),
        ((Finding("b", "noise outside its trail changes its answer"),), 5, "site b: noise outside its trail"),
    ],
)
def test_verify_passes_its_options_on_and_ends_as_the_proof_says(
    findings: tuple[Finding, ...],
    code: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, Any] = {}

    def verified(results: Path, **named: Any) -> WalkProof:
        asked.update(named, results=results)
        return WalkProof(**{**vars(PROOF), "findings": findings})

    monkeypatch.setattr(explaining, "verify_walks", verified)
    typed = ["--results", "R", "--archive", "s3://b/a", "--bundle", "B", "--run", "first"]
    typed += ["--sites", "3", "--seed", "7", "--device", "cpu"]
    assert run(app, ["explain", "verify", *typed]) == code
    assert asked == {
        "results": Path("R"),
        "archive": "s3://b/a",
        "bundle": Path("B"),
        "run": "first",
        "sites": 3,
        "seed": 7,
        "device": "cpu",
    }
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


def test_a_sample_that_has_read_everything_proves_nothing_and_says_so() -> None:
    assert "proves nothing" in WalkProof(**{**vars(PROOF), "chunks_noised": 0}).lines()[-1]
