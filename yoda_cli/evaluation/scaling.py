"""What a second core brings to one picture and to a folder, and what pictures taken together bring.

Each pair is timed in turn, by the clock. Folders are whole processes with one thread a worker, and
what a short folder takes is taken off: starting a program is no part of what a picture costs.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from yoda_cli.arrays import usable_cores
from yoda_cli.config import UpscaleOptions
from yoda_cli.evaluation.methods import Method
from yoda_cli.evaluation.processes import usual_of
from yoda_cli.evaluation.speed import fitted
from yoda_cli.images import Picture, write_picture

ROUNDS = 5  # of which the median counts
SIDE = 192  # of the LR picture that one and two threads enlarge
SMALL = (48, 64)  # height and width of a folder's pictures
SHORT, LONG = 2, 34  # pictures in a folder

Say = Callable[[str], None]


@dataclass(frozen=True)
class Gain:
    """``ratio`` times as fast as ``over``: medians of ``seconds`` in both ways, in turn."""

    what: str
    over: str
    ratio: float
    seconds: Sequence[float]
    over_seconds: Sequence[float]


def gain(what: str, over: str, seconds: Sequence[float], over_seconds: Sequence[float]) -> Gain:
    """The ratio pair by pair, so that a busy moment of the machine meets both."""
    pairs = [old / max(new, 1e-9) for new, old in zip(seconds, over_seconds, strict=True)]
    return Gain(what, over, statistics.median(pairs), seconds, over_seconds)


def threads_gain(method: Method, lr: Tensor, say: Say = lambda line: None) -> list[Gain]:
    """Two threads over one for one picture; nothing where there is one core."""
    if usable_cores() < 2:
        return []
    small, before = fitted(lr, SIDE, SIDE), torch.get_num_threads()
    found: dict[int, list[float]] = {1: [], 2: []}
    try:
        for number in range(ROUNDS + 1):
            for threads, seconds in found.items():
                torch.set_num_threads(threads)
                began = time.perf_counter()
                method.run(small)
                if number:
                    seconds.append(time.perf_counter() - began)
            say(f"threads: round {number} of {ROUNDS}")
    finally:
        torch.set_num_threads(before)
    return [gain("one picture, two threads", "one thread", found[2], found[1])]


def folder_gains(
    options: UpscaleOptions, lr: Tensor, folder: Path, say: Say = lambda line: None
) -> list[Gain]:
    """A folder of small pictures: batched over one by one, and two workers over one, beside two
    programs at once, which is the most that the machine's second core can give."""
    ways: dict[str, list[str]] = {"one by one": ["--batch", "1"], "batched": []}
    if usable_cores() > 1:
        ways |= {"two workers": ["-j", "2"], "two programs": []}
    sets = {count: pictures(lr, folder / f"in{count}", count) for count in (SHORT, LONG)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, more in ways.items():
            copies = 2 if way == "two programs" else 1
            short, long = (
                run_folder(options, source, folder / "out", more, copies)
                for source in sets.values()
            )
            if number:
                seconds[way].append((long - short) / copies)
        say(f"folders: round {number} of {ROUNDS}")
    return [
        gain(f"a folder of small pictures, {way}", over, seconds[way], seconds[over])
        for way, over in (
            ("batched", "one by one"), ("two workers", "batched"), ("two programs", "batched"),
        )
        if way in seconds
    ]  # fmt: skip


def pictures(lr: Tensor, folder: Path, count: int) -> Path:
    """``count`` small pictures in a folder, no two alike."""
    folder.mkdir()
    height, width = SMALL
    small = fitted(lr, height + 1, width + count)
    for number in range(count):
        crop = small[..., :height, number : number + width]
        write_picture(folder / f"{number:03}.png", Picture(crop), kind="PNG")
    return folder


def run_folder(
    options: UpscaleOptions, source: Path, output: Path, more: Sequence[str], copies: int
) -> float:
    """Seconds of ``copies`` programs at once, of one thread a worker."""
    command = [sys.executable, "-m", "yoda_cli", "upscale", str(source), *usual_of(options), *more]
    threads = "2" if "-j" in more else "1"  # shared by the workers
    environment: Mapping[str, str] = os.environ | {"OMP_NUM_THREADS": threads}
    began = time.perf_counter()
    running = [
        subprocess.Popen(
            [*command, "-o", f"{output}{number}"], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in range(copies)
    ]  # fmt: skip
    codes = [process.wait() for process in running]
    seconds = time.perf_counter() - began
    for number in range(copies):
        shutil.rmtree(f"{output}{number}", ignore_errors=True)
    if any(codes):
        raise RuntimeError(f"{' '.join(command)} ended with {max(codes)}")
    return seconds
