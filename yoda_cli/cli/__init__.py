"""The command line: options → a frozen record → one library call → render. Imports no torch.

``main`` turns a YodaError into one line on stderr and its exit code.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from yoda_cli.cli import _defaults, _render
from yoda_cli.cli._commands import COMMANDS, add
from yoda_cli.cli._log import end_log
from yoda_cli.cli._parsing import Group
from yoda_cli.cli._signals import interruption, leave_signals, take_signals
from yoda_cli.cli._streams import take_streams
from yoda_cli.errors import (
    INTERRUPTED,
    NO_MEMORY,
    DeviceError,
    OutputError,
    UsageError,
    YodaError,
    is_out_of_memory,
)
from yoda_cli.files import shown
from yoda_cli.version import __version__

EPILOG = """\
[bold]Examples[/bold]
  yoda upscale photo.jpg
  yoda upscale photos/ -r -o enlarged/
  yoda help upscale

Exit codes, from 0 to 130, are explained by: yoda help exit-codes
"""


logging.getLogger("yoda_cli").addHandler(logging.NullHandler())


def _version(asked: bool) -> None:
    if asked:
        _render.result(f"yoda {__version__}")
        raise typer.Exit


def root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks instead of one line.")
    ] = False,
) -> None:
    """Make pictures larger, with detail, on a laptop or a GPU."""
    ctx.default_map = _defaults.default_map(ctx.command)


SAID = 80  # letters of a name that is too long
LOOKING = ("config", "help")  # at other commands


def application(*names: str, listed: bool = False) -> typer.Typer:
    """``yoda`` with these of its commands; ``listed`` by name only, which is all its help shows."""
    made = typer.Typer(
        name="yoda",
        cls=Group,
        help="Make pictures larger, with detail, on a laptop or a GPU.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(root)
    for name in names:
        add(made, name, by_name=listed)
    return made


@cache
def app() -> typer.Typer:
    """All of ``yoda``."""
    return application(*COMMANDS)


def application_for(arguments: list[str]) -> typer.Typer:
    """What this command line needs, at most ``app()``: typer reads every signature it is given.

    A file of defaults may speak of every command, and is checked against them.
    """
    name = arguments[0] if arguments else ""
    if name in ("", "-h", "--help", "-V", "--version") and len(arguments) < 2:
        return application(*COMMANDS, listed=True)
    alone = name in COMMANDS and name not in LOOKING and not _defaults.is_written()
    return application(name) if alone else app()


def main() -> None:
    """Run the command line and leave with the exit code of what happened.

    While modules are loaded nothing is garbage, and looking for it would take a tenth of the time;
    a command looks as usual once it works. What is there at the end goes with the process.
    """
    gc.disable()
    share_cores()
    stdout = take_streams()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments  # anywhere, not only before the command
    try:
        take_signals()
        code = run([a for a in arguments if a != "--debug"], debug=debug)
    except KeyboardInterrupt:  # before the command began, or while what it left was said
        _render.note(interruption(*arguments[:1]))
        code = INTERRUPTED
    stdout.flush()
    if stdout.loss:
        lost = report(OutputError(f"cannot write to standard output: {stdout.loss}"))
        code = code or lost
    leave_signals()
    gc.freeze()
    sys.exit(code)


def share_cores() -> None:
    """Let threads that wait for each other sleep soon, where the user has not said how.

    Asked before torch is loaded; GNU OpenMP spins thirty times as long. A core that another program
    wants was held then: two streamed runs at once took seven times as long as one, and take two and
    a half times now. Alone such a run takes up to 5 % longer, others as long as before.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def run(arguments: list[str], *, debug: bool = False) -> int:
    """The exit code of ``yoda arguments…``; errors become one line on stderr."""
    environment = dict(os.environ)
    log = logging.getLogger("yoda_cli")
    handlers = list(log.handlers)
    try:
        code = application_for(arguments)(arguments, standalone_mode=False, prog_name="yoda")
    except KeyboardInterrupt:
        _render.note(interruption(*arguments[:1]))
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        code = report(error)
    finally:  # --offline, --cache-dir, --registry and --log-file hold for this run
        os.environ.clear()
        os.environ.update(environment)
        lost = [end_log(handler) for handler in log.handlers[:] if handler not in handlers]
    code = code if isinstance(code, int) else 0
    for loss in filter(None, lost):
        code = report(loss) if code == 0 else code
    return code


def report(error: Exception) -> int:
    """Say in one line what was wrong; returns the exit code."""
    if isinstance(error, YodaError):
        message, code = str(error), error.exit_code
    elif isinstance(error, typer.Abort):
        message, code = "aborted", INTERRUPTED
    elif hasattr(error, "format_message"):  # the command line itself could not be read
        message, code = misread(error), UsageError.exit_code
    elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        message = f"{shown(Path(str(error.filename)[:SAID]))}…: {error.strerror}"
        code = UsageError.exit_code
    elif is_out_of_memory(error):
        message, code = NO_MEMORY, DeviceError.exit_code
    else:
        message = f"internal error: {type(error).__name__}: {error} (--debug shows the traceback)"
        code = YodaError.exit_code
    if message:
        _render.fault(message)
    return code


def misread(error: Any) -> str:
    """What is wrong with a command line, in plain words, and where its help is.

    Empty where no command was given: then the help has been shown already.
    """
    said = error.format_message().strip()
    if not said:
        return ""
    for words, plain in NUMBERS.items():
        said = re.sub(words, plain, said)
    command = error.ctx.command_path if getattr(error, "ctx", None) else "yoda"
    return f"{said} (see {command} --help)"


#: What the parser says of numbers, and what a person would.
NUMBERS = {
    r"Input should be a valid integer\b.*": "give a whole number",
    r"Input should be a valid number\b.*": "give a number",
    r"Input should be (less|greater) than or equal to (\S+)": r"the limit is \2",
}
