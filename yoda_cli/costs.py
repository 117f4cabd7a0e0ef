"""What the network costs on this machine: measured once, kept in the cache folder.

One network call on a window of p output pixels takes about ``call + pixel·p`` seconds; the encoder
and the loop around the network take seconds per output pixel.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from yoda_cli.errors import WeightsError
from yoda_cli.folders import cache_folder
from yoda_cli.models import Model

SIDES = (64, 128, 512)  # output pixels of the windows that are timed
SLOW_SECONDS = 0.25  # a network this slow on the smallest window is not timed on larger ones
REPEATS = 5


@dataclass(frozen=True)
class Costs:
    """Seconds: of a call, of a pixel in it, of a pixel of the encoder, of one in one step."""

    call: float
    pixel: float
    encode: float
    step: float

    @property
    def overhead_pixels(self) -> float:
        """What a call costs before its first pixel, in pixels, as a power of four.

        Rounded, so that measuring again gives the same plan and so the same bytes.
        """
        ratio = self.call / self.pixel
        return next((p for p in (1024.0, 4096.0, 16384.0) if ratio < 2 * p), 65536.0)


def costs_of(model: Model) -> Costs:
    """Measured now, or on an earlier run on this machine with this network."""
    parameters = sum(p.numel() for p in cast(nn.Module, model.backbone).parameters())
    name = f"{type(model.backbone).__name__} {parameters} {model.precision} {model.device}"
    machine = f"{platform.processor()} {platform.node()} {os.cpu_count()} {torch.__version__}"
    key = f"{name} {machine} {torch.get_num_threads()} threads"
    if key not in _KNOWN:
        _KNOWN[key] = _kept_or_measured(key, model)
    return _KNOWN[key]


_KNOWN: dict[str, Costs] = {}


def _kept_or_measured(key: str, model: Model) -> Costs:
    try:
        record = cache_folder() / "costs.json"
    except WeightsError:  # no home, no cache: measured every time
        return measure(model)
    kept: dict[str, dict[str, float]] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = dict(json.loads(record.read_text()))
        return Costs(**kept[key])
    costs = measure(model)
    with contextlib.suppress(OSError, TypeError):
        _write(record, {**kept, key: asdict(costs)})
    return costs


def _write(record: Path, kept: dict[str, dict[str, float]]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    partial = record.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(kept))
    partial.replace(record)


@torch.inference_mode()
def measure(model: Model) -> Costs:
    """Time the encoder, the network on a few windows, and the arithmetic of one step."""
    grid = model.backbone.stride * model.backbone.scale
    seconds: dict[int, float] = {}
    encode = 0.0
    for side in (max(side // grid, 1) * grid for side in SIDES):
        encode, seconds[side] = _window_seconds(model, side)
        if seconds[side] > SLOW_SECONDS:
            break
    small, large = min(seconds), max(seconds)
    if small == large:
        return Costs(0.0, seconds[small] / small**2, encode, _step_seconds(model))
    pixel = (seconds[large] - seconds[small]) / (large**2 - small**2)
    pixel = max(pixel, seconds[large] / large**2 / 2)  # a busy moment
    call = max(seconds[small] - pixel * small**2, 0.0)
    return Costs(call, pixel, encode, _step_seconds(model))


def _window_seconds(model: Model, side: int) -> tuple[float, float]:
    """Of the encoder per output pixel, and of one network call, on a square window."""
    net = model.backbone
    lr = torch.full((1, 3, side // net.scale, side // net.scale), 0.5, device=model.device)
    with model.context():
        condition = net.encode(lr)
        z_t = torch.zeros_like(condition.z_lr)
        mask = torch.ones_like(z_t[:, :1], dtype=torch.bool)
        encode = _typical(lambda: net.encode(lr), model, 2) / side**2
        t = net.schedule.num_steps
        return encode, _typical(lambda: net.predict(z_t, t, condition, mask), model)


def _step_seconds(model: Model) -> float:
    """Of the arithmetic of one step around the network, per output pixel."""
    side = 1024  # larger than a CPU's caches
    z = torch.zeros(1, model.backbone.z_channels, side, side, device=model.device)
    mask = torch.zeros(1, 1, side, side, device=model.device, dtype=torch.bool)

    def step() -> torch.Tensor:
        refined = (0.5 * z).add_(torch.zeros_like(z).copy_(z), alpha=0.5)
        return torch.where(mask, refined, (0.5 * z).add_(z, alpha=0.5))

    return _typical(step, model) / side**2


def _typical(run: Callable[[], object], model: Model, repeats: int = REPEATS) -> float:
    """The median seconds of a few runs after a warm-up; of the first where it is slow."""
    times: list[float] = []
    for number in range(repeats + 1):
        began = time.perf_counter()
        run()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        took = time.perf_counter() - began
        if number > 0 or took > SLOW_SECONDS:
            times.append(took)
        if took > SLOW_SECONDS:
            break
    return statistics.median(times)
