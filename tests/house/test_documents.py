"""Every command that a document shows can be typed, and every verb is documented."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.house.documents import Command, all_commands, commands, documents
from tnet_geo.cli.app import app

PROJECT = Path(__file__).resolve().parents[2]
EVERYTHING = all_commands(PROJECT)


def parsed(words: list[str]) -> list[str]:
    """Parse `tnet-geo ...` down to its verb with the real parser, running nothing; gives the verb's name."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("tnet-geo", list(words))
    verb = []
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, rest)
        verb.append(name)
        context = command.make_context(name, arguments, parent=context)
    return verb


def verbs() -> list[tuple[str, Any]]:
    """Name and command of every verb, groups walked into."""
    found: list[tuple[str, Any]] = []
    pending = list(typer.main.get_command(app).commands.items())  # type: ignore[attr-defined]
    while pending:
        name, command = pending.pop(0)
        inside = getattr(command, "commands", None)
        if inside is None:
            found.append((name, command))
        else:
            pending += [(f"{name} {below}", verb) for below, verb in inside.items()]
    return found


def sections(text: str) -> dict[str, str]:
    """Text below each second-level heading."""
    parts = re.split(r"^## +(.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_documents_show_commands() -> None:
    shown = {command.document for command in EVERYTHING}
    assert {"README.md", "CONTRIBUTING.md", "docs/cli.md"} <= shown


@pytest.mark.parametrize(
    "command", [c for c in EVERYTHING if re.match(r"(\.venv/bin/)?tnet-geo\b", c.text)], ids=str
)
def test_a_shown_command_is_one_that_the_command_line_takes(command: Command) -> None:
    assert parsed(command.words[1:])


@pytest.mark.parametrize("command", [c for c in EVERYTHING if c.words[0] == "make"], ids=str)
def test_a_shown_make_target_exists(command: Command) -> None:
    subprocess.run(["make", "-n", *command.words[1:]], cwd=PROJECT, check=True, capture_output=True)


def test_a_shown_script_is_there() -> None:
    shown = [c.words for c in EVERYTHING if re.match(r"(\.venv/bin/)?python\b", c.text)]
    named = [words[words.index("-m") + 1] for words in shown if "-m" in words]
    modules = [name.replace(".", "/") + ".py" for name in named if name not in sys.stdlib_module_names]
    scripts = [words[1] for words in shown if "-m" not in words]
    assert not [path for path in modules + scripts if path != "pytest.py" and not (PROJECT / path).exists()]


@pytest.mark.parametrize(("name", "command"), verbs())
def test_a_verb_s_help_ends_with_an_example_of_it(name: str, command: Any) -> None:
    example = re.search(r"^Example: tnet-geo (.*)$", command.help, flags=re.MULTILINE)
    assert example
    assert " ".join(parsed(Command("help", 0, example.group(1)).words)) == name


@pytest.mark.parametrize(("name", "command"), verbs())
def test_a_verb_is_documented_with_all_its_options(name: str, command: Any) -> None:
    section = sections((PROJECT / "docs/cli.md").read_text(encoding="utf-8"))[f"tnet-geo {name}"]
    flags = {flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")}
    assert not [flag for flag in flags - {"--help"} if f"`{flag}`" not in section]


def test_no_document_has_verbs_that_do_not_exist() -> None:
    headings = sections((PROJECT / "docs/cli.md").read_text(encoding="utf-8"))
    documented = {
        heading.removeprefix("tnet-geo ") for heading in headings if heading.startswith("tnet-geo ")
    }
    assert documented == {name for name, _ in verbs()}


@pytest.mark.parametrize("document", documents(PROJECT), ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (document.parent / target).exists()]


def test_every_dependency_says_what_it_is_for_and_what_if_it_dies() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[<>=\[ ;]", requirement)[0] for requirement in wanted}
    rows = re.findall(
        r"^\| `([^`]+)` \|([^|]+)\|([^|]+)\|$", (PROJECT / "docs/dependencies.md").read_text(), re.M
    )
    assert {name for name, *_ in rows} == names
    assert all(cell.strip() for row in rows for cell in row)


def test_a_continued_command_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "```sh\ntnet-geo demo \\\n  --seed 1  # other scenes\n```\n\n    make test\n"
    )
    found = commands(tmp_path / "page.md", tmp_path)
    assert [command.words for command in found] == [["tnet-geo", "demo", "--seed", "1"], ["make", "test"]]
