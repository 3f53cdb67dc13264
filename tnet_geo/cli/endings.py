"""How a command ends: one line on stderr, and the exit status that says what happened.

    0    done; every item has its answer
    1    a defect of tnet-geo
    2    the command line is wrong
    3    done; some items are set aside, each with its reason
    4    refused before anything was written
    5    a check that was asked for has found something
    6    stopped: a place or a cluster was lost; what was published stays
    130  stopped by SIGINT; what was sealed stays
    143  stopped by SIGTERM; what was sealed stays

A line begins with the program's name, like those of other programs, so that logs can be searched for it.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from tnet_geo.cli.groups import group
from tnet_geo.errors import TnetGeoError

__all__ = ["Flags", "call", "end_process", "run"]

_STOPPED = {
    130: "stopped by SIGINT: what was sealed stays, the same command goes on from there.",
    143: "stopped by SIGTERM: what was sealed stays, the same command goes on from there.",
}


@dataclass
class Flags:
    """What the options before the verb ask for."""

    debug: bool = False
    """Errors come with their traceback."""


def run(app: typer.Typer, arguments: Sequence[str], *, prog_name: str = "tnet-geo") -> int:
    """Run a command and give its exit status; every error becomes one line on stderr."""
    flags = Flags()
    try:
        typer.main.get_command(app)(args=list(arguments), prog_name=prog_name, obj=flags)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
        _say(_STOPPED.get(code))
        return code
    except TnetGeoError as error:
        if flags.debug:
            traceback.print_exc()
        _say(_one_line(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever else gets here is ours to mend
        _say(_defect(error, debug=flags.debug))
        return 1
    return 0


def end_process(app: typer.Typer, *, prog_name: str) -> NoReturn:
    """Run a command with the arguments of this process, then end the process.

    SIGTERM unwinds the command as Ctrl-C does, so that clusters stop and unsealed files go.
    """
    signal.signal(signal.SIGTERM, _terminated)
    code = run(app, sys.argv[1:], prog_name=prog_name)
    # Python takes its handlers away before the very end: another one would then kill it with status -15.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`head`) had enough; without this the interpreter complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def call(function: Callable[..., int]) -> NoReturn:
    """Run one function as a command of its own: its parameters are arguments, it gives the status.

    What `pipelines/` are made of: schedulers see the same endings as people do.
    """

    @wraps(function)
    def ending(*args: object, **kwargs: object) -> None:
        raise typer.Exit(function(*args, **kwargs))

    app = group()
    app.command()(ending)
    end_process(app, prog_name=Path(sys.argv[0]).name)


def _terminated(signum: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _defect(error: Exception, *, debug: bool) -> str:
    what = f"defect of tnet-geo: {type(error).__name__}: {_one_line(error)}"
    if debug:
        traceback.print_exc()
        return what
    handle, name = tempfile.mkstemp(prefix="tnet-geo-", suffix=".traceback")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return f"{what} (traceback in {Path(name)}, or here with `tnet-geo --debug ...`)"


def _say(line: str | None) -> None:
    if line:
        print(f"tnet-geo: {line}", file=sys.stderr)
