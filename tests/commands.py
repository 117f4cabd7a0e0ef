"""Command lines as a person runs them: in a process of its own, through a shell, at a terminal."""

import contextlib
import os
import pty
import subprocess
import sys
import time

YODA = (sys.executable, "-m", "yoda_cli")


def started(*arguments, **settings):
    """``yoda arguments…`` in a process of its own, its output in pipes of bytes."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.Popen([*YODA, *map(os.fspath, map(named, arguments))], **settings)


def finished(*arguments, **settings):
    """The same, waited for: exit code, stdout and stderr of bytes."""
    with started(*arguments, **settings) as process:
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def through_shell(line, *arguments, **settings):
    """A shell's ``line`` in which ``"$@"`` stands for ``yoda arguments…``."""
    command = ["bash", "-c", line, "bash", *YODA, *map(os.fspath, map(named, arguments))]
    return subprocess.run(command, timeout=120, check=False, **settings)


def at_terminal(*arguments, answer=b""):
    """(exit code, everything a terminal was sent) of ``yoda arguments…``; ``answer`` is typed."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    with started(*arguments, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 1 << 16):
                said += part
    os.close(ours)
    return process.returncode, said


def named(argument):
    """Paths and bytes as they are, all else as text."""
    return argument if isinstance(argument, (bytes, os.PathLike)) else str(argument)


def wait_until(condition, seconds=60.0):
    """Whether ``condition()`` came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
