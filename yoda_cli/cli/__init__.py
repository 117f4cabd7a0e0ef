"""The command line: options → a frozen record → one library call → render. Imports no torch.

``main`` turns a YodaError into one line on stderr and its exit code.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from yoda_cli.cli import _render, weights
from yoda_cli.cli._signals import leave_signals, take_signals
from yoda_cli.cli._streams import take_streams
from yoda_cli.cli.attention import attention
from yoda_cli.cli.bench import bench
from yoda_cli.cli.doctor import doctor
from yoda_cli.cli.metrics import metrics
from yoda_cli.cli.train import train
from yoda_cli.cli.upscale import upscale
from yoda_cli.errors import INTERRUPTED, OutputError, UsageError, YodaError
from yoda_cli.version import __version__

EPILOG = (
    "Exit codes: 0 done · 1 internal error · 2 usage · 3 nothing matched · 4 an input failed · "
    "5 weights or an extra missing · 6 device missing or out of memory · "
    "7 output cannot be written · 130 interrupted"
)

app = typer.Typer(
    name="yoda",
    help="Diffusion super-resolution that works where detail is (YODA), on a laptop CPU or a GPU.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(epilog=EPILOG)(upscale)

app.command(epilog=EPILOG)(attention)

app.command()(bench)

app.command()(metrics)

app.command()(train)

app.add_typer(weights.app, name="weights")

app.command()(doctor)


def _version(asked: bool) -> None:
    if asked:
        _render.result(f"yoda {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks instead of one line.")
    ] = False,
) -> None:
    """Diffusion super-resolution that works where detail is (YODA)."""


def main() -> None:
    """Run the command line and leave with the exit code of what happened."""
    share_cores()
    stdout = take_streams()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments  # anywhere, not only before the command
    try:
        take_signals()
        code = run([a for a in arguments if a != "--debug"], debug=debug)
    except KeyboardInterrupt:
        code = INTERRUPTED
    stdout.flush()
    if stdout.loss:
        lost = report(OutputError(f"cannot write to standard output: {stdout.loss}"))
        code = code or lost
    leave_signals()
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
    try:
        code = app(arguments, standalone_mode=False, prog_name="yoda")
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return report(error)
    finally:  # --offline, --cache-dir and --registry hold for this run
        os.environ.clear()
        os.environ.update(environment)
    return code if isinstance(code, int) else 0


def report(error: Exception) -> int:
    """Say in one line what was wrong; returns the exit code."""
    if isinstance(error, YodaError):
        message, code = str(error), error.exit_code
    elif isinstance(error, typer.Abort):
        message, code = "aborted", INTERRUPTED
    elif hasattr(error, "format_message"):  # the command line itself could not be read
        message, code = f"{error.format_message()} (see yoda --help)", UsageError.exit_code
    else:
        message = f"internal error: {type(error).__name__}: {error} (--debug shows the traceback)"
        code = YodaError.exit_code
    _render.fault(message)
    return code
