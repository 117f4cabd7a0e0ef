"""Worker processes that end with what they were started for, on every system.

They hold one end of a pipe; when the other is closed, or its holder dies, they end. Linux ends
them by a signal besides. Imports nothing heavy: a worker is tied before it loads torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

from yoda_cli.errors import DeviceError, is_out_of_memory

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Reader(Protocol):
    """The reading end of a pipe, of any system's kind."""

    def recv_bytes(self) -> bytes: ...


def begin(reader: Reader, module: str, function: str, *arguments: object) -> None:
    """Tie this worker to ``reader``, then call ``module.function``.

    Ends with the exit code of a DeviceError where memory does not suffice to import it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    end_with(reader)
    try:
        called = getattr(importlib.import_module(module), function)
    except Exception as error:
        if is_out_of_memory(error):  # too little even for a traceback
            os._exit(DeviceError.exit_code)
        raise
    called(*arguments)


def end_with(reader: Reader) -> None:
    """End this process as soon as the other end of ``reader`` is closed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_wait, args=(reader,), daemon=True).start()


def _wait(reader: Reader) -> None:
    with contextlib.suppress(EOFError, OSError):
        reader.recv_bytes()
    os._exit(1)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block ends, and processes that it starts do not see it at all."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
