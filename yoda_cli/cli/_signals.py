"""Ctrl-C, SIGTERM and SIGHUP end a run in the same way, at any moment, without a traceback."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
from types import FrameType

from yoda_cli.errors import INTERRUPTED

GOING_ON = ("upscale", "bench", "train", "weights")  # what they finished stays
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


def take_signals() -> None:
    """From here on a signal is a KeyboardInterrupt, unless it was ignored (``nohup``)."""
    sys.unraisablehook = _unraisable
    for number in _numbers():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def leave_signals() -> None:
    """The run is over: a signal ends the process at once."""
    for number in _numbers():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def interruption(command: str | None = None, *left: object) -> str:
    """What is said last; ``left`` is what the command knows of what it made."""
    again = "goes on" if command in GOING_ON else "begins again"
    return f"interrupted: {left[0] if left else f'the same command {again}'}"


def _numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in ENDING if hasattr(signal, name)]


def _stop(number: int, frame: FrameType | None) -> None:
    """While a module is imported nothing is being written, and an exception there is swallowed or
    turned into another by extension modules."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            _say(interruption(*sys.argv[1:2]))
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _say(words: str) -> None:
    """A line on the terminal in place of the one that stands there; nothing else works here."""
    head = "\r\x1b[K" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{head}{words}\n".encode())


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    """An interruption inside a finaliser comes again outside of it."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(found)
