"""How much of a machine's arithmetic a network uses: its 10⁹ operations a second beside those of a
large matrix product in the same precision."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from yoda_cli.models.model import Model

SIDE = 1536  # of the matrices
PIXELS = 128  # a side of the LR picture
ROUNDS = 7  # of which the median counts


@dataclass(frozen=True)
class Rate:
    """``gflop`` of one run, its median seconds, and the speed over that of the matrix product."""

    what: str
    gflop: float
    median: float
    gflop_per_second: float
    ratio: float


@torch.inference_mode()
def rates(model: Model) -> list[Rate]:
    """The matrix product, the encoder, and one call of the network on a whole picture, in turn."""
    net, device = model.backbone, model.device
    matrix = torch.randn(SIDE, SIDE, device=device).to(model.precision)
    lr = torch.rand(1, net.geometry.in_channels, PIXELS, PIXELS, device=device)
    with model.context():
        condition = net.encode(lr)
    z_t = torch.randn(condition.z_lr.shape, device=device)
    mask = torch.ones_like(z_t[:, :1], dtype=torch.bool)
    t = net.schedule.num_steps
    runs: dict[str, Callable[[], object]] = {
        "matrix product": lambda: matrix @ matrix,
        "encoder": lambda: net.encode(lr),
        "network call": lambda: net.predict(z_t, t, condition, mask),
    }
    work: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        with FlopCounterMode(display=False) as counter, model.context():
            run()
        work[name] = counter.get_total_flops() / 1e9
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            with model.context():
                run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    speed = {name: work[name] / medians[name] for name in runs}
    return [
        Rate(name, work[name], medians[name], speed[name], speed[name] / speed["matrix product"])
        for name in runs
    ]
