"""What happens at half and at twice the value of a constant that is named in the code.

    python scripts/measure_constants.py EXPONENTS [WEAKEST …]     # all: without a name

Each prints a table with a row for half, own and twice. Forecasts are counts of pixels, at the costs
of FIXED, and so the same on every machine; seconds are processor seconds of this one, the least of
a few. The pictures are those of the package. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any, cast
from unittest.mock import patch

import torch
from measure_runs import RUNS
from torch import Tensor

from yoda_cli.attention.sources import find_source
from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion import bands
from yoda_cli.evaluation.datasets import SAMPLE
from yoda_cli.images import read_picture
from yoda_cli.images.resize import imresize
from yoda_cli.models import calibration, timing
from yoda_cli.models.loading import find_model
from yoda_cli.models.model import Model
from yoda_cli.tiling import budget, plan
from yoda_cli.tiling.cost import Costs
from yoda_cli.upscaling import checks, memory_limits, picture_plan
from yoda_cli.upscaling.pipeline import pipeline_of
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer

Row = dict[str, float]
FIXED = Costs(5400e-6, 1e-6, 1e-7, 1e-8, 8000e-6)  # of a CPU, in millionths of a second a pixel
BUDGETS, SOURCES = (0.02, 0.1, 0.3, 0.5, 0.8), ("edge", "gaussian")
FACTORS = {"half": 0.5, "own": 1.0, "twice": 2.0}


def pictures(side: int) -> Iterator[Tensor]:
    """The packaged samples (1, 3, side, side) in [0, 1]."""
    for path in sorted(SAMPLE.glob("*.png")):
        yield imresize(read_picture(path).rgb, (side, side)).clamp(0, 1)


def own_model() -> Model:
    return find_model(UpscaleOptions(precision="fp32", device="cpu"))


@contextmanager
def constant(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    with patch.object(module, name, value):
        yield


@contextmanager
def fixed_costs() -> Iterator[None]:
    """Plans are made with FIXED, whatever this machine costs."""
    with patch.object(picture_plan, "costs_of", lambda *a, **k: FIXED):
        yield


def least(run: Callable[[], object], repeats: int) -> float:
    """Processor seconds."""
    times = []
    for _ in range(repeats + 1):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return min(times[1:])


def budgets(side: int) -> Row:
    """How far the forecast lies from what was asked, over pictures, maps and budgets."""
    model, misses, bounds = own_model(), [], 0
    cases = [(lr, m, b) for lr in list(pictures(side))[:3] for m in SOURCES for b in BUDGETS]
    with fixed_costs():
        for lr, source, share in cases:
            settings = resolve(
                UpscaleOptions(budget=share, attention=source, denoise=0.0, steps=8), model
            )
            attention = find_source(source, None, model.device).attend(lr)
            spent = pipeline_of(model).plan(lr, settings, attention).spent
            assert spent is not None
            misses.append(abs(spent.share - share))
            bounds += spent.lower_bound < settings.mask.lower_bound
    return {"mean miss": statistics.mean(misses), "median miss": statistics.median(misses),
            "worst miss": max(misses), "lower bound given up": bounds / len(cases)}  # fmt: skip


def exponents(factor: float, small: bool) -> Row:
    """Half and twice as far from 1, on a logarithmic scale of two: (1/16, 2), (1/64, 8)."""
    dear, cheap = budget.EXPONENTS
    with constant(budget, "EXPONENTS", (dear / factor, cheap * factor)):
        return budgets(48 if small else 160)


def of_budget(name: str, factor: float, small: bool) -> Row:
    value = getattr(budget, name) * factor
    with constant(budget, name, round(value) if name == "ROUNDS" else value):
        return budgets(48 if small else 160)


def of_learning(name: str, factor: float, small: bool) -> Row:
    value = getattr(calibration, name) * factor
    with constant(calibration, name, round(value) if name == "RUNS" else value):
        return learning(40 if small else 200)


def learning(count: int) -> Row:
    """``learn`` itself, over runs of an imagined machine; 1.0 is a forecast that was right."""
    found, dropped = {}, [False]
    for true in (1.0, 1.7, 3.0, 12.0):
        chance, errors, measured = random.Random(0), [], 0
        kept, pace = {"x": Costs(0, 1, 0, 0)}, true
        with (
            patch.multiple(calibration, _KNOWN=kept, _PACES={}, _key=lambda *a: "x"),
            patch.object(calibration, "_keep", lambda *a: dropped.append(a[2] is None)),
        ):
            for run in range(count):
                forecast = kept["x"].pace
                took = pace * chance.lognormvariate(0, 0.15) * (30 if run % 8 == 7 else 1)
                if run % 8 != 7 and run >= count // 2:
                    errors.append(max(took / forecast, forecast / took))
                calibration.learn(cast("Model", None), forecast, took)
                if dropped[-1]:  # measured anew, and right
                    measured, pace = measured + 1, 1.0
                    kept["x"], calibration._PACES["x"] = Costs(0, 1, 0, 0), ()
        found[f"{true:g} times as slow"] = statistics.median(errors)
        found[f"{true:g}: measured anew"] = float(measured)
    return found


def smallest_block(factor: float, small: bool) -> Row:
    """What the smallest block allowed costs, and how far a picture cut so lies from the whole."""
    side, canvas = round(checks.MIN_BLOCK * factor), 2048
    blocks = memory_limits.make_blocks(canvas, canvas, 8, side)
    row = {
        "pixels of all blocks, of the picture's": sum(b.window.pixels for b in blocks) / canvas**2
    }
    if not small:
        lr = next(iter(pictures(192)))
        whole, cut = (picture_of(lr, block) for block in (0, side))
        row["dB from the uncut picture"] = -10 * float((whole - cut).square().mean().log10())
    return row


@torch.inference_mode()
def picture_of(lr: Tensor, block: int) -> Tensor:
    model = own_model()
    with constant(checks, "MIN_BLOCK", 1), constant(memory_limits, "WHOLE_PIXELS", 1 << 40):
        settings = resolve(UpscaleOptions(denoise=0.0, block=block, attention="edge"), model)
        return pipeline_of(model).run(lr, settings, Observer()).image


@torch.inference_mode()
def small_side(factor: float, small: bool) -> Row:
    """The price of a pixel read off one window of SMALL_SIDE: five readings, and what they took,
    against a window of 384."""
    model, side = own_model(), round(timing.SMALL_SIDE * factor)
    sides = (side, 128 if small else 384)
    canvas = timing.Canvas.of(model, max(sides), model.backbone.encode)
    readings = {n: [least(partial(canvas.call, n), 2) for _ in range(2 if small else 5)]
                for n in sides}  # fmt: skip
    prices = [s / (side**2 + timing.CALL_PIXELS) for s in readings[side]]
    far = sides[1]
    true = min(readings[far]) / (far**2 + timing.CALL_PIXELS)
    return {"price over a large window's": statistics.median(prices) / true,
            "highest reading over lowest": max(prices) / min(prices),
            "seconds it takes": 3 * min(readings[side])}  # fmt: skip


@torch.inference_mode()
def call_pixels(factor: float, small: bool) -> Row:
    """Seconds of a call on windows of some sides over the forecast from one of SMALL_SIDE."""
    model, pixels = own_model(), timing.CALL_PIXELS * factor
    sides = (32, 64) if small else (32, 64, 128, 256)
    canvas = timing.Canvas.of(model, 256, model.backbone.encode)
    side = timing.SMALL_SIDE
    price = least(partial(canvas.call, side), 5) / (side**2 + pixels)
    return {f"took over forecast, {n}": least(partial(canvas.call, n), 5) / price / (n**2 + pixels)
            for n in sides}  # fmt: skip


def shape_pixels(factor: float, small: bool) -> Row:
    """What the first call of a shape takes beyond the next ones, in pixels, over SHAPE_PIXELS; and
    what plans think that a call costs, which is rounded to a power of four."""
    pixels = timing.SHAPE_PIXELS * factor
    median, highest = pixels_of_new_shapes(small)
    costs = Costs(timing.CALL_PIXELS, 1, 0, 0, pixels)
    return {"measured over it, median": median / pixels, "highest": highest / pixels,
            "a plan's price": costs.overhead_pixels}  # fmt: skip


@cache  # a shape is new once in a process
@torch.inference_mode()
def pixels_of_new_shapes(small: bool) -> tuple[float, float]:
    model, extra = own_model(), []
    grid = model.backbone.geometry.align
    canvas = timing.Canvas.of(model, 256, model.backbone.encode)
    side = timing.SMALL_SIDE
    price = least(partial(canvas.call, side), 5) / (side**2 + timing.CALL_PIXELS)
    for side in range(3 * grid, (6 if small else 15) * grid, grid):
        began = time.process_time()
        canvas.call(side)
        extra.append(time.process_time() - began - least(partial(canvas.call, side), 2))
    return statistics.median(extra) / price, max(extra) / price


def cells(factor: float, small: bool) -> Row:
    """Network pixels of a plan over those of the own value's, and the seconds of planning."""
    model, lrs = own_model(), list(pictures(128 if small else 480))
    settings = resolve(UpscaleOptions(attention="edge", denoise=0.0, lower_bound=0.1), model)

    def planned(value: int) -> tuple[float, float]:
        with fixed_costs(), constant(plan, "CELLS", value):
            maps = [find_source("edge", None, model.device).attend(lr) for lr in lrs]
            each = list(zip(lrs, maps, strict=True))
            plans = [pipeline_of(model).plan(lr, settings, a) for lr, a in each]
            seconds = least(lambda: pipeline_of(model).plan(*(lrs[0], settings, maps[0])), 2)
        return sum(cast("float", p.forecast_seconds) for p in plans), seconds

    (forecast, seconds), (own, _) = planned(round(plan.CELLS * factor)), planned(plan.CELLS)
    return {"forecast over own": forecast / own, "seconds of planning": seconds}


