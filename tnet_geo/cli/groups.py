"""Verbs that belong together, such as `pyramid build`: how each group is set up."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["group"]

_MAKING = ("manifest", "pyramid", "train", "evaluate")
_USING = ("estimate", "classify", "results", "explain", "model", "demo")


class _InOrderOfUse(TyperGroup):
    """Lists its verbs as a newcomer needs them; typer would put groups behind single verbs."""

    usual: str | None = None
    """The verb that is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, with the usual verb in front of what names none."""
        if self.usual and args and args[0] not in {*self.commands, "--help"}:
            args = [self.usual, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - click's signature
        names = list(self.commands)
        place = {name: n for n, name in enumerate(_MAKING + _USING)}
        return sorted(names, key=lambda name: place.get(name, len(place)))


def group(help_text: str | None = None, usual: str | None = None) -> typer.Typer:
    """A typer application whose help and errors are plain text: `endings` has the last word.

    usual: the verb that is meant where none of the group's is named.
    """
    return typer.Typer(
        cls=type("Group", (_InOrderOfUse,), {"usual": usual}),
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
