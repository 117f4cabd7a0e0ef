"""Options of ``yoda upscale`` that act as soon as they are read: help, log, places of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yoda_cli.cli import _log, _options
from yoda_cli.cli._upscale_options import OUTPUT, WEIGHTS

LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file", callback=_log.keep_log, expose_value=False, metavar="FILE", hidden=True,
        help="Write what is said to a file too.", rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Help = Annotated[
    bool,
    typer.Option(
        "-h", "--help", callback=_options.show_help, is_eager=True, expose_value=False,
        help="Show this page.", rich_help_panel=OUTPUT, metavar=" ",
    ),
]  # fmt: skip
HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all", callback=_options.show_all, is_eager=True, expose_value=False,
        help="Show all the other options too.", rich_help_panel=OUTPUT, metavar=" ",
    ),
]  # fmt: skip
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", callback=_options.go_offline, hidden=True, metavar=" ",
        help="Never use the network.", rich_help_panel=WEIGHTS,
    ),
]  # fmt: skip
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", callback=_options.set_cache, hidden=True, metavar="DIR",
        help="Folder of downloaded weights.", rich_help_panel=WEIGHTS,
    ),
]  # fmt: skip
RegistryFile = Annotated[
    Path | None,
    typer.Option(
        "--registry", callback=_options.add_registry, hidden=True, metavar="FILE",
        help="A weights.toml of your own, added.", rich_help_panel=WEIGHTS,
    ),
]  # fmt: skip
