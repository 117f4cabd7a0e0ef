"""Overlapping windows of a latent canvas, fused at every step by Gaussian weights.

A window of Stable Diffusion sees all of itself, so results of neighbours differ and a hard cut
would show. A window whose pixels are all idle is left out: nothing of it is read.
Sizes are latent pixels, 8 to a side of an image pixel each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from yoda_cli.backbones import Condition, crop_condition
from yoda_cli.errors import DeviceError
from yoda_cli.models import Model
from yoda_cli.planning import Layout, Plan
from yoda_cli.recovery import Counter, free_memory, is_out_of_memory
from yoda_cli.sampling import joined
from yoda_cli.tiling import Tile, Window
from yoda_cli.yoda import time_mask

WINDOW = 64  # what Stable Diffusion 2.1 was trained on
VARIANCE = 0.01


def sliding_windows(height: int, width: int, size: int, stride: int) -> list[Window]:
    """Windows in row order; the last of a row or column ends at the border."""

    def starts(length: int) -> list[int]:
        last = max(length - size, 0)
        return [*range(0, last, stride), last]

    return [
        Window(top, left, min(top + size, height), min(left + size, width))
        for top in starts(height)
        for left in starts(width)
    ]


def gaussian_weights(height: int, width: int) -> Tensor:
    """DiffBIR's weights (h, w) of a window, fp64: rows peak half a pixel late, as published."""

    def bell(length: int, middle: float) -> Tensor:
        at = (torch.arange(length, dtype=torch.float64) - middle) / length
        return torch.exp(-(at**2) / (2 * VARIANCE)) / math.sqrt(2 * math.pi * VARIANCE)

    return bell(height, height / 2)[:, None] * bell(width, (width - 1) / 2)


def window_plan(
    attention: Tensor, timesteps: Sequence[int], lower: float, num_steps: int, size: int,
    stride: int = 0, *, skip: bool,
) -> Plan:  # fmt: skip
    """The windows of every transition for A (1, 1, h, w); a window is needed where any pixel of
    it is active. ``size`` 0 is one window, ``stride`` 0 half of it."""
    height, width = attention.shape[-2:]
    size = size or max(height, width)
    windows = sliding_windows(height, width, size, stride or max(size // 2, 1))
    peaks = torch.stack([window.cut(attention).amax() for window in windows])
    tiles = [Tile(window, window) for window in windows]
    layouts = []
    for _, s in itertools.pairwise(timesteps):
        active = time_mask(peaks, lower, s + 1, num_steps).tolist()
        pairs = list(zip(tiles, active, strict=True))
        layouts.append(
            Layout(
                tuple(tile for tile, needed in pairs if needed),
                tuple(tile for tile, needed in pairs if not needed),
            )
        )
    return Plan(timesteps, lower, layouts, skip, True, height * width)


@dataclass
class WindowedDenoiser:
    """ẑ_0 of a whole canvas from overlapping windows; where none ran it is 0 and never read.

    At an active pixel every window that covers it ran, in an order that does not depend on idle
    ones: the same bytes with and without them.
    """

    model: Model
    condition: Condition
    plan: Plan
    group: int = 1
    counter: Counter = field(default_factory=Counter)

    def __call__(self, z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        total = torch.zeros_like(z_t)
        weights = torch.zeros_like(z_t[:, :1])
        tiles = self.plan.tiles(self.plan.timesteps.index(t))
        for start in range(0, len(tiles), self.group):
            windows = [tile.window for tile in tiles[start : start + self.group]]
            for window, z_0 in zip(windows, self.run(windows, z_t, t, mask), strict=True):
                weight = gaussian_weights(window.height, window.width).to(z_0)
                window.cut(total).add_(z_0 * weight)
                window.cut(weights).add_(weight)
        return torch.where(weights > 0, total / weights, 0.0)

    def run(self, windows: Sequence[Window], z_t: Tensor, t: int, mask: Tensor) -> list[Tensor]:
        """ẑ_0 of every window; where memory runs out in halves, one alone once more."""
        for again in (False, True):
            try:
                found = self.predict(windows, z_t, t, mask)
                self.counter.repeated += int(again)
                return found
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            free_memory()
            if len(windows) > 1:
                self.counter.smaller_groups += 1
                middle = len(windows) // 2
                halves = (windows[:middle], windows[middle:])
                return [z_0 for half in halves for z_0 in self.run(half, z_t, t, mask)]
        raise DeviceError(
            f"out of memory on {self.model.device} with one window of "
            f"{8 * windows[0].width}×{8 * windows[0].height} pixels; give a smaller --tile"
        )

    def predict(self, windows: Sequence[Window], z_t: Tensor, t: int, mask: Tensor) -> list[Tensor]:
        """One network call."""
        seen = joined([crop_condition(self.condition, window) for window in windows])
        states = torch.cat([window.cut(z_t) for window in windows])
        masks = torch.cat([window.cut(mask) for window in windows])
        with self.model.context():
            z_0 = self.model.backbone.predict(states, t, seen, masks)
        self.counter.count(len(windows))
        return list(torch.split(z_0, 1))
