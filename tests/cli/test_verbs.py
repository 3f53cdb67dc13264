"""A verb parses, makes one Python call with what was typed, and prints what comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tnet_geo
from tnet_geo.cli import classify as cli_classify
from tnet_geo.cli import evaluate as cli_evaluate
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.inference.budgets import Budget
from tnet_geo.inference.expectations import CONTRADICTIONS
from tnet_geo.inference.runtimes import PRECISIONS, RUNTIMES


@dataclass(frozen=True)
class Report:
    """Stands in for what the jobs report."""

    sites: int = 7
    exit_code: int = 0


class Call:
    """Stands in for a job; remembers what it was asked."""

    def __init__(self, exit_code: int = 0) -> None:
        self.report = Report(exit_code=exit_code)
        self.asked: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}

    def __call__(self, *asked: Any, **named: Any) -> Report:
        self.asked, self.named = asked, named
        return self.report


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, exit_code: int = 0) -> Call:
    call = Call(exit_code)
    monkeypatch.setitem(vars(tnet_geo), name, call)
    return call


def test_manifest_folder_writes_the_table_and_says_what_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("meadow", "quarry"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "pictures" / name / "1.png"), np.zeros((8, 8, 3), np.uint8))
    out = tmp_path / "sites.csv"
    assert run(app, ["manifest", "folder", str(tmp_path / "pictures"), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert out.exists()
    assert f"{out}: 2 sites in 2 scenes, 2 classes" in said.out
    assert said.err == ""


def test_a_manifest_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures/meadow").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "pictures/meadow/1.png"), np.zeros((8, 8, 3), np.uint8))
    out = tmp_path / "sites.csv"
    out.write_text("mine")
    assert run(app, ["manifest", "folder", str(tmp_path / "pictures"), "-o", str(out)]) == 4
    assert capsys.readouterr().err.startswith(f"tnet-geo: {out} exists already")
    assert out.read_text() == "mine"


def test_an_empty_folder_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    out = tmp_path / "sites.csv"
    assert run(app, ["manifest", "folder", str(tmp_path / "pictures"), "-o", str(out)]) == 4
    assert "holds no image" in capsys.readouterr().err
    assert not out.exists()


def test_manifest_windows_takes_a_table_of_windows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), np.zeros((64, 64, 3), np.uint8))
    table = tmp_path / "windows.csv"
    table.write_text("site_id,scene,row_off,col_off,height,width,label\na,scene.png,0,0,32,32,meadow\n")
    out = tmp_path / "sites.parquet"
    assert run(app, ["manifest", "windows", str(table), "-o", str(out)]) == 0
    assert "1 sites in 1 scenes, 1 classes" in capsys.readouterr().out


@pytest.mark.parametrize("exit_code", [0, 3])
def test_pyramid_build_passes_its_options_on_and_ends_as_the_job_says(
    exit_code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = stand_in(monkeypatch, "build_archive", exit_code)
    typed = "pyramid build sites.csv -o archive --half-px 32 --workers 2 --codec interop --json"
    assert run(app, typed.split()) == exit_code
    told = call.named.pop("progress")
    told(1, 2)
    assert call.asked == (Path("sites.csv"), "archive")
    given = {"half_px": 32, "workers": 2, "codec": "interop"}
    usual = {
        "memory": None,
        "scheduler": None,
        "packs": False,
        "canvas": "native",
        "source_digest": "content",
    }
    assert call.named == given | usual
    assert json.loads(capsys.readouterr().out) == {"sites": 7, "exit_code": exit_code}


@pytest.mark.parametrize(("flags", "resume"), [([], True), (["--fresh"], False)])
def test_train_goes_on_unless_it_is_to_begin_anew(
    flags: list[str], resume: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = stand_in(monkeypatch, "train")
    assert run(app, ["train", "run.toml", "--archive", "archive", *flags]) == 0
    assert hasattr(call.named.pop("progress"), "epoch")
    assert call.asked == (Path("run.toml"),)
    assert call.named == {"manifest": None, "archive": Path("archive"), "out": None, "resume": resume}
    assert "sites" in capsys.readouterr().out


def test_evaluate_asks_for_the_test_split(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = stand_in(monkeypatch, "evaluate", 3)
    assert run(app, ["evaluate", "runs/first", "--json"]) == 3
    assert call.asked == (Path("runs/first"),)
    assert callable(call.named.pop("progress"))
    usual = {"archive": None, "manifest": None, "split": "test", "out": None, "accept": []}
    assert call.named == usual | {"keep": None, "budget": Budget(), "curve": None}
    assert json.loads(capsys.readouterr().out)["sites"] == 7


@pytest.mark.parametrize("exit_code", [0, 3])
def test_classify_passes_its_options_on_and_ends_as_the_job_says(
    exit_code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = stand_in(monkeypatch, "classify", exit_code)
    typed = "classify --archive a --manifest m.csv --bundle b -o r --split val --scheduler tcp://there:8786"
    typed += " --accept gsd --accept value_range --runtime onnx"
    typed += " --tiles 12 --device cuda:1"
    assert run(app, typed.split()) == exit_code
    assert call.named == {
        "archive": "a",
        "manifest": Path("m.csv"),
        "bundle": Path("b"),
        "out": Path("r"),
        "split": "val",
        "workers": None,
        "scheduler": "tcp://there:8786",
        "accept": ["gsd", "value_range"],
        "runtime": "onnx",
        "precision": "float32",
        "keep": None,
        "budget": Budget(tiles=12),
        "device": "cuda:1",
    }
    assert "sites" in capsys.readouterr().out


def test_the_words_of_the_command_line_are_those_of_the_calls() -> None:
    assert [word.value for word in cli_evaluate.Contradiction] == list(CONTRADICTIONS)
    assert [word.value for word in cli_classify.Runtime] == list(RUNTIMES)
    assert [word.value for word in cli_classify.Precision] == list(PRECISIONS)


def test_what_cannot_be_accepted_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["evaluate", "runs/first", "--accept", "bands"]) == 2
    assert "bands" in capsys.readouterr().err


def test_a_split_that_does_not_exist_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["evaluate", "runs/first", "--split", "tset"]) == 2
    assert "tset" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["--version"]) == 0
    assert capsys.readouterr().out == f"tnet-geo {tnet_geo.__version__}\n"
