"""Progress goes to stderr: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time

import pytest

from tnet_geo.cli.progress import progress
from tnet_geo.learning.checkpoints import EpochRow

ROW = EpochRow("dense", 1, 9, 1.2, 0.4, 1.3, 5.9, 12.0)


def test_a_log_has_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("steps") as told:
        told.begin("dense", 9, 80)
        told.step()
        told.epoch(ROW)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"dense: up to 9 epochs of 80 steps\n{ROW.line()}\n"


def test_a_log_has_one_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 30.0, 61.0, 90.0, 122.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress("scenes") as told:
        for done in range(1, 5):
            told(done, 4)
    assert capsys.readouterr().err == "2 of 4 scenes\n4 of 4 scenes\n"


def test_a_terminal_has_a_bar_and_the_epochs_above_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with progress("steps") as told:
        told.begin("dense", 9, 80)
        told.step()
        told.epoch(ROW)
        told.begin("location", 12, 20)
    with progress("scenes") as told:
        told(1, 2)
        told(2, 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert ROW.line() in said.err
    assert "2/2" in said.err
