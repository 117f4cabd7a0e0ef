"""Timing a network: what a call, a pixel and what surrounds them take, in seconds.

Knows no record of earlier measurements: that is ``calibration``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.arrays import as_float32, for_inference, on_cpu, zeros
from yoda_cli.diffusion.noise import NoiseField
from yoda_cli.diffusion.schedule import NoiseSchedule
from yoda_cli.diffusion.steps import ddim_step
from yoda_cli.diffusion.timesteps import spaced_timesteps
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.images.fidelity import draw_towards_base
from yoda_cli.models.base import Condition, crop_condition
from yoda_cli.models.model import Model
from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.windows import Window

SIDES = (64, 128, 512)  # output pixels of the windows that are timed
#: A network this slow on one window is timed once, and on no larger one; one whose first call is
#: this slow is not called again. Chosen so that nobody waits more than seconds for a forecast.
SLOW_SECONDS, SLOW_FIRST = 0.25, 3.0
REPEATS = 5  # of which the least counts
LARGEST_BYTES = 2 << 30  # of a window that is timed: any GPU in use has more
#: A CPU's window that is timed, and what a call and a new shape cost there, in pixels: between two
#: quiet machines they differ less than two moments of a busy one, and a plan must not. Measured on
#: AVX2 with other work beside it, by `scripts/measure_constants.py SMALL_SIDE`, and so on:
#: - 96 pixels a side say a price half above a large window's, and readings differ by a quarter;
#:   192 a fifth above and by 4 %, for 0.13 seconds in place of 0.05.
#: - From 32 to 256 pixels a side a call takes 0.8 to 1.1 times the forecast with 5400, 0.7 to 1.3
#:   times with half of it.
#: - A new shape costs 6000 pixels in the median. Plans know the sum's power of four alone, which
#:   half and twice of either leave as it is.
SMALL_SIDE, CALL_PIXELS, SHAPE_PIXELS = 96, 5400, 8000

if TYPE_CHECKING:
    from torch import Tensor

ConditionOf = Callable[["Tensor"], Condition]


def measure(model: Model, condition_of: ConditionOf | None = None) -> Costs:
    """Time what has to be known before the first plan."""
    if model.device.type == "cpu" and condition_of is None and not _compiles(model):
        return measure_small(model)
    return measure_fully(model, condition_of)


@for_inference
def measure_small(model: Model) -> Costs:
    """Time one small window and its encoding on a CPU: a small part of a small picture's work."""
    grid = model.backbone.geometry.align
    side = max(SMALL_SIDE // grid, 1) * grid
    canvas = Canvas.of(model, side, model.backbone.encode)
    seconds = _least(partial(canvas.call, side), model, repeats=2)
    pixel = seconds / (side**2 + CALL_PIXELS)
    encode = _least(canvas.encode, model, repeats=2) / canvas.pixels
    step = _step_seconds(model, side=256, repeats=2)
    once = _seconds_once(model, canvas, repeats=2)
    return Costs(CALL_PIXELS * pixel, pixel, encode, step, SHAPE_PIXELS * pixel, once)


@for_inference
def measure_fully(model: Model, condition_of: ConditionOf | None = None) -> Costs:
    """Time the encoder, the network on a few windows, and the loop around it."""
    net = model.backbone.geometry
    grid = net.align
    sides = [max(side // grid, 1) * grid for side in SIDES]
    fitting = [n for n in sides if n**2 * net.pixel_bytes <= LARGEST_BYTES] or sides[:1]
    canvas = Canvas.of(model, max(fitting), condition_of or model.backbone.encode)
    seconds: dict[int, float] = {}
    firsts: list[float] = []
    for side in fitting:
        run = partial(canvas.call, side)
        first = _timed(run, model)
        seconds[side] = _least(run, model, first)
        firsts.append(max(first - seconds[side], 0.0))
        if seconds[side] > SLOW_SECONDS:
            break
    # The median: the network's very first call prepares more, and some shape may be known already.
    shape = 0.0 if _compiles(model) else statistics.median(firsts)
    encode = _least(canvas.encode, model) / canvas.pixels
    step, once = _step_seconds(model), _seconds_once(model, canvas)
    small, large = min(seconds), max(seconds)
    if small == large:
        return Costs(0.0, seconds[small] / small**2, encode, step, shape, once)
    pixel = (seconds[large] - seconds[small]) / (large**2 - small**2)
    pixel = max(pixel, seconds[large] / large**2 / 2)  # a busy moment
    call = max(seconds[small] - pixel * small**2, 0.0)
    return Costs(call, pixel, encode, step, shape, once)


@dataclass
class Canvas:
    """A canvas from which windows are cut and into which results are pasted, as in a run."""

    model: Model
    lr: Tensor
    condition: Condition
    z_t: Tensor
    mask: Tensor
    condition_of: ConditionOf
    calls: int = 0

    @staticmethod
    def of(model: Model, side: int, condition_of: ConditionOf) -> Canvas:
        """Large enough for windows of ``side`` at several places."""
        net = model.backbone.geometry
        side += min(8 * net.align, side)
        lr = _zeros(model, 1, net.in_channels, side // net.scale, side // net.scale) + 0.5
        with model.context():
            condition = condition_of(lr)
        z_t = zeros(condition.z_lr, *condition.z_lr.shape)
        mask = z_t[:, :1] == 0
        return Canvas(model, lr, condition, z_t, mask, condition_of)

    @property
    def pixels(self) -> int:
        return int(self.z_t.shape[-2] * self.z_t.shape[-1])

    def encode(self) -> None:
        with self.model.context():
            self.condition_of(self.lr)

    def call(self, side: int) -> None:
        """One window, at another place each time."""
        net = self.model.backbone
        grid = net.geometry.align
        places = (self.z_t.shape[-1] - side) // grid + 1
        at = self.calls % places * grid
        self.calls += 1
        window = Window(at, at, at + side, at + side)
        with self.model.context():
            seen = crop_condition(self.condition, window)
            t = net.schedule.num_steps
            z_0 = net.predict(window.cut(self.z_t), t, seen, window.cut(self.mask))
        window.cut(self.z_t)[...] = z_0


def _zeros(model: Model, *shape: int) -> Tensor:
    """Of the library and on the device that a model computes with."""
    if model.is_plain:
        return cast("Tensor", np.zeros(shape, np.float32))
    import torch

    return torch.zeros(shape, device=model.device)


def _step_seconds(model: Model, side: int = 1024, repeats: int = REPEATS) -> float:
    """Of the loop around the network, per output pixel and step."""
    steps = 4
    z = _zeros(model, 1, model.backbone.geometry.z_channels, side, side)
    attention = z[:, :1] + 0.5
    falling = cast("Tensor", np.linspace(1.0, 0.01, 101))
    schedule = NoiseSchedule(1 - falling, falling)
    times = spaced_timesteps(100, steps)

    def run() -> None:
        masked_sample(
            lambda z, t, mask: zeros(z, *z.shape), ddim_step, schedule, times,
            AttentionMask(attention, 0.3, 100), z, lambda step: z,
        )  # fmt: skip

    return _least(run, model, repeats=repeats) / side**2 / steps


def _seconds_once(model: Model, canvas: Canvas, repeats: int = REPEATS) -> float:
    """Of one output pixel before and after the loop: its noise, its way back to a picture."""
    net = model.backbone
    height, width = canvas.z_t.shape[-2:]
    field = NoiseField(0, net.geometry.z_channels)

    def run() -> None:
        field.array(0, 0, 0, height, width)
        image = as_float32(net.decode(canvas.z_t, canvas.condition))
        base = as_float32(net.decode(canvas.condition.z_lr, canvas.condition))
        on_cpu(draw_towards_base(image, base, 0.5).clip(0, 1))

    return _least(run, model, repeats=repeats) / canvas.pixels


def _compiles(model: Model) -> bool:
    return model.backbone.is_compiled


def _timed(run: Callable[[], object], model: Model) -> float:
    began = time.perf_counter()
    run()
    if model.device.type == "cuda":
        import torch

        torch.cuda.synchronize(model.device)
    return time.perf_counter() - began


def _least(
    run: Callable[[], object], model: Model, first: float | None = None, repeats: int = REPEATS
) -> float:
    """The least seconds of a few runs after a first one; of fewer where one is slow.

    The least, because whatever else the machine does only adds. The first run prepares things, and
    counts only where it is so long that this cannot matter; a compiled network's never does.
    """
    first = _timed(run, model) if first is None else first
    if first > SLOW_FIRST and not _compiles(model):
        return first
    times: list[float] = []
    while len(times) < repeats and min(times, default=0.0) <= SLOW_SECONDS:
        times.append(_timed(run, model))
    return min(times)
