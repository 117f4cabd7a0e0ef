"""What a run will do, known before its first network call: blocks, tiles of every transition, cost.

Windows and cores are output pixels. A tile is active in a transition where ``time_mask`` is True
anywhere in its core; the mask grows with A, so that is asked of the core's largest A.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.costs import Costs, costs_of
from yoda_cli.diffusion import spaced_timesteps
from yoda_cli.errors import DeviceError, UsageError
from yoda_cli.memory import free_bytes
from yoda_cli.models import Model
from yoda_cli.partition import Canvas, partitions
from yoda_cli.tiling import Tile, Window, make_tiles, of_one_shape, rounded_up, with_halo
from yoda_cli.yoda import time_mask

MIN_TILE = 64  # smaller cores spend nearly all time on their halos
EXACT_TILE = 256
LARGEST_WINDOW = 768 * 1024  # pixels of one network call in a lean run, where memory allows
LARGEST_QUICK = 7 << 18  # of one in any other, or half a block where that is more
HALF = 0.54  # of a block, in whole cells and with a halo
LEAN_PIXELS = 16 << 20  # a run on a picture of more uses little memory and takes more time
CELLS = 24  # the planner's grid has at most so many cells a side
ENCODER_HALOS = 3  # its window is computed once, so it may look further than a step does
WHOLE_PIXELS = 4 << 20  # of a block's core: a picture of more is cut
WHOLE_WINDOW = 17 << 18  # the same with what it shares with its neighbours
LEAN_BLOCK = 3 << 19  # of a core in a lean run
ENCODED_TOGETHER = 5  # times the pixels of a network call: the encoder works on the LR grid
CANVAS_BYTES = 100  # of state, noise, estimate and condition, per output pixel
BLOCK_OVERLAP = 32  # on every side of a block's core


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


def largest_window(model: Model, pixels: int, *, lean: bool = False) -> float:
    """Pixels that one network call may have on a canvas of ``pixels``: what a quarter of the free
    memory holds, at most the constants above."""
    free = free_bytes(model.device) / 4 / model.backbone.pixel_bytes
    half = HALF * pixels if pixels <= WHOLE_WINDOW else 0
    most = LARGEST_WINDOW if lean else max(LARGEST_QUICK, half)
    return max(min(free, most), MIN_TILE**2)


def check_memory(blocks: Sequence[Tile], model: Model) -> None:
    """Refuse blocks whose canvas alone needs more memory than there is."""
    largest = max(block.window.pixels for block in blocks)
    needed, free = largest * CANVAS_BYTES, free_bytes(model.device)
    if needed > free:
        raise DeviceError(
            f"a block of {largest:,} pixels needs about {needed / 1e9:.1f} GB on {model.device}, "
            f"and {free / 1e9:.1f} GB are free; leave --block at auto"
        )


def encoder_tiles(height: int, width: int, model: Model, options: UpscaleOptions) -> list[Tile]:
    """The windows in which a canvas is encoded, once: as large as memory allows."""
    net = model.backbone
    if options.exact:
        return grid_tiles(height, width, model, options)
    whole = height * width <= WHOLE_WINDOW
    together = ENCODED_TOGETHER if whole else 1
    side = int(math.sqrt(together * largest_window(model, height * width, lean=not whole)))
    core = 0 if height * width <= side * side else side
    halo = ENCODER_HALOS * net.halo
    return make_tiles(height, width, core=core, halo=halo, align=net.stride * net.scale)


def make_blocks(height: int, width: int, model: Model, options: UpscaleOptions) -> list[Tile]:
    """Cores that partition a canvas, each with the window of an independent trajectory."""
    align = model.backbone.stride * model.backbone.scale
    if options.block == 0 or (options.block is None and height * width <= WHOLE_PIXELS):
        return make_tiles(height, width, core=0, halo=0, align=align)
    pixels = WHOLE_PIXELS if height * width <= LEAN_PIXELS else LEAN_BLOCK
    side = options.block or math.isqrt(pixels)
    rows = _even(height, side, align)
    columns = _even(width, side if options.block else pixels // min(rows, height), align)
    cores = [
        Window(top, left, min(top + rows, height), min(left + columns, width))
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]
    return [with_halo(core, rounded_up(BLOCK_OVERLAP, align), height, width) for core in cores]


def _even(size: int, largest: int, align: int) -> int:
    """The length of equal parts of ``size``, on the grid, none far above ``largest``.

    The last part is never shorter than the overlap of two blocks.
    """
    count = -(-size // largest)
    part = rounded_up(-(-size // count), align)
    while count > 1 and size - (count - 1) * part < 2 * BLOCK_OVERLAP:
        count -= 1
        part = rounded_up(-(-size // count), align)
    return part
