"""What a run will do, known before its first network call: blocks, tiles of every transition, cost.

Windows and cores are output pixels. A tile is active in a transition where ``time_mask`` is True
anywhere in its core; the mask grows with A, so that is asked of the core's largest A.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.timesteps import spaced_timesteps
from yoda_cli.diffusion.yoda import time_mask
from yoda_cli.errors import UsageError
from yoda_cli.models.calibration import costs_of
from yoda_cli.models.model import Model
from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.overlap import sliding_windows
from yoda_cli.tiling.partition import Canvas, partitions
from yoda_cli.tiling.windows import Tile, make_tiles, of_one_shape, rounded_up, with_halo

WINDOW = 64  # what Stable Diffusion 2.1 was trained on
MIN_TILE = 64  # smaller cores spend nearly all time on their halos
EXACT_TILE = 256
CELLS = 24  # the planner's grid has at most so many cells a side


@dataclass(frozen=True)
class Layout:
    """The tiles of one transition: those it needs, and the rest of the canvas."""

    active: tuple[Tile, ...]
    idle: tuple[Tile, ...]


@dataclass(frozen=True)
class Plan:
    """One layout per transition of ``timesteps``; ``skip`` leaves idle tiles out.

    ``fixed`` says that all layouts have the same tiles. ``pixels`` are those of the canvas.
    """

    timesteps: Sequence[int]
    lower_bound: float
    layouts: Sequence[Layout]
    skip: bool
    fixed: bool
    pixels: int

    def tiles(self, index: int) -> tuple[Tile, ...]:
        """What transition ``index`` runs."""
        layout = self.layouts[index]
        return layout.active if self.skip else layout.active + layout.idle

    @cached_property
    def planned_calls(self) -> int:
        """Windows that will go through the network."""
        return sum(len(self.tiles(i)) for i in range(len(self.layouts)))

    @cached_property
    def dense_calls(self) -> int:
        """The same if no tile were left out."""
        return sum(len(layout.active) + len(layout.idle) for layout in self.layouts)

    @cached_property
    def network_pixels(self) -> int:
        """Pixels of all windows that will go through the network, halos included."""
        counts = (tile.window.pixels for i in range(len(self.layouts)) for tile in self.tiles(i))
        return sum(counts)

    def seconds(self, costs: Costs) -> float:
        """The forecast for the canvas, but for the first use of each window shape."""
        network = costs.call * self.planned_calls + costs.pixel * self.network_pixels
        steps = costs.once + costs.step * len(self.layouts) if self.layouts else 0.0
        return network + self.pixels * (costs.encode + steps)


def forecast_seconds(plans: Iterable[Plan], costs: Costs) -> float:
    """Of the plans of one picture's blocks, at the present pace; a window shape is new once."""
    shapes: set[tuple[int, int]] = set()
    total = 0.0
    for plan in plans:
        total += plan.seconds(costs)
        tiles = (tile for i in range(len(plan.layouts)) for tile in plan.tiles(i))
        shapes.update((tile.window.height, tile.window.width) for tile in tiles)
    return costs.pace * (total + costs.shape * len(shapes))


def chain_of(model: Model, options: UpscaleOptions) -> tuple[list[int], float]:
    """The timesteps and the lower bound asked for."""
    total = model.backbone.schedule.num_steps
    lower = options.lower_bound or model.defaults.lower_bound
    if not bool(time_mask(torch.zeros(()), lower, 1, total)):
        raise UsageError(f"lower bound {lower:g} is below 1/T = 1/{total}: noise would remain")
    return spaced_timesteps(total, options.steps or model.defaults.steps), lower


def make_plan(
    attention: Tensor, model: Model, options: UpscaleOptions, *, lean: bool = False
) -> Plan:
    """Timesteps and tiles for ``attention`` (1, 1, H, W) on the canvas; small windows if lean."""
    timesteps, lower = chain_of(model, options)
    height, width = attention.shape[-2:]
    fixed = options.exact or options.tile is not None
    if model.fidelity(options) >= 1:
        layouts: list[Layout] = []  # the unrefined picture needs no network
    elif fixed:
        layouts = fixed_layouts(attention, timesteps, lower, model, options)
    else:
        layouts = cheapest_layouts(attention, timesteps, lower, model, options, lean=lean)
    return Plan(timesteps, lower, layouts, options.skip, fixed, height * width)


def fixed_layouts(
    attention: Tensor, timesteps: Sequence[int], lower: float, model: Model,
    options: UpscaleOptions,
) -> list[Layout]:  # fmt: skip
    """The same tiles in every transition."""
    height, width = attention.shape[-2:]
    tiles = grid_tiles(height, width, model, options)
    peaks = torch.stack([tile.core.cut(attention).amax() for tile in tiles])
    layouts: dict[tuple[bool, ...], Layout] = {}
    result = []
    for _, s in pairwise(timesteps):
        active = tuple(time_mask(peaks, lower, s + 1, timesteps[0]).tolist())
        if active not in layouts:
            pairs = list(zip(tiles, active, strict=True))
            layouts[active] = Layout(
                tuple(tile for tile, needed in pairs if needed),
                tuple(tile for tile, needed in pairs if not needed),
            )
        result.append(layouts[active])
    return result


def cheapest_layouts(
    attention: Tensor, timesteps: Sequence[int], lower: float, model: Model,
    options: UpscaleOptions, *, lean: bool = False,
) -> list[Layout]:  # fmt: skip
    """For every transition the cheapest partition into active and idle tiles."""
    canvas = canvas_of(attention.shape[-2], attention.shape[-1], model, options, lean=lean)
    peaks = F.max_pool2d(attention, canvas.cell, ceil_mode=True)[0, 0].cpu()
    times = [s + 1 for _, s in pairwise(timesteps)]
    active = torch.stack([time_mask(peaks, lower, t, timesteps[0]) for t in times])
    layouts: dict[int, Layout] = {}
    result = []
    for cores in partitions(active.numpy(), canvas):
        if id(cores) not in layouts:  # equal patterns share one list
            tiles: dict[bool, list[Tile]] = {True: [], False: []}
            for core, needed in cores:
                tiles[needed].append(with_halo(core, canvas.halo, canvas.height, canvas.width))
            layouts[id(cores)] = Layout(tuple(tiles[True]), tuple(tiles[False]))
        result.append(layouts[id(cores)])
    return result


def canvas_of(
    height: int, width: int, model: Model, options: UpscaleOptions, *, lean: bool = False
) -> Canvas:
    """The planner's grid over a canvas, and what windows on it cost here."""
    from yoda_cli.upscaling.memory_limits import largest_window

    align = model.backbone.stride * model.backbone.scale
    cell = rounded_up(max(MIN_TILE, -(-max(height, width) // CELLS)), align)
    halo = options.tile_overlap
    halo = rounded_up(model.backbone.plan_halo if halo is None else halo, align)
    return Canvas(
        height,
        width,
        cell,
        halo,
        costs_of(model).overhead_pixels,
        largest_window(model, height * width, lean=lean),
    )


def grid_tiles(height: int, width: int, model: Model, options: UpscaleOptions) -> list[Tile]:
    """A regular grid of the tile size asked for."""
    net = model.backbone
    core = options.tile
    if core is None:
        core = EXACT_TILE if options.exact else 0
    halo = net.halo if options.tile_overlap is None else options.tile_overlap
    tiles = make_tiles(height, width, core=core, halo=halo, align=net.stride * net.scale)
    return of_one_shape(tiles, height, width) if options.exact else tiles


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
