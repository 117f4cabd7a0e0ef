"""Standard input, output and error that may be closed, full or gone: the work goes on.

What cannot be written is lost, and the exit code says so.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import BinaryIO, TextIO


class Patient(io.TextIOBase):
    """A text stream that notes what goes wrong and takes everything; its ``buffer`` raises."""

    def __init__(self, inner: TextIO, forgiven: int = 0) -> None:
        self.inner = inner
        self.forgiven = forgiven  # the number of an error that is none
        self.error: OSError | None = None

    @property
    def buffer(self) -> BinaryIO:
        """Where bytes go."""
        return self.inner.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.inner.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.inner.errors

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                self.inner.write(text)
            except OSError as error:
                self._note(error)
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            try:
                self.inner.flush()
            except OSError as error:
                self._note(error)

    def _note(self, error: OSError) -> None:
        self.error = error

    @property
    def loss(self) -> str:
        """Why something was not written; empty if all was, or nobody listens."""
        if self.error is None or self.error.errno == self.forgiven:
            return ""
        return self.error.strerror or str(self.error)

    def isatty(self) -> bool:
        return self.inner.isatty()

    def fileno(self) -> int:
        return self.inner.fileno()

    def writable(self) -> bool:
        return True


def take_streams() -> Patient:
    """Make sure that the three exist and that writing to them raises nothing; gives back stdout.

    A closed descriptor is filled by an empty file: else the first picture that is opened gets its
    number, and what is said would go into the picture.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:
        # Opened for reading, so that a picture for a closed standard output is not lost in silence.
        handle = os.open(os.devnull, os.O_RDONLY)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for name, number in (("stdout", 1), ("stderr", 2)):
        inner = getattr(sys, name)
        if inner is None:
            inner = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8")
        if isinstance(inner, io.TextIOWrapper):  # a pipe on Windows knows few letters
            inner.reconfigure(errors="backslashreplace", line_buffering=True)
        setattr(sys, name, Patient(inner, errno.EBADF if number in closed else 0))
    assert isinstance(sys.stdout, Patient)
    return sys.stdout


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
