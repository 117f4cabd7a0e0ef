"""How far one picture has come: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from yoda_cli.cli import _render
from yoda_cli.files import one_line


class Progress(Protocol):
    """Counts network calls towards a total that is known, or expected, before the first."""

    def plan(self, calls: int, seconds: float) -> None: ...

    def open_end(self, least: int, most: int) -> None:
        """What follows is only expected: the run decides on its way, between these calls."""
        ...

    def call(self) -> None: ...


@dataclass
class PlainProgress:
    """Lines without control characters, for pipes and logs."""

    name: str
    total: int = 0
    done: int = 0
    range: tuple[int, int] | None = None
    spoken: float = field(default_factory=time.monotonic)

    def plan(self, calls: int, seconds: float) -> None:
        if self.total == 0:
            _render.note(f"{self.name}: {self.tiles(calls)} to compute, about {seconds:.1f} s")
        self.total += calls

    def open_end(self, least: int, most: int) -> None:
        self.range = least, most

    def tiles(self, calls: int) -> str:
        """So many, or about so many."""
        if self.range is None:
            return f"{calls} tiles"
        least, most = self.range
        return f"about {calls} tiles ({least} to {most})"

    def call(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.spoken > _render.PLAIN_SECONDS:
            self.spoken = now
            of = "of" if self.range is None else "of about"
            _render.note(f"{self.name}: {self.done} {of} {self.total} tiles")


class Silent:
    """No progress at all."""

    def plan(self, calls: int, seconds: float) -> None: ...

    def open_end(self, least: int, most: int) -> None: ...

    def call(self) -> None: ...


@contextmanager
def progress(name: str, *, quiet: bool, bar: bool) -> Iterator[Progress]:
    """A bar if stderr is a terminal and ``bar``, else plain lines; nothing if ``quiet``."""
    if quiet:
        yield Silent()
    elif bar and sys.stderr.isatty():
        with _bar(name) as shown:
            yield shown
    else:
        yield PlainProgress(name)


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(escape(one_line(name)), total=None)
        planned = 0

        class Bar:
            def plan(self, calls: int, seconds: float) -> None:
                nonlocal planned
                planned += calls
                shown.update(task, total=planned)

            def open_end(self, least: int, most: int) -> None:
                about = f"{name}, {least} to {most} tiles"
                shown.update(task, description=escape(one_line(about)))

            def call(self) -> None:
                shown.advance(task)

        yield Bar()
