"""Where one picture's run will work and what it will cost, before its first network call.

Maps on the LR grid are (1, 1, h, w) in [0, 1]; blocks and sizes are output pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from yoda_cli.arrays import as_float32, where
from yoda_cli.devices.memory import release_pages
from yoda_cli.diffusion.yoda import time_mask
from yoda_cli.models.calibration import costs_of
from yoda_cli.models.model import Model
from yoda_cli.tiling.budget import Spent, spend
from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.grids import grid_window, to_grid
from yoda_cli.tiling.plan import Plan, forecast_seconds, make_plan
from yoda_cli.tiling.windows import Tile
from yoda_cli.upscaling.memory_limits import LEAN_PIXELS, largest_window
from yoda_cli.upscaling.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

RESTORING = 9.0  # times the encoder's seconds: 8.9 by ncnn, 8.2 by torch in bf16, 64 LR pixels


@dataclass(frozen=True)
class PicturePlan:
    """Where a run will work, before its first network call.

    ``attention`` (1, 1, h, w) is on the grid of ``lr``, which may be bytes; ``size`` is the
    picture's (H, W) on that of the diffusion. There is one plan for each of ``blocks``. A latent
    model has ``grid_attention`` (1, 1, H, W), A on its padded latents, and ``restored``, the
    picture that they code, not clipped. ``forecast_seconds`` is None where this machine has not
    yet run the network.
    """

    lr: Tensor
    attention: Tensor
    blocks: Sequence[Tile]
    plans: Sequence[Plan]
    size: tuple[int, int]
    forecast_seconds: float | None
    spent: Spent | None = None
    grid_attention: Tensor | None = None
    restored: Tensor | None = None

    @property
    def first(self) -> Plan:
        """The first block's plan; the only one where the picture is not cut."""
        return self.plans[0]

    @cached_property
    def planned_calls(self) -> int:
        return sum(plan.planned_calls for plan in self.plans)

    @property
    def calls_range(self) -> tuple[int, int]:
        """The fewest and the most calls; both are the planned ones where nothing is left open."""
        ranges = [plan.calls_range for plan in self.plans]
        return sum(least for least, _ in ranges), sum(most for _, most in ranges)

    @cached_property
    def dense_calls(self) -> int:
        return sum(plan.dense_calls for plan in self.plans)

    @cached_property
    def on_grid(self) -> Tensor:
        """A on the diffusion grid (1, 1, H, W), which may be padded to the right and below."""
        if self.grid_attention is not None:
            return self.grid_attention
        canvas, scale = self.blocks[-1].core, self.size[0] // self.lr.shape[-2]
        return to_grid(self.attention, canvas.bottom // scale, canvas.right // scale, scale)

    def cut(self, x: Tensor) -> Tensor:
        """The part of a canvas that is picture, not padding."""
        return x[..., : self.size[0], : self.size[1]]

    def mask(self, t: int) -> Tensor:
        """M(t) on the picture, (1, 1, H, W)."""
        first = self.first
        return self.cut(time_mask(self.on_grid, first.lower_bound, t, first.timesteps[0]))


def plan_blocks(
    lr: Tensor, attention: Tensor, blocks: Sequence[Tile], model: Model, settings: Settings,
    wanted: Tensor | None = None, *, encoded_again: bool = False,
) -> PicturePlan:  # fmt: skip
    """The plan that ``attention`` (1, 1, h, w) makes of ``blocks`` of the canvas over ``lr``.

    A large picture is ``encoded_again`` when its blocks are run: the forecast counts that.
    """
    lower_bound, spent = settings.mask.lower_bound, None
    if settings.mask.budget and settings.refines:
        spent = spend_budget(attention, blocks, model, settings)
        attention, lower_bound = spent.attention, spent.lower_bound
    plans = plans_of(attention, blocks, model, settings, lower_bound, wanted)
    scale = model.backbone.geometry.scale
    size = (lr.shape[-2] * scale, lr.shape[-1] * scale)
    costs = costs_for(model, settings)
    seconds = forecast_seconds(plans, costs)
    if encoded_again:
        seconds += costs.pace * costs.encode * size[0] * size[1]
    return PicturePlan(lr, attention, blocks, plans, size, seconds, spent)


def costs_for(model: Model, settings: Settings) -> Costs:
    """What ``model`` costs with a picture's settings: a damaged one may have to be restored."""
    costs = costs_of(model)
    if settings.sampling.strength <= model.backbone.restores_from:
        return costs
    return replace(costs, encode=costs.encode * (1 + RESTORING))


def plans_of(
    attention: Tensor, blocks: Sequence[Tile], model: Model, settings: Settings, lower_bound: float,
    wanted: Tensor | None = None,
) -> list[Plan]:  # fmt: skip
    """A plan for every block of a canvas, from A on the LR grid.

    Where nothing is ``wanted`` A counts as -1, at which no tile is ever active.
    """
    geometry, canvas = model.backbone.geometry, blocks[-1].core
    lean = canvas.bottom * canvas.right > LEAN_PIXELS
    timesteps, tiles = settings.sampling.timesteps, settings.tiles
    overhead = costs_of(model).overhead_pixels
    plans = []
    for block in blocks:
        if not settings.refines:
            pixels = block.window.pixels
            plans.append(Plan(timesteps, lower_bound, (), tiles.skip, tiles.is_fixed, pixels))
            continue
        seen = grid_window(attention, block.window, geometry.scale)
        if wanted is not None:
            read = grid_window(as_float32(wanted), block.window, geometry.scale) > 0
            seen = where(read.to(seen.device), seen, -1.0)
        largest = largest_window(model, block.window.pixels, lean=lean)
        plans.append(make_plan(seen, timesteps, lower_bound, geometry, overhead, largest, tiles))
        release_pages()
    return [with_rule(plan, settings) for plan in plans]


def with_rule(plan: Plan, settings: Settings) -> Plan:
    """``plan``, and the rule by which its region decides in a run that decides on its way."""
    adaptive = settings.sampling.adaptive
    if adaptive is None or not settings.refines:
        return plan
    return replace(plan, rule=adaptive.rule)


def spend_budget(
    attention: Tensor, blocks: Sequence[Tile], model: Model, settings: Settings
) -> Spent:
    """The map whose forecast is the budget times the dense run's."""
    costs, mask = costs_for(model, settings), settings.mask

    def seconds_of(candidate: Tensor, lower_bound: float) -> float:
        return forecast_seconds(plans_of(candidate, blocks, model, settings, lower_bound), costs)

    least = 1 / model.backbone.schedule.num_steps
    return spend(attention, mask.budget, mask.lower_bound, least, seconds_of)
