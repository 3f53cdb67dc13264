"""What is typed of budgets, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

import tnet_geo
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.inference import Budget


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `evaluate` is called with."""
    named: dict[str, Any] = {}

    class Report:
        exit_code = 0

    def stand_in(_: object, **how: Any) -> Report:
        named.update(how)
        return Report()

    monkeypatch.setitem(vars(tnet_geo), "evaluate", stand_in)
    return named


@pytest.mark.parametrize(
    ("typed", "keep", "budget"),
    [
        ("", None, Budget()),
        ("--keep 2,1,1", (2, 1, 1), Budget()),
        ("--tiles 12 --stop-at 0.95", None, Budget(tiles=12, stop_at=0.95)),
        ("--bytes 300000", None, Budget(bytes=300_000)),
        ("--bytes 300k", None, Budget(bytes=300_000)),
        ("--bytes 2MB", None, Budget(bytes=2_000_000)),
        ("--bytes 1.5GiB", None, Budget(bytes=1_610_612_736)),
        ("--deadline 90", None, Budget(deadline=90)),
        ("--deadline 90s", None, Budget(deadline=90)),
        ("--deadline 15m", None, Budget(deadline=900)),
        ("--deadline 1.5h --keep 3", (3,), Budget(deadline=5400)),
    ],
)
def test_limits_are_written_as_people_write_them(
    typed: str, keep: tuple[int, ...] | None, budget: Budget, asked: dict[str, Any]
) -> None:
    assert run(app, ["evaluate", "runs/first", *typed.split()]) == 0
    assert (asked["keep"], asked["budget"]) == (keep, budget)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--keep 2,x", "2,x"),
        ("--keep 0", "above 0"),
        ("--keep 2,,1", "2,,1"),
        ("--tiles 0", "--tiles"),
        ("--tiles many", "--tiles"),
        ("--stop-at 95", "between 0 and 1"),
        ("--bytes 3q", "300k, 2MB or 1.5GiB"),
        ("--bytes 0", "300k, 2MB or 1.5GiB"),
        ("--bytes -5", "--bytes"),
        ("--deadline soon", "90s, 15m or 2h"),
        ("--deadline 5d", "90s, 15m or 2h"),
    ],
)
def test_what_is_no_limit_is_a_wrong_command_line_that_says_how_to_write_one(
    typed: str, said: str, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["evaluate", "runs/first", *typed.split()]) == 2
    assert said in capsys.readouterr().err
    assert not asked
