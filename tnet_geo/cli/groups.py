"""Verbs that belong together, such as `pyramid build`: how each group is set up."""

from __future__ import annotations

import typer
from typer.core import TyperGroup

__all__ = ["group"]

_JOURNEY = ("manifest", "pyramid", "train", "evaluate", "estimate", "classify", "results", "model", "demo")


class _InOrderOfUse(TyperGroup):
    """Lists its verbs as a newcomer needs them; typer would put groups behind single verbs."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - click's signature
        names = list(self.commands)
        return sorted(names, key=lambda name: _JOURNEY.index(name) if name in _JOURNEY else names.index(name))


def group(help_text: str | None = None) -> typer.Typer:
    """A typer application whose help and errors are plain text: `endings` has the last word."""
    return typer.Typer(
        cls=_InOrderOfUse,
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
