"""Whole processes timed from outside, in turn: what a person waits for, and what it is made of.

Each round runs every command once, so a busy moment of a shared machine meets all of them. Times
of the processor count what waiting for others does not; they are there on POSIX systems alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yoda_cli.config import UpscaleOptions
from yoda_cli.evaluation.ncnn_methods import ncnn_runs

ROUNDS = 5  # of which the median counts
TORCH = "import torch"  # what the other commands are compared with
NCNN = "yoda upscale, ncnn"

#: What starts a command and prints its figures. A process of its own, and a small one: the system
#: counts the size of whoever starts a process as that process's too.
LAUNCHER = """
import json, os, subprocess, sys, time
began = time.perf_counter()
nowhere = subprocess.DEVNULL
process = subprocess.Popen(sys.argv[1:], stdout=nowhere, stderr=nowhere)
if hasattr(os, "wait4"):
    _, _, used = os.wait4(process.pid, 0)
    unit = 1e6 if sys.platform == "darwin" else 1e3
    known = used.ru_utime + used.ru_stime, used.ru_maxrss / unit
else:
    process.wait()
    known = None, None
print(json.dumps([time.perf_counter() - began, *known]))
"""


@dataclass(frozen=True)
class Run:
    """One run of a process: seconds, those of the processor, and the largest resident size."""

    seconds: float
    cpu_seconds: float | None
    peak_mb: float | None


@dataclass(frozen=True)
class ProcessTiming:
    """Medians over the rounds, and every run; ``ratio`` is to the command ``TORCH``, of processor
    seconds where they are known."""

    command: str
    seconds: float
    cpu_seconds: float | None
    peak_mb: float | None
    ratio: float
    runs: Sequence[Run]


def usual_of(options: UpscaleOptions) -> list[str]:
    """Options of ``yoda upscale`` that every timed command has."""
    denoise = "auto" if options.denoise is None else f"{options.denoise:g}"
    chosen = {"model": options.model, "device": options.device, "precision": options.precision}
    named = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    return [*named, "--denoise", denoise, "--overwrite", "-q", "--no-progress"]


def commands_of(options: UpscaleOptions, picture: Path, folder: Path) -> dict[str, list[str]]:
    """What is timed: nothing, torch, a mistake, help, and ``picture`` enlarged into ``folder``,
    without torch too where that is possible."""
    python, yoda = sys.executable, [sys.executable, "-m", "yoda_cli"]
    output = str(folder / "result.png")
    usual = [*usual_of(options), "-o", output]
    usual_torch = [*usual, "--runtime", "torch"]
    commands = {
        "python": [python, "-c", "pass"],
        TORCH: [python, "-c", "import torch"],
        "yoda --help": [*yoda, "--help"],
        "a path that is not there": [*yoda, "upscale", str(folder / "missing.png")],
        "yoda upscale": [*yoda, "upscale", str(picture), *usual_torch],
        "yoda upscale, base alone": [
            *yoda, "upscale", str(picture), *usual_torch, "--fidelity", "1",
        ],
    }  # fmt: skip
    if ncnn_runs(options):
        plain = [*usual, "--precision", "fp32", "--runtime", "ncnn"]
        commands[NCNN] = [*yoda, "upscale", str(picture), *plain]
    return commands


def time_processes(
    commands: Mapping[str, Sequence[str]], on_round: Callable[[str], None] = lambda line: None
) -> list[ProcessTiming]:
    """Run each of ``commands`` once unmeasured, then in turn; one of them is ``TORCH``."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(ROUNDS + 1):
        for name, command in commands.items():
            found = run_once(command)
            if number:
                runs[name].append(found)
        on_round(f"whole processes: round {number} of {ROUNDS}" if number else "warmed up")
    medians = {name: median_of(found) for name, found in runs.items()}
    return [
        ProcessTiming(
            name, one.seconds, one.cpu_seconds, one.peak_mb, ratio_of(one, medians[TORCH]),
            runs[name],
        )
        for name, one in medians.items()
    ]  # fmt: skip


def median_of(runs: Sequence[Run]) -> Run:
    """Each figure's median by itself, None where it is not known."""
    cpu = [run.cpu_seconds for run in runs if run.cpu_seconds is not None]
    peaks = [run.peak_mb for run in runs if run.peak_mb is not None]
    return Run(
        statistics.median(run.seconds for run in runs),
        statistics.median(cpu) if cpu else None,
        statistics.median(peaks) if peaks else None,
    )


def ratio_of(one: Run, base: Run) -> float:
    """Of processor seconds where both are known, else of seconds."""
    if one.cpu_seconds is not None and base.cpu_seconds:
        return one.cpu_seconds / base.cpu_seconds
    return one.seconds / base.seconds


def run_once(command: Sequence[str]) -> Run:
    """One process, whose output is thrown away."""
    launcher = [sys.executable, "-c", LAUNCHER, *command]
    done = subprocess.run(launcher, capture_output=True, text=True, check=True)
    return Run(*json.loads(done.stdout))
