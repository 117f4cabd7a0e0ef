"""``yoda help``: help on a command, and on what belongs to no single one."""

from __future__ import annotations

from typing import Annotated

import typer

from yoda_cli.cli import _names
from yoda_cli.errors import UsageError

EXIT_CODES = {
    0: "done",
    1: "an internal error",
    2: "an option or a value that does not exist",
    3: "a picture that is not there, or nothing matched",
    4: "one or all inputs failed; the rest is done",
    5: "weights or an optional part are missing, damaged, or offline",
    6: "the device is missing, or its memory does not suffice",
    7: "a result cannot be written",
    130: "interrupted by Ctrl-C",
}
TOPIC = "exit-codes"


def help_(
    ctx: typer.Context,
    topic: Annotated[
        list[str] | None, typer.Argument(help=f"A command, or {TOPIC}.", show_default=False)
    ] = None,
) -> None:
    """Show the help of a command, or what the exit codes mean."""
    root = ctx.parent
    assert root is not None  # the group that this command was found in
    if topic == [TOPIC]:
        for code, meaning in EXIT_CODES.items():
            typer.echo(f"{code:>4}  {meaning}")
        return
    found, path = root.command, "yoda"
    for name in topic or ():
        commands = getattr(found, "commands", {})
        if name not in commands:
            raise UsageError(f"no help on {name!r}; {_names.nearest(name, [*commands, TOPIC])}")
        found, path = commands[name], f"{path} {name}"
    with typer.Context(found, info_name=path, parent=None) as of:
        typer.echo(found.get_help(of))
