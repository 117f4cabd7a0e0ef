"""What differs between systems: other processes, kept memory, and a stdout of few letters."""

import os
import platform
import subprocess
import sys

import pytest


def test_a_stdout_of_few_letters_ends_no_command():
    """A pipe on Windows knows only its locale's letters; the help has an … too."""
    done = subprocess.run(
        [sys.executable, "-m", "yoda_cli", "upscale", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"\\u2026" in done.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_waiting_threads_leave_the_cores_to_others(monkeypatch, given, expected):
    from yoda_cli import cli

    asked = []
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # what is set below is undone then
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "run", lambda *_, **__: asked.append(os.environ.get("GOMP_SPINCOUNT")))
    monkeypatch.setattr(cli, "take_signals", lambda: None)
    monkeypatch.setattr(cli, "leave_signals", lambda: None)
    with pytest.raises(SystemExit):
        cli.main()
    assert asked == [expected]


FAULTS = """
import resource, sys, torch
from yoda_cli.devices.memory import keep_freed
if sys.argv[1] == "keep": keep_freed()
def work(): held = [torch.ones(4 << 20) for _ in range(4)]
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): work()
before = faults()
for _ in range(20): work()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.slow
def test_memory_that_was_freed_is_not_asked_for_again():
    """Against a C library that returns every tensor at once: what it does by default depends on
    where small things happen to lie in the heap."""
    returning = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}

    def faults(mode):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, mode],
            env={**os.environ, **returning}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(done.stdout)

    assert faults("keep") < 0.05 * faults("leave")
