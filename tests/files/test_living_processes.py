"""Whether the process that began a file still lives, on every system."""

import os
import subprocess
import sys

from yoda_cli.files import MACHINE, is_alive
from yoda_cli.weights.cache import is_orphan


def finished_pid():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_process_is_alive_until_it_has_ended():
    assert is_alive(os.getpid())
    assert not is_alive(finished_pid())


def test_asking_for_a_process_does_not_touch_it(monkeypatch):
    """``os.kill(pid, 0)`` is Ctrl-C on Windows; psutil has its own way there."""
    import psutil

    asked = []
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: asked.append(pid) or True)
    monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(AssertionError("killed")))
    assert is_alive(4711)
    assert asked == [4711]


def test_a_number_that_no_process_can_have_is_left_alone(tmp_path):
    assert is_alive(10**30)
    assert not is_orphan(tmp_path / f"name~{MACHINE}-{10**30}-0")
    assert is_orphan(tmp_path / f"name~{MACHINE}-{finished_pid()}-0")
