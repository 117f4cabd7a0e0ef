"""Files written whole or not at all, names for messages, and where this tool keeps its own.

Knows no picture and no network.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import secrets
import socket
import time
import zlib
from pathlib import Path

from yoda_cli.errors import OutputError, WeightsError

CHUNK = 1 << 20
NAME_BYTES = 255
STALE_SECONDS = 24 * 3600  # of other machines' temporaries; a write takes seconds
MACHINE = f"{zlib.crc32(socket.gethostname().encode()):08x}"
TOKEN = secrets.token_hex(4)  # tells this process from an earlier one with the same pid
TEMPORARY = re.compile(r"\..*\.yoda-([0-9a-f]{8})-(\d+)-([0-9a-f]{8})[0-9a-f]+\.tmp", re.DOTALL)

_count = itertools.count()


def shown(path: Path) -> str:
    """A name for one line of text: control characters and undecodable bytes escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename; an existing file is replaced, a link too."""
    partial = temporary_beside(path)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"cannot write {shown(path)}: {reason or error}") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """A new temporary name in the same folder, at most 255 bytes long."""
    tail = f".yoda-{MACHINE}-{os.getpid()}-{TOKEN}{next(_count):x}.tmp".encode()
    name = os.fsencode(path.name)[: NAME_BYTES - 1 - len(tail)]
    whole = name.decode("utf-8", "ignore").encode()  # no character is cut in two
    return path.with_name(os.fsdecode(b"." + whole + tail))


def sweep_temporaries(folder: Path) -> int:
    """Remove what killed runs left in ``folder``; returns how many files.

    Left alone: temporaries of processes that live, and of other machines (a shared folder) for a
    day.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _is_stale(path):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
    return removed


def _is_stale(path: Path) -> bool:
    found = TEMPORARY.fullmatch(path.name)
    if found is None or path.is_symlink() or not path.is_file():
        return False
    machine, pid, token = found[1], int(found[2]), found[3]
    if machine == MACHINE:
        return token != TOKEN if pid == os.getpid() else not is_alive(pid)
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cache_folder() -> Path:
    """``YODA_CACHE_DIR``, or the platform's own place for caches."""
    if named := os.environ.get("YODA_CACHE_DIR"):
        return Path(named).absolute()
    import platformdirs  # here, so that training runs where it is not installed

    folder = Path(platformdirs.user_cache_dir("yoda"))
    if not folder.is_absolute():  # no home folder: "~" stays as it is
        raise WeightsError("there is no home folder; name a cache with --cache-dir")
    return folder


def is_alive(pid: int) -> bool:
    """Whether there is such a process; a number that no process can have counts as one.

    Only asks: ``os.kill(pid, 0)`` interrupts or ends the process on Windows.
    """
    import psutil  # here, so that training runs where it is not installed

    try:
        return psutil.pid_exists(pid)
    except OverflowError:
        return True


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def make_folder(folder: Path) -> None:
    """The folder of a result, and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {shown(folder)}: {error.strerror or error}") from error
