"""AdaDiffSR on latents: every window of a picture is a region, blended once at the end.

The weights are the Gaussian ones by which windows are blended elsewhere at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from yoda_cli.devices.out_of_memory import Counter
from yoda_cli.diffusion.yoda import Start
from yoda_cli.models.base import Condition, crop_condition
from yoda_cli.models.model import Model
from yoda_cli.tiling.overlap import gaussian_weights
from yoda_cli.tiling.plan import Layout, Plan
from yoda_cli.tiling.windows import Tile, Window
from yoda_cli.upscaling.adaptive import Region, RegionRun, measured, sample_regions
from yoda_cli.upscaling.denoisers import TiledDenoiser
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.settings import Settings

See = Callable[[Window, Tensor], Tensor]  # a window and its latents → its picture


def sample_windows(
    plan: PicturePlan, condition: Condition, model: Model, settings: Settings, seed: int,
    counter: Counter, start: Start, see: See,
) -> tuple[Tensor, list[RegionRun]]:  # fmt: skip
    """z_0 (1, C, H, W) of the whole picture, and how each of its windows was made."""
    adaptive, first = settings.sampling.adaptive, plan.first
    assert adaptive is not None
    layout = first.layouts[-1]  # the last step's: every window there is
    regions = []
    for tile in sorted((*layout.active, *layout.idle), key=place):
        window = tile.window
        own = plan_of_window(first, tile)
        denoiser = TiledDenoiser(
            model, crop_condition(condition, window), own, 0, settings.group, counter
        )
        region = Region(
            window, plan.size, window.cut(plan.on_grid), own, denoiser, partial(see, window)
        )  # fmt: skip
        regions.append(region)
    made = sample_regions(
        regions, settings.sampling, adaptive.rule, model.judge_of or measured, seed, start
    )
    return blend_windows(made, condition.z_lr), [run for _, run in made]


def place(tile: Tile) -> tuple[int, int]:
    """Row order."""
    return tile.window.top, tile.window.left


def plan_of_window(plan: Plan, tile: Tile) -> Plan:
    """The part of a picture's plan that one of its windows has, in the window's coordinates."""
    window = Window(0, 0, tile.window.height, tile.window.width)
    whole = (Tile(window, window),)
    layouts = [
        Layout(whole, ()) if tile in layout.active else Layout((), whole) for layout in plan.layouts
    ]
    return Plan(
        plan.timesteps, plan.lower_bound, layouts, plan.skip, True, window.pixels, plan.rule
    )


def blend_windows(made: list[tuple[Tensor, RegionRun]], like: Tensor) -> Tensor:
    """Windows on one canvas, weighed by Gaussians."""
    total, weights = torch.zeros_like(like), torch.zeros_like(like[:, :1])
    for z_0, run in made:
        window = run.window
        weight = gaussian_weights(window.height, window.width).to(z_0)
        window.cut(total).add_(z_0 * weight)
        window.cut(weights).add_(weight)
    return total / weights
