"""What a person sees: lines, tables and documents. With ``_render_bars`` the only user of rich.

Results go to stdout, all else to stderr. Every line passes ``one_line``: a name in it may hold what
a terminal would obey.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from yoda_cli.files import one_line

LOG = logging.getLogger(__name__)
PLAIN_SECONDS = 10.0  # off a terminal, at most one line in so many seconds
VERBOSE = False  # set by -v for one run
_waiting = False  # whether a word stands on the terminal that goes with the next line


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    to_stderr: bool = False,
    cut: str = "",
) -> None:
    """A table; off a terminal as wide as its longest lines. Where it is too wide for a terminal
    the column ``cut`` is shortened and no other; without one, all are folded."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    out = sys.stderr if to_stderr else sys.stdout
    console = Console(file=out, width=None if out.isatty() else 240)
    shown = Table(title=escape(one_line(title)) or None, title_justify="left", box=box.SIMPLE_HEAD)
    lines = [columns, *rows]
    whole = sum(
        3 + max(cell_len(line[i]) for line in lines) for i, c in enumerate(columns) if c != cut
    )
    for column in columns:
        if column == cut:
            left = max(8, console.width - whole - 4)  # the table's own edges and this padding
            shown.add_column(column, overflow="ellipsis", no_wrap=True, max_width=left)
        else:
            shown.add_column(column, overflow="fold", no_wrap=bool(cut))
    for row in rows:
        shown.add_row(*(escape(one_line(cell)) for cell in row))
    clear_waiting()
    console.print(shown)


@contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[None]:
    """A word that something is going on, on a terminal; it is gone afterwards, or with the next
    line."""
    global _waiting
    if quiet or not sys.stderr.isatty():
        yield
        return
    clear_waiting()
    _waiting = True
    sys.stderr.write(f"{what} …")
    sys.stderr.flush()
    try:
        yield
    finally:
        clear_waiting()


def clear_waiting() -> None:
    """Take the word away, if there is one."""
    global _waiting
    if _waiting:
        _waiting = False
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def heard(*, quiet: bool) -> bool:
    """Whether a line goes anywhere: to the screen, or to a log."""
    return not quiet or LOG.isEnabledFor(logging.INFO)


def note(message: str, *, quiet: bool = False) -> None:
    """One line on stderr unless ``quiet``, and in the log."""
    line = one_line(message)
    LOG.info("%s", line)
    if quiet:
        return
    clear_waiting()
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def detail(message: str, *, quiet: bool = False) -> None:
    """One line that only ``-v`` and the log have."""
    line = one_line(message)
    LOG.debug("%s", line)
    if VERBOSE and not quiet:
        clear_waiting()
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def ask(question: str) -> None:
    """A question on stderr; the answer is read by who asks."""
    clear_waiting()
    sys.stderr.write(one_line(question))
    sys.stderr.flush()


def fault(what: object) -> None:
    """One line on stderr about what went wrong."""
    note(f"yoda: {' '.join(str(what).split())}")


def result(line: str) -> None:
    """One line on stdout."""
    clear_waiting()
    sys.stdout.write(f"{one_line(line)}\n")
    sys.stdout.flush()


def document(content: object, indent: int | None = None) -> None:
    """JSON on stdout: one line, or one document."""
    clear_waiting()
    sys.stdout.write(json.dumps(content, indent=indent) + "\n")
    sys.stdout.flush()


def place(path: Path) -> None:
    """A file's name on stdout: as it is for other programs, on a terminal without harm."""
    if not sys.stdout.isatty():
        try:
            sys.stdout.buffer.write(os.fsencode(path) + b"\n")
            sys.stdout.buffer.flush()
            return
        except OSError:  # said again as text, which takes note of what is lost
            pass
    result(str(path))


@contextmanager
def training_line(*, bar: bool = True) -> Iterator[TrainingLine]:
    """A live line on a terminal, a plain line every ten seconds elsewhere."""
    if not (bar and sys.stderr.isatty()):
        yield TrainingLine(None)
        return
    from rich.console import Console
    from rich.live import Live

    clear_waiting()
    with Live(console=Console(stderr=True), refresh_per_second=2) as live:
        yield TrainingLine(live)


class TrainingLine:
    """Shows where a training run stands."""

    def __init__(self, live: object | None) -> None:
        self._live = live
        self._spoken = 0.0

    def show(self, text: str, *, always: bool = False) -> None:
        if self._live is not None:
            from rich.markup import escape

            self._live.update(escape(one_line(text)))  # type: ignore[attr-defined]
            return
        now = time.monotonic()
        if always or now - self._spoken > PLAIN_SECONDS:
            self._spoken = now
            note(text)


def fact(key: str, value: str) -> None:
    """``key: value`` on stdout, folded under the value on a terminal."""
    import shutil
    import textwrap

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    head = f"{key}: "
    lines = textwrap.wrap(value, max(20, width - 2), initial_indent=head, subsequent_indent="  ")
    sys.stdout.write("\n".join(lines or [head.rstrip()]) + "\n")


def number(value: float | None) -> str:
    """Four digits, or nothing."""
    return "" if value is None else f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"
