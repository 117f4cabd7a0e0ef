"""A source that is read must be the one that is hashed: the manifest knows what was decoded."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

from yoda_cli.errors import InputError
from yoda_cli.files import digest_of, shown
from yoda_cli.upscaling.batch.inputs import STREAM


@contextlib.contextmanager
def hash_of_stable_file(source: Path) -> Iterator[str]:
    """The hash of a file that stays as it is while it is decoded; empty for standard input."""
    if source == STREAM:
        yield ""
        return
    before = state_of(source)
    digest = ""
    with contextlib.suppress(OSError):  # the decoder will say why
        digest = digest_of(source) if before else ""
    try:
        yield digest
    except InputError:
        if digest and state_of(source) != before:
            raise changed(source) from None
        raise
    if not digest or state_of(source) != before:
        raise changed(source)


def changed(source: Path) -> InputError:
    """The error for a file that is another by now."""
    return InputError(f"{shown(source)} changed while it was read; do it again")


def state_of(path: Path) -> tuple[int, ...]:
    """What is another after a regular file was replaced or written to; empty if there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    if not stat.S_ISREG(found.st_mode):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
