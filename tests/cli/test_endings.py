"""Every end of a command has its exit status, and says at most one line."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from tnet_geo.cli.endings import Flags, run
from tnet_geo.cli.groups import group
from tnet_geo.errors import Incomplete, NoImages, SceneMissing, TnetGeoError, UsageError

PROJECT = Path(__file__).resolve().parents[2]


def app_that(act: Callable[[], object]) -> typer.Typer:
    """A command line with one verb, which does `act`."""
    app = group()

    @app.callback()
    def before(context: typer.Context, debug: bool = False) -> None:
        flags = context.obj
        assert isinstance(flags, Flags)
        flags.debug = debug

    @app.command()
    def verb() -> None:
        act()

    return app


def raising(error: BaseException) -> typer.Typer:
    def act() -> None:
        raise error

    return app_that(act)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("Parquet is not for a terminal: name a file with -o."), 2),
        (SceneMissing("quarry-1", "archive"), 3),
        (NoImages("pictures", ".tif"), 4),
        (Incomplete("run", 3, 1, 1), 1),
    ],
)
def test_a_refusal_is_one_line_on_stderr_with_the_exit_status_of_its_class(
    error: TnetGeoError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), ["verb"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"tnet-geo: {error}\n"


def test_a_refusal_of_several_lines_is_said_in_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(UsageError("one\n  two")), ["verb"]) == 2
    assert capsys.readouterr().err == "tnet-geo: one two\n"


def test_a_defect_is_one_line_that_names_the_file_with_its_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run(raising(ZeroDivisionError("by nought")), ["verb"]) == 1
    said = capsys.readouterr().err
    found = re.fullmatch(
        r"tnet-geo: defect of tnet-geo: ZeroDivisionError: by nought \(traceback in (\S+), .*\)\n", said
    )
    assert found
    assert Path(found.group(1)).parent == tmp_path
    assert Path(found.group(1)).read_text().startswith("Traceback")


@pytest.mark.parametrize("error", [ZeroDivisionError("by nought"), NoImages("pictures", ".tif")])
def test_debug_shows_the_traceback_and_leaves_no_file(
    error: Exception, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run(raising(error), ["--debug", "verb"])
    assert "Traceback" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [0, 3, 4])
def test_a_verb_s_own_exit_status_is_passed_on(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(typer.Exit(code)), ["verb"]) == code
    assert capsys.readouterr().err == ""


def test_a_verb_that_returns_is_done() -> None:
    assert run(app_that(lambda: None), ["verb"]) == 0


@pytest.mark.parametrize("arguments", [["verb", "--nope"], ["nope"], []])
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_that(lambda: None), arguments) == 2
    assert "Usage: tnet-geo" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stop", "code", "name"), [(KeyboardInterrupt(), 130, "SIGINT"), (SystemExit(143), 143, "SIGTERM")]
)
def test_a_stopped_command_says_that_it_can_go_on(
    stop: BaseException, code: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(stop), ["verb"]) == code
    assert capsys.readouterr().err == (
        f"tnet-geo: stopped by {name}: what was sealed stays, the same command goes on from there.\n"
    )


WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from tnet_geo.cli.endings import end_process
from tnet_geo.cli.groups import group
app = group()
@app.command()
def wait() -> None:
    try:
        print("waiting", flush=True)
        time.sleep(60)
    finally:
        print("unwound", flush=True)
end_process(app, prog_name="tnet-geo")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_the_command(number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == "unwound\n"
    assert err.count("\n") == 1


def is_caught(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    mask = Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_second_sigterm_while_the_process_ends_changes_nothing() -> None:
    libc = "import ctypes\nlibc = ctypes.CDLL(None)\n"
    held = libc + "libc.__cxa_atexit(libc.getchar, None, None)\n"  # called when Python has ended
    with subprocess.Popen(
        [sys.executable, "-c", held + WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        while is_caught(process.pid, signal.SIGTERM):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate("\n", timeout=60)
    assert process.returncode == 143


def test_a_reader_that_had_enough_is_no_defect() -> None:
    code = WAITING.replace("time.sleep(60)", "print('x' * 10_000_000)")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_pipeline_ends_as_a_command_does(tmp_path: Path) -> None:
    missing = tmp_path / "none.parquet"
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.build_pyramids", str(missing), str(tmp_path / "archive")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert str(missing) in done.stderr
    assert not (tmp_path / "archive").exists()
