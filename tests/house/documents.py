"""What README and docs say on the command line, taken out of their code blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SHELLS = {"", "bash", "console", "sh", "shell"}
_FENCE = re.compile(r"^\s*```(\S*)")


@dataclass(frozen=True)
class Command:
    """One command of a document, as written there."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line} {self.text}"

    @property
    def words(self) -> list[str]:
        """As the shell would split it, comments dropped."""
        return shlex.split(self.text, comments=True)


def documents(project: Path) -> list[Path]:
    """README, CONTRIBUTING and everything in docs/."""
    return [project / "README.md", project / "CONTRIBUTING.md", *sorted((project / "docs").rglob("*.md"))]


def commands(document: Path, project: Path) -> list[Command]:
    """The commands in fenced shell blocks and in indented blocks, with continued lines joined."""
    found = []
    pending, begun = "", 0
    for number, line in _code_lines(document.read_text(encoding="utf-8")):
        begun = begun if pending else number
        pending += line.strip().removeprefix("$ ")
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        if re.match(r"(tnet-geo|make|python|\.venv/bin/)", pending):
            found.append(Command(document.relative_to(project).as_posix(), begun, pending))
        pending = ""
    return found


def all_commands(project: Path) -> list[Command]:
    """Every command of every document, in order."""
    return [command for document in documents(project) for command in commands(document, project)]


def _code_lines(text: str) -> Iterator[tuple[int, str]]:
    language: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence:
            language = fence.group(1) if language is None else None
        elif (language in _SHELLS) if language is not None else line.startswith("    "):
            yield number, line
