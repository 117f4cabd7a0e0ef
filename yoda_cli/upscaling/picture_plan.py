"""Where a run will work and what it will cost, before its first network call.

Maps on the LR grid are (1, 1, h, w) in [0, 1]; blocks and sizes are output pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.memory import let_go
from yoda_cli.diffusion.yoda import time_mask
from yoda_cli.images.resize import as_floats
from yoda_cli.models import Condition
from yoda_cli.models.calibration import costs_of
from yoda_cli.models.model import Model
from yoda_cli.tiling.budget import Spent, spend
from yoda_cli.tiling.grids import grid_window, to_grid
from yoda_cli.tiling.plan import Plan, chain_of, forecast_seconds, make_plan
from yoda_cli.tiling.windows import Tile
from yoda_cli.upscaling.conditioning import attention_map, strided
from yoda_cli.upscaling.memory_limits import LEAN_PIXELS, make_blocks


@dataclass(frozen=True)
class Survey:
    """Where a run will work, before its first network call.

    ``attention`` (1, 1, h, w) is on the grid of ``lr``, which may be bytes; ``size`` is the
    picture's (H, W) on that of the diffusion. There is one plan for each of ``blocks``. A large
    picture is ``encoded_again`` when its blocks are run.
    """

    lr: Tensor
    attention: Tensor
    blocks: Sequence[Tile]
    plans: Sequence[Plan]
    size: tuple[int, int]
    spent: Spent | None = None
    encoded_again: bool = False

    @property
    def scale(self) -> int:
        """The factor between the grids."""
        return self.size[0] // self.lr.shape[-2]

    @property
    def plan(self) -> Plan:
        """The first block's; the only one's where the picture is not cut."""
        return self.plans[0]

    @cached_property
    def planned_calls(self) -> int:
        return sum(plan.planned_calls for plan in self.plans)

    @cached_property
    def dense_calls(self) -> int:
        return sum(plan.dense_calls for plan in self.plans)

    @cached_property
    def on_grid(self) -> Tensor:
        """A on the diffusion grid (1, 1, H, W), which may be padded to the right and below."""
        canvas = self.blocks[-1].core
        height, width = canvas.bottom // self.scale, canvas.right // self.scale
        return to_grid(self.attention, height, width, self.scale)

    def forecast(self, model: Model) -> float:
        """Seconds that the pass will take on this machine."""
        costs = costs_of(model)
        again = costs.encode * self.size[0] * self.size[1] if self.encoded_again else 0.0
        return forecast_seconds(self.plans, costs) + costs.pace * again

    def cut(self, x: Tensor) -> Tensor:
        """The part of a canvas that is picture, not padding."""
        return x[..., : self.size[0], : self.size[1]]

    def mask(self, t: int) -> Tensor:
        """M(t) on the picture, (1, 1, H, W)."""
        return self.cut(time_mask(self.on_grid, self.plan.lower_bound, t, self.plan.timesteps[0]))


def survey(
    lr: Tensor,
    model: Model,
    options: UpscaleOptions,
    condition: Condition | None = None,
    attention: Tensor | None = None,
    *,
    whole: bool = False,
) -> Survey:
    """``attention`` or the source's map of ``lr``, and the plan; ``learned`` is taken from
    ``condition``, that of the whole picture, where it is at hand."""
    net = model.backbone
    if attention is None:
        attention = attention_map(as_floats(lr), condition, model, options)
    height, width = (n * net.scale for n in strided(lr, model))
    blocks = make_blocks(height, width, model, replace(options, block=0) if whole else options)
    size = (lr.shape[-2] * net.scale, lr.shape[-1] * net.scale)
    spent = None
    if options.budget is not None and model.fidelity(options) < 1:
        spent = spend_budget(attention, blocks, model, options, options.budget)
        attention = spent.attention
        options = replace(options, lower_bound=spent.lower_bound)
    plans = plans_of(attention, blocks, model, options)
    return Survey(lr, attention, blocks, plans, size, spent)


def plans_of(
    attention: Tensor, blocks: Sequence[Tile], model: Model, options: UpscaleOptions
) -> list[Plan]:
    """A plan for every block of a canvas, from A on the LR grid."""
    scale, canvas = model.backbone.scale, blocks[-1].core
    lean = canvas.bottom * canvas.right > LEAN_PIXELS
    plans = []
    for block in blocks:
        seen = grid_window(attention, block.window, scale)
        plans.append(make_plan(seen, model, options, lean=lean))
        let_go()
    return plans


def spend_budget(
    attention: Tensor, blocks: Sequence[Tile], model: Model, options: UpscaleOptions, budget: float
) -> Spent:
    """The map whose forecast is ``budget`` times the dense run's."""
    costs = costs_of(model)

    def seconds_of(candidate: Tensor, lower: float) -> float:
        asked = replace(options, lower_bound=lower)
        return forecast_seconds(plans_of(candidate, blocks, model, asked), costs)

    lower = chain_of(model, options)[1]
    return spend(attention, budget, lower, 1 / model.backbone.schedule.num_steps, seconds_of)
