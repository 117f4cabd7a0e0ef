"""Other processes of this machine, on any system."""

from __future__ import annotations


def is_alive(pid: int) -> bool:
    """Whether there is such a process; a number that no process can have counts as one.

    Only asks: ``os.kill(pid, 0)`` interrupts or ends the process on Windows.
    """
    import psutil  # here, so that training runs where it is not installed

    try:
        return psutil.pid_exists(pid)
    except OverflowError:
        return True
