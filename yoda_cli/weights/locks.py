"""One process at a time for one file of the cache; also where the file system has no locks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from yoda_cli.weights.transfer import Watch


@contextlib.contextmanager
def exclusive(path: Path, watch: Watch, name: str, use_lock: bool) -> Iterator[bool]:
    """Whether this process alone may download; waits while another does."""
    if not use_lock:
        yield False
        return
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            watch.say(f"{name}: another process is downloading it; waiting")
            lock.acquire()
    except (OSError, NotImplementedError):  # a file system without locks
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def idle(path: Path, *, without_locks: bool) -> Iterator[bool]:
    """Whether nobody holds the lock, which is held inside; ``without_locks`` if none can be had."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield without_locks
        return
    try:
        yield True
    finally:
        lock.release()
