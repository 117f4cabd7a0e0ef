"""What a run will do, known before its first network call: the tiles of every transition, and cost.

Windows and cores are output pixels. A tile is active in a transition where ``time_mask`` is True
anywhere in its core; the mask grows with A, so that is asked of the core's largest A.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.arrays import Array, as_array
from yoda_cli.config import MIN_TILE
from yoda_cli.diffusion.yoda import time_mask
from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.geometry import Geometry
from yoda_cli.tiling.overlap import sliding_windows
from yoda_cli.tiling.partition import Canvas, partitions
from yoda_cli.tiling.windows import Tile, make_tiles, of_one_shape, rounded_up, with_halo

if TYPE_CHECKING:
    from torch import Tensor

    from yoda_cli.diffusion.adaptive import LeapRule

WINDOW = 64  # what Stable Diffusion 2.1 was trained on
EXACT_TILE = 256  # core of the one tile shape of an exact run, in pixels of the grid
#: The planner's grid has at most so many cells a side. With 12 a picture of 4 megapixels is to take
#: 7 % longer, with 48 2 % less time, and its planning half as long again
#: (`scripts/measure_constants.py CELLS`).
CELLS = 24


@dataclass(frozen=True)
class TileChoice:
    """What was asked of tiles and blocks, in output pixels; None leaves it to the planner.

    ``core`` is a tile's side (0: one tile), ``halo`` what is computed around it, ``block`` the
    side of an independent block (0: one). ``exact`` has all tiles of one shape, so that every
    call rounds alike; ``skip`` leaves out tiles that need no call.
    """

    core: int | None = None
    halo: int | None = None
    block: int | None = None
    exact: bool = False
    skip: bool = True

    @property
    def is_fixed(self) -> bool:
        """Whether every transition has the same tiles."""
        return self.exact or self.core is not None


@dataclass(frozen=True)
class Layout:
    """The tiles of one transition: those it needs, and the rest of the canvas."""

    active: tuple[Tile, ...]
    idle: tuple[Tile, ...]


@dataclass(frozen=True)
class Plan:
    """One layout per transition of ``timesteps``; ``skip`` leaves idle tiles out.

    ``fixed`` says that all layouts have the same tiles. ``pixels`` are those of the canvas. Where
    the run will choose among the transitions by a ``rule``, all numbers are expectations.
    """

    timesteps: Sequence[int]
    lower_bound: float
    layouts: Sequence[Layout]
    skip: bool
    fixed: bool
    pixels: int
    rule: LeapRule | None = None

    def expected(self) -> list[tuple[int, float]]:
        """Every transition, and how often it will be made: once, or the share that is expected."""
        if self.rule is None:
            return [(i, 1.0) for i in range(len(self.layouts))]
        from yoda_cli.diffusion.courses import shares_of  # no other run needs it

        shares = shares_of(tuple(self.timesteps), self.rule)
        return list(zip(range(len(self.layouts)), shares, strict=False))

    @cached_property
    def calls_range(self) -> tuple[int, int]:
        """The fewest and the most windows that will go through the network."""
        if self.rule is None or not self.layouts:
            return self.planned_calls, self.planned_calls
        from yoda_cli.diffusion.courses import bounds_of

        calls = [len(self.tiles(i)) for i in range(len(self.layouts))]
        return bounds_of(tuple(self.timesteps), self.rule, calls)

    def tiles(self, index: int) -> tuple[Tile, ...]:
        """What transition ``index`` runs."""
        layout = self.layouts[index]
        return layout.active if self.skip else layout.active + layout.idle

    @cached_property
    def planned_calls(self) -> int:
        """Windows that will go through the network."""
        return round(sum(share * len(self.tiles(i)) for i, share in self.expected()))

    @cached_property
    def dense_calls(self) -> int:
        """The same if no tile were left out."""
        return sum(len(layout.active) + len(layout.idle) for layout in self.layouts)

    @cached_property
    def network_pixels(self) -> int:
        """Pixels of all windows that will go through the network, halos included."""
        return round(sum(share * self.pixels_of((i,)) for i, share in self.expected()))

    def pixels_of(self, transitions: Iterable[int]) -> int:
        """The same of ``transitions`` alone."""
        if not self.layouts:
            return 0
        return sum(tile.window.pixels for i in transitions for tile in self.tiles(i))

    def seconds(self, costs: Costs) -> float:
        """The forecast for the canvas, but for the first use of each window shape."""
        network = costs.call * self.planned_calls + costs.pixel * self.network_pixels
        steps = sum(costs.step * share for _, share in self.expected())
        steps += costs.once if self.layouts else 0.0
        return network + self.pixels * (costs.encode + steps + costs.around)


def forecast_seconds(plans: Iterable[Plan], costs: Costs) -> float:
    """Of the plans of one picture's blocks, at the present pace; a window shape is new once."""
    met: dict[tuple[int, int], float] = {}  # how often each shape is met, all runs together
    total = 0.0
    for plan in plans:
        total += plan.seconds(costs)
        for i, share in plan.expected():
            for tile in plan.tiles(i):
                shape = (tile.window.height, tile.window.width)
                met[shape] = met.get(shape, 0.0) + share
    return costs.pace * (total + costs.shape * sum(min(often, 1.0) for often in met.values()))


