"""Bars on a terminal, lines elsewhere: how far a run over pictures is, and a download."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoda_cli.cli import _render
from yoda_cli.files import counted, one_line

if TYPE_CHECKING:
    from yoda_cli.weights import Watch

PLAIN_SECONDS = 10.0  # off a terminal, at most one line in so many seconds
NAME_CELLS = 30  # of a bar, for the picture's name
ALL_BUT = 0.998  # from here on the last files are written
TRUSTED = 0.1  # the share that must be done before its time says more than the forecast


def spell(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@dataclass
class Overall:
    """How far a run is: its finished pictures and those in work, by their pixels.

    ``pixels`` by source; ``show`` is called after every change, from any thread.
    """

    pixels: Mapping[Path, int]
    label: str  # of the only picture
    show: Callable[[Overall], None] = lambda run: None
    foretold: Callable[[Overall, int, float], None] = lambda run, calls, seconds: None
    shares: dict[Path, float] = field(default_factory=dict)
    ended: set[Path] = field(default_factory=set)
    name: str = ""  # the picture that was last heard of
    forecast: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def foresee(self, source: Path, calls: int, seconds: float) -> None:
        """``calls`` and ``seconds`` were forecast for one picture."""
        if not self.forecast:  # what all will take, by the first; its time counts from now
            self.forecast = seconds * self.whole / max(1, self.pixels[source])
            self.began = time.monotonic()
        self.foretold(self, calls, seconds)

    def at(self, source: Path, share: float) -> None:
        """A picture is so far."""
        if source in self.ended or source not in self.pixels:
            return
        if not self.shares and not self.ended and not self.forecast:
            self.began = time.monotonic()  # workers were started and read their networks
        self.shares[source], self.name = share, source.name
        self.show(self)

    def end(self, source: Path) -> None:
        """A picture was made, or has failed."""
        self.ended.add(source)
        self.shares.pop(source, None)
        self.show(self)

    @property
    def whole(self) -> int:
        """All pixels."""
        return max(1, sum(self.pixels.values()))

    @property
    def share(self) -> float:
        """From 0 to 1."""
        doing = list(self.shares.items())
        done = sum(self.pixels.get(source, 0) for source in list(self.ended))
        return min(1.0, (done + sum(self.pixels[at] * share for at, share in doing)) / self.whole)

    @property
    def left(self) -> str:
        """How long it will still take, in words; empty where nothing is known yet."""
        share, taken = self.share, time.monotonic() - self.began
        if share > ALL_BUT:
            return "writing"
        if share >= TRUSTED or (share > 0 and not self.forecast):
            return f"{spell(taken * (1 - share) / share)} left"
        return f"{spell(max(0.0, self.forecast - taken))} left" if self.forecast else ""

    @property
    def count(self) -> str:
        """``12 of 65``."""
        return f"{len(self.ended)} of {len(self.pixels)}"


@contextmanager
def overall(
    pixels: Mapping[Path, int], label: str, *, quiet: bool, bar: bool, about: bool = False
) -> Iterator[Overall]:  # fmt: skip
    """A bar over all pictures if stderr is a terminal and ``bar``, else lines; silent if ``quiet``.

    ``label`` names the picture where there is but one; ``about``: calls are only expected.
    """
    if not (pixels and _render.heard(quiet=quiet)):
        yield Overall(pixels, label)
    elif bar and not quiet and sys.stderr.isatty():
        with _bar(pixels, label) as shown:
            yield shown
    else:
        yield _lines(pixels, label, "about " if about else "", quiet=quiet)


def _lines(
    pixels: Mapping[Path, int], label: str, about: str = "", *, quiet: bool = False
) -> Overall:
    """Lines without control characters, for pipes and logs."""
    say = partial(_render.note, quiet=quiet)
    spoken, alone = time.monotonic(), len(pixels) == 1
    name = next(iter(pixels)).name
    if not alone:
        say(f"{counted(len(pixels), 'picture')} to make")

    def foretold(run: Overall, calls: int, seconds: float) -> None:
        if alone:
            say(f"{name}: {about}{counted(calls, 'tile')} to compute, about {seconds:.1f} s")

    def show(run: Overall) -> None:
        nonlocal spoken
        if time.monotonic() - spoken < PLAIN_SECONDS or run.share >= 1:
            return
        spoken = time.monotonic()
        head = f"{name}: " if alone else f"{run.count} done, "
        left = f", about {run.left}" if run.left else ""
        say(f"{head}{100 * run.share:.0f} %{left}")

    return Overall(pixels, label, show, foretold)


@contextmanager
def _bar(pixels: Mapping[Path, int], label: str) -> Iterator[Overall]:
    from rich.progress import BarColumn, TextColumn

    percent, left = TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[left]}")
    name, alone = TextColumn("[dim]{task.fields[name]}"), len(pixels) == 1
    columns = (TextColumn("{task.description}"), BarColumn(20), percent, left)
    with _rich(*columns, *(() if alone else (name,))) as bar:
        head = cut(label, 2 * NAME_CELLS) if alone else f"0 of {len(pixels)}"
        task = bar.add_task(head, total=None, left="starting", name="")

        def show(run: Overall) -> None:
            bar.update(
                task, total=1.0, completed=run.share, left=run.left,
                description=head if alone else run.count, name=cut(run.name, NAME_CELLS),
            )  # fmt: skip

        def foretold(run: Overall, calls: int, seconds: float) -> None:
            _render.detail(f"{run.name or label}: {counted(calls, 'network call')} to make")

        yield Overall(pixels, label, show, foretold)


def cut(text: str, cells: int) -> str:
    """A name for a bar: on one line, its middle left out where it is long."""
    from rich.cells import cell_len, set_cell_size
    from rich.markup import escape

    text = one_line(text)
    if cell_len(text) > cells:
        text = f"{set_cell_size(text, cells - 11).rstrip()}…{text[-10:]}"
    return escape(text)


@contextmanager
def _rich(*columns: Any) -> Iterator[Any]:
    """A bar of rich that lets lines pass above it, and is gone in the end.

    Results that do not go to the terminal keep their own way.
    """
    from rich.console import Console
    from rich.progress import Progress

    _render.clear_waiting()
    console = Console(stderr=True)
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as shown:
        yield shown


@contextmanager
def download(*, quiet: bool, bar: bool = True) -> Iterator[Watch]:
    """Notices as lines; a bar with speed and time left on a terminal, lines elsewhere."""
    from yoda_cli.weights import Watch

    if quiet:
        yield Watch(partial(_render.note, quiet=True))
    elif not (bar and sys.stderr.isatty()):
        yield Watch(_render.note, plain_bytes())
    else:
        with _byte_bar() as watch:
            yield watch


def plain_bytes() -> Callable[[int, int | None], None]:
    """Progress in bytes as a line every ten seconds."""
    spoken = time.monotonic()

    def show(done: int, total: int | None) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > PLAIN_SECONDS:
            spoken = time.monotonic()
            whole = f" of {total / 1e6:,.1f}" if total else ""
            _render.note(f"{done / 1e6:,.1f}{whole} MB")

    return show


@contextmanager
def _byte_bar() -> Iterator[Watch]:
    """Shown from the first byte on."""
    from contextlib import ExitStack

    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    from yoda_cli.weights import Watch

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    shown: Any = None
    with ExitStack() as kept:

        def progress(done: int, total: int | None) -> None:
            nonlocal shown
            if shown is None:
                shown = kept.enter_context(_rich(*columns))
                shown.add_task("")
            shown.update(shown.task_ids[0], completed=done, total=total)

        yield Watch(_render.note, progress)
