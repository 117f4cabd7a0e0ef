"""Speed: every method on every size, after a warm-up, in turn; medians and ratios to the first.

Methods take turns inside each round, so a busy moment of a shared machine meets all of them.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from yoda_cli.evaluation.methods import Method
from yoda_cli.images.resize import imresize

ROUNDS = 5  # of which the median counts: two that are disturbed do not
#: Of a run: such a method, if not the first, is left out of larger sizes. Chosen so that no size
#: takes a method minutes: four times the pixels, six times.
SLOW_SECONDS = 8.0


@dataclass(frozen=True)
class Timing:
    """Seconds of one method on one LR size, and what they are of the first method's there."""

    method: str
    width: int
    height: int
    median: float
    fastest: float
    slowest: float
    ratio: float
    per_megapixel: float
    gflop: float | None
    calls: int


def measure(
    methods: Sequence[Method], sample: Tensor, sizes: Sequence[int], scale: int,
    on_round: Callable[[str], None] = lambda line: None, rounds: int = ROUNDS,
) -> list[Timing]:  # fmt: skip
    """Time ``methods`` on ``sample`` made square at each of ``sizes`` (LR pixels, rising)."""
    timings: list[Timing] = []
    methods = list(methods)
    for size in sizes:
        lr = fitted(sample, size, size)
        calls = [method.run(lr).calls for method in methods]  # the warm-up
        seconds: list[list[float]] = [[] for _ in methods]
        for number in range(rounds):
            for method, found in zip(methods, seconds, strict=True):
                began = time.perf_counter()
                method.run(lr)
                found.append(time.perf_counter() - began)
            on_round(f"{size}×{size}: round {number + 1} of {rounds}")
        baseline = statistics.median(seconds[0])
        megapixels = (size * scale) ** 2 / 1e6
        for method, found, count in zip(methods, seconds, calls, strict=True):
            median = statistics.median(found)
            timings.append(
                Timing(method.name, size, size, median, min(found), max(found), median / baseline,
                       median / megapixels, gflop(method, lr), count)
            )  # fmt: skip
        slow = {t.method for t in timings if t.median > SLOW_SECONDS and t.width == size}
        methods = [m for m in methods if m is methods[0] or m.name not in slow]
    return timings


def fitted(sample: Tensor, height: int, width: int) -> Tensor:
    """(1, 3, height, width) of ``sample``: made smaller, or repeated as in mirrors. Enlarged it
    would be a soft picture, and those are restored, which takes longer."""
    small = imresize(sample, (min(height, sample.shape[-2]), min(width, sample.shape[-1])))
    for axis, length in ((-2, height), (-1, width)):
        both = torch.cat([small, small.flip(axis)], axis)
        copies = -(-length // both.shape[axis])
        small = torch.cat([both] * copies, axis).narrow(axis, 0, length)
    return small.clamp(0, 1)


def gflop(method: Method, lr: Tensor) -> float | None:
    """10⁹ floating-point operations of one run (a multiply-add is two); None where none count."""
    counter = FlopCounterMode(display=False)
    with counter:
        method.run(lr)
    total = counter.get_total_flops()
    return total / 1e9 if total else None


def environment() -> dict[str, Any]:
    """What the numbers were taken on."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "machine": platform.machine(),
        "processor": platform.processor() or torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": cuda,
    }
