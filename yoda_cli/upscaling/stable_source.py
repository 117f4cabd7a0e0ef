"""A source that is read must be the one that is hashed: the manifest knows what was decoded."""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from yoda_cli.errors import InputError
from yoda_cli.files import digest_of, shown
from yoda_cli.upscaling.batch.inputs import STREAM

YOUNG_NS = 3 * 10**9  # FAT counts in steps of two seconds


@contextlib.contextmanager
def hash_of_stable_file(source: Path) -> Iterator[str]:
    """The hash of a file that stays as it is while it is decoded; empty for standard input."""
    if source == STREAM:
        yield ""
        return
    before, began = state_of(source), time.time_ns()
    digest = ""
    with contextlib.suppress(OSError):  # the decoder will say why
        digest = digest_of(source) if before else ""
    try:
        yield digest
    except InputError:
        if digest and is_another(source, digest, before, began):
            raise changed(source) from None
        raise
    if not digest or is_another(source, digest, before, began):
        raise changed(source)


def is_another(source: Path, digest: str, before: tuple[int, ...], began: int) -> bool:
    """Whether a file is another than it was at ``began``.

    Its times do not tell where it had just been written (a file system counts in steps), nor where
    somebody put the time of change back: then it is hashed again.
    """
    now = state_of(source)
    if now[:-1] != before[:-1]:
        return True
    if now == before and began - now[-1] > YOUNG_NS:
        return False
    try:
        return digest_of(source) != digest
    except OSError:
        return True


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
    times = (found.st_mtime_ns, found.st_ctime_ns)  # the second is no user's to set
    return found.st_dev, found.st_ino, found.st_size, *times