def make_plan(
    attention: Tensor, timesteps: Sequence[int], lower_bound: float, geometry: Geometry,
    overhead: float, largest: float, tiles: TileChoice,
) -> Plan:  # fmt: skip
    """Tiles for ``attention`` (1, 1, H, W) on the canvas along ``timesteps`` = [T, …, 0].

    ``overhead`` is what a call costs before its first pixel, and ``largest`` how many a call may
    have; both in output pixels.
    """
    height, width = attention.shape[-2:]
    if tiles.is_fixed:
        cut = grid_tiles(height, width, geometry, tiles)
        layouts = fixed_layouts(attention, timesteps, lower_bound, cut)
    else:
        canvas = canvas_of(height, width, geometry, overhead, largest, tiles)
        layouts = cheapest_layouts(attention, timesteps, lower_bound, canvas)
    return Plan(timesteps, lower_bound, layouts, tiles.skip, tiles.is_fixed, height * width)


def fixed_layouts(
    attention: Tensor, timesteps: Sequence[int], lower_bound: float, tiles: Sequence[Tile],
    num_steps: int = 0,
) -> list[Layout]:  # fmt: skip
    """The same tiles in every transition; ``num_steps`` is T, the chain's first time if 0."""
    peaks = np.array([float(tile.core.cut(attention).max()) for tile in tiles], np.float32)
    layouts: dict[tuple[bool, ...], Layout] = {}
    result = []
    for _, s in pairwise(timesteps):
        mask = _needed(peaks, lower_bound, s + 1, num_steps or timesteps[0])
        active = tuple(mask.tolist())
        if active not in layouts:
            pairs = list(zip(tiles, active, strict=True))
            layouts[active] = Layout(
                tuple(tile for tile, needed in pairs if needed),
                tuple(tile for tile, needed in pairs if not needed),
            )
        result.append(layouts[active])
    return result


def cheapest_layouts(
    attention: Tensor, timesteps: Sequence[int], lower_bound: float, canvas: Canvas
) -> list[Layout]:
    """For every transition the cheapest partition into active and idle tiles."""
    peaks = _peaks(as_array(attention)[0, 0], canvas.cell)
    times = [s + 1 for _, s in pairwise(timesteps)]
    active = np.stack([_needed(peaks, lower_bound, t, timesteps[0]) for t in times])
    layouts: dict[int, Layout] = {}
    result = []
    for cores in partitions(active, canvas):
        if id(cores) not in layouts:  # equal patterns share one list
            tiles: dict[bool, list[Tile]] = {True: [], False: []}
            for core, needed in cores:
                tiles[needed].append(with_halo(core, canvas.halo, canvas.height, canvas.width))
            layouts[id(cores)] = Layout(tuple(tiles[True]), tuple(tiles[False]))
        result.append(layouts[id(cores)])
    return result


def _peaks(attention: Array, cell: int) -> Array:
    """The largest A in every square cell of (H, W)."""
    rows, columns = (np.arange(0, length, cell) for length in attention.shape)
    return np.maximum.reduceat(np.maximum.reduceat(attention, rows, 0), columns, 1)


def _needed(peaks: Array, lower_bound: float, t: int, num_steps: int) -> Array:
    """M(t) of each peak, in the arithmetic of the loop's own masks."""
    return as_array(time_mask(cast("Tensor", peaks), lower_bound, t, num_steps))


def canvas_of(
    height: int, width: int, geometry: Geometry, overhead: float, largest: float,
    tiles: TileChoice,
) -> Canvas:  # fmt: skip
    """The planner's grid over a canvas, and what windows on it cost."""
    align = geometry.align
    cell = rounded_up(max(MIN_TILE, -(-max(height, width) // CELLS)), align)
    return Canvas(height, width, cell, plan_halo(geometry, tiles), overhead, largest)


def plan_halo(geometry: Geometry, tiles: TileChoice) -> int:
    """Pixels around a core of the planner's tiles."""
    halo = geometry.plan_halo if tiles.halo is None else tiles.halo
    return rounded_up(halo, geometry.align)


def grid_tiles(height: int, width: int, geometry: Geometry, asked: TileChoice) -> list[Tile]:
    """A regular grid of the tile size asked for."""
    core = asked.core
    if core is None:
        core = EXACT_TILE if asked.exact else 0
    halo = geometry.halo if asked.halo is None else asked.halo
    tiles = make_tiles(height, width, core=core, halo=halo, align=geometry.align)
    return of_one_shape(tiles, height, width) if asked.exact else tiles


def window_plan(
    attention: Tensor, timesteps: Sequence[int], lower_bound: float, num_steps: int, size: int,
    stride: int = 0, *, skip: bool,
) -> Plan:  # fmt: skip
    """The overlapping windows of every transition for A (1, 1, h, w); a window is needed where any
    pixel of it is active. ``size`` 0 is one window, ``stride`` 0 half of it."""
    height, width = attention.shape[-2:]
    size = size or max(height, width)
    windows = sliding_windows(height, width, size, stride or max(size // 2, 1))
    tiles = [Tile(window, window) for window in windows]
    layouts = fixed_layouts(attention, timesteps, lower_bound, tiles, num_steps)
    return Plan(timesteps, lower_bound, layouts, skip, True, height * width)