def band_values(factor: float, small: bool) -> Row:
    """Seconds of one step of the loop around the network, per megapixel."""
    model = own_model()
    with constant(bands, "BAND_VALUES", round(bands.BAND_VALUES * factor)):
        step = timing._step_seconds(model, 256 if small else 1536)
    return {"seconds a megapixel": step * 1e6}


MEASURED: dict[str, Callable[[float, bool], Row]] = {
    "EXPONENTS": exponents,
    **{name: partial(of_budget, name) for name in ("WEAKEST", "ROUNDS", "SMALLEST_A")},
    **{name: partial(of_learning, name) for name in ("RUNS", "AGREED")},
    "MIN_BLOCK": smallest_block,
    "SMALL_SIDE": small_side,
    "CALL_PIXELS": call_pixels,
    "SHAPE_PIXELS": shape_pixels,
    "CELLS": cells,
    "BAND_VALUES": band_values,
    **RUNS,
}


def table(name: str, *, small: bool = False) -> dict[str, Row]:
    """Rows for half, own and twice the value."""
    return {how: MEASURED[name](factor, small) for how, factor in FACTORS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURED))
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(MEASURED)):
        parser.error(f"nothing reads {', '.join(unknown)}; there are {', '.join(MEASURED)}")
    for name in names or MEASURED:
        sys.stdout.write(f"{name}\n")
        for how, row in table(name).items():
            figures = "; ".join(f"{what} {value:.4g}" for what, value in row.items())
            sys.stdout.write(f"  {how:6} {figures}\n")


if __name__ == "__main__":
    main()
