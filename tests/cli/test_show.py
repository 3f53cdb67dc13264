"""Reports as people and as machines read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tnet_geo.cli.show import as_json_text, as_lines, show


@dataclass(frozen=True)
class Failed:
    item: str
    reason: str


@dataclass(frozen=True)
class Report:
    archive: Path
    built: int
    set_aside: tuple[Failed, ...]
    seconds: float
    bytes_written: int
    accuracy: float

    @property
    def exit_code(self) -> int:
        return 3


REPORT = Report(Path("archive"), 3, (Failed("quarry-1", "cannot be read"),), 75.0, 71_680, float("nan"))


def test_a_report_for_people_has_units_and_reasons() -> None:
    assert as_lines(REPORT) == [
        "archive        archive",
        "built          3",
        "set aside      1",
        "  quarry-1: cannot be read",
        "seconds        1 min 15 s",
        "bytes written  70.0 KiB",
        "accuracy       ",
    ]


def test_a_report_for_machines_is_one_json_document_with_the_exit_status() -> None:
    assert json.loads(as_json_text(REPORT)) == {
        "archive": "archive",
        "built": 3,
        "set_aside": [{"item": "quarry-1", "reason": "cannot be read"}],
        "seconds": 75.0,
        "bytes_written": 71_680,
        "accuracy": None,
        "exit_code": 3,
    }


def test_a_report_that_has_better_words_uses_them(capsys: pytest.CaptureFixture[str]) -> None:
    class Table:
        def lines(self) -> list[str]:
            return ["walk 1.00", "root 0.20"]

    show(Table(), as_json=False)
    assert capsys.readouterr().out == "walk 1.00\nroot 0.20\n"
