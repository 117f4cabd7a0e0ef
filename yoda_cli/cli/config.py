"""``yoda config``: which defaults of yours are in force, and where they stand."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from yoda_cli.cli import _defaults, _render
from yoda_cli.cli._options import Json
from yoda_cli.files.paths import is_file

EXAMPLE = """\
# Defaults of yoda's options. A key is an option's long name.
# At the top: for every command that has the option. YODA_MODEL=face does the same.
model = "general"

[upscale]  # for one command
denoise = "auto"
quality = 95
jobs = 1
"""


def config(
    ctx: typer.Context,
    path: Annotated[bool, typer.Option("--path", help="Print only where the file is.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a file to begin with.")] = False,
    as_json: Json = False,
) -> None:
    """Show the defaults that you have set, in a file or in YODA_* variables."""
    file = _defaults.config_path()
    if path:
        typer.echo(file)
        return
    if example:
        typer.echo(EXAMPLE, nl=False)
        return
    rows = in_force(_defaults.read_config(), _defaults.from_environment(os.environ))
    if as_json:
        names = ("command", "option", "value", "source")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        typer.echo(json.dumps({"schema": 1, "path": str(file), "defaults": found}, indent=2))
        return
    typer.echo(f"{file}{'' if is_file(file) else ' (not there; yoda config --example shows one)'}")
    if rows:
        _render.table("", ("command", "option", "value", "from"), rows)


def in_force(
    written: dict[str, Any], environment: dict[str, str]
) -> list[tuple[str, str, str, str]]:
    """(command, option, value, source) of everything that was set."""
    rows = [
        (name, key, str(value), "file")
        for name, table in written.items()
        if isinstance(table, dict)
        for key, value in table.items()
    ]
    common = {k: str(v) for k, v in written.items() if not isinstance(v, dict)}
    rows += [("all", k, v, "file") for k, v in common.items() if k not in environment]
    rows += [("all", k, v, f"YODA_{k.upper()}") for k, v in environment.items()]
    return rows
