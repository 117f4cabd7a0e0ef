"""Files written whole or not at all, names for messages, and where this tool keeps its own.

Knows no picture and no network. What a command may write over is said in ``overwriting``.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import socket
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from yoda_cli.errors import OutputError, WeightsError

NAME_BYTES = 255  # of a file's name, on common file systems
MAX_TEXT_BYTES = 16 << 20  # of settings and notes: thousands of times what anybody writes
STALE_SECONDS = 24 * 3600  # of other machines' temporaries; a write takes seconds
MACHINE = f"{zlib.crc32(socket.gethostname().encode()):08x}"
TOKEN = os.urandom(4).hex()  # tells this process from an earlier one with the same pid
TEMPORARY = re.compile(r"\..*\.yoda-([0-9a-f]{8})-(\d+)-([0-9a-f]{8})[0-9a-f]+\.tmp", re.DOTALL)

Check = Callable[[Path], None]  # raises OutputError where a path may not be written

_count = itertools.count()


def shown(path: Path) -> str:
    """A name for one line of text: control characters and undecodable bytes escaped."""
    return one_line(os.fspath(path))


def one_line(text: str) -> str:
    """``text`` for a terminal or a log: nothing in it breaks the line or is obeyed."""
    return text if text.isprintable() else "".join(map(_printable, text))


def counted(count: int, thing: str) -> str:
    """``1 tile``, ``2 tiles``: a count as a person says it."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def size_text(count: float) -> str:
    """Bytes as a person says them: ``1.2 GB``, ``350 MB``, ``0.3 MB``."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def write_atomically(path: Path, data: bytes, check: Check | None = None) -> None:
    """Write beside, flush to the disk, rename. ``check`` judges what stands there by then.

    Without ``check`` a regular file is replaced; nothing else ever is.
    """
    with whole_file(path, check) as partial, partial.open("xb") as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path, check: Check | None = None) -> Iterator[Path]:
    """A name beside ``path`` to write to; at the end it is on the disk and has the final name."""
    partial = temporary_beside(path)
    try:
        with name_write_errors(path):
            yield partial
            with partial.open("r+b") as file:  # Windows syncs only what may be written
                os.fsync(file.fileno())
            _publish(partial, path, check or check_regular)
    finally:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextlib.contextmanager
def name_write_errors(path: Path) -> Iterator[None]:
    """What the system refuses ends with one line that names the file."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"cannot write {shown(path)}: {reason or error}") from error


def _publish(partial: Path, path: Path, check: Check) -> None:
    """Give a file its final name: a new one by a link, which replaces nothing even by chance."""
    check(path)
    if not os.path.lexists(path):
        try:
            path.hardlink_to(partial)
        except FileExistsError:
            check(path)
        except OSError:  # a file system without links
            pass
        else:
            return
    partial.replace(path)


def check_regular(path: Path) -> None:
    """Refuse a path at which anything but a regular file stands: a link, a device, a pipe."""
    with name_write_errors(path):
        mode = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise OutputError(f"{shown(path)} is a folder")
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
        raise OutputError(f"{shown(path)} is {kind} and is not replaced; choose another output")


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
    import hashlib  # brings OpenSSL

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_small(path: Path) -> str:
    """The text of a file of settings or notes; OSError for a longer one, or a device without end.

    Raises UnicodeDecodeError for what is not UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise OSError(errno.EFBIG, f"longer than {MAX_TEXT_BYTES:,} bytes", os.fspath(path))
    return data.decode("utf-8")


def real(path: Path) -> Path:
    """The path without links and ``..``; where links lead in a circle, or may not be read, as far
    as that goes."""
    try:
        return Path(os.path.realpath(path))
    except OSError:  # a link of /proc
        return path.absolute()


def make_folder(folder: Path) -> None:
    """The folder of a result, and those above it."""
    with name_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
