"""Small pictures of one size, made in step: windows of one shape go through the network together.

What a call costs beside its pixels is shared by all. A batch rounds otherwise than a single picture
does (66 dB away and more), so ``--exact`` has none. Each picture keeps its own map, plan and noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from yoda_cli.arrays import as_float32, for_inference, joined, like, on_cpu, zeros
from yoda_cli.attention import LEARNED
from yoda_cli.devices.device import upload
from yoda_cli.devices.out_of_memory import Counter, run_with_less_memory
from yoda_cli.diffusion.noise import make_draw
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.images.fidelity import draw_towards_base
from yoda_cli.images.resize import as_floats
from yoda_cli.models.base import Condition
from yoda_cli.models.calibration import learn
from yoda_cli.models.model import Model
from yoda_cli.tiling.grids import grid_window, replicate
from yoda_cli.tiling.plan import plan_halo
from yoda_cli.tiling.windows import Tile
from yoda_cli.upscaling.blocks import picture_seed
from yoda_cli.upscaling.conditioning import padded_size
from yoda_cli.upscaling.denoisers import halves_of, run_network, tile_refusal
from yoda_cli.upscaling.memory_limits import make_blocks, overlap_of
from yoda_cli.upscaling.picture_plan import PicturePlan, plan_blocks
from yoda_cli.upscaling.result import Observer, PassEnd, Result, result_of
from yoda_cli.upscaling.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

TOGETHER_PIXELS = 1 << 21  # output pixels of all pictures of a batch
MOST = 16  # pictures; more share nothing that matters


def how_many(width: int, height: int, model: Model) -> int:
    """How many pictures (width, height) may go together; 1 where they had better go alone, as
    where ncnn runs the network, which takes one at a time."""
    if model.is_plain:
        return 1
    output = width * height * model.scale**2
    return max(1, min(MOST, TOGETHER_PIXELS // max(output, 1)))


def common_settings(model: Model, settings: Settings) -> Settings | None:
    """What pictures that go together must have in common; None for one that must go alone.

    Two may differ in their damage and in what follows from it.
    """
    mask, tiles = settings.mask, settings.tiles
    usual = (
        model.family is None
        and settings.refines
        and settings.scale == model.scale
        and mask.source == LEARNED
        and not (mask.heads or mask.budget or mask.faithful)
        and not (tiles.exact or tiles.block or settings.faces)
    )
    if not usual:
        return None
    alike = replace(settings.sampling, fidelity=0.0, strength=0.0, fidelity_when_clean=0.0)
    return replace(settings, sampling=alike)


@dataclass(frozen=True)
class TogetherDenoiser:
    """ẑ_0 (B, C, H, W) of B canvases from the tiles of their plans; elsewhere 0 and never read."""

    model: Model
    conditions: Sequence[Condition]
    plans: Sequence[PicturePlan]
    halo: int
    counter: Counter
    observers: Sequence[Observer]
    calls: list[int] = field(default_factory=list)

    def __call__(self, z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        out = zeros(z_t, *z_t.shape)

        def work(group: Sequence[tuple[int, Tile]]) -> None:
            z_0 = run_network(
                self.model, [self.conditions[i] for i, _ in group],
                [tile.window for _, tile in group], [z_t[i : i + 1] for i, _ in group], t,
                [mask[i : i + 1] for i, _ in group],
            )  # fmt: skip
            for (i, tile), result in zip(group, z_0, strict=True):
                tile.paste(out[i : i + 1], result)
                self.calls[i] += 1
                self.observers[i].on_call()
            self.counter.count(len(group))

        def smaller(one: tuple[int, Tile]) -> Sequence[tuple[int, Tile]]:
            index, tile = one
            parts = halves_of(tile, self.model, self.halo, z_t.shape[-2:])
            return [(index, part) for part in parts]

        def refusal(one: tuple[int, Tile]) -> str:
            return tile_refusal(one[1], self.model)

        for group in self.groups(t):
            run_with_less_memory(group, work, smaller, self.counter, refusal)
        return out

    def groups(self, t: int) -> Iterator[list[tuple[int, Tile]]]:
        """The tiles that a step runs in all pictures, those of one shape together."""
        shapes: dict[tuple[int, int], list[tuple[int, Tile]]] = {}
        for index, plan in enumerate(self.plans):
            for tile in plan.first.tiles(plan.first.timesteps.index(t)):
                shape = (tile.window.height, tile.window.width)
                shapes.setdefault(shape, []).append((index, tile))
        yield from shapes.values()


@for_inference
def upscale_together(
    lrs: Sequence[Tensor], model: Model, settings: Sequence[Settings],
    observers: Sequence[Observer],
) -> list[Result]:  # fmt: skip
    """Enlarge pictures (1, 3, h, w) of one size, whose settings agree in ``common_settings``.

    Each has an observer of its own. MemoryError or RuntimeError where memory runs out beside the
    network's calls.
    """
    began, counter = time.perf_counter(), Counter()
    conditions, attention = encode_together(lrs, model, settings)
    plans = [
        plan_alone(lr, attention[i : i + 1], model, own)
        for i, (lr, own) in enumerate(zip(lrs, settings, strict=True))
    ]
    forecasts = [plan.forecast_seconds or 0.0 for plan in plans]
    for observer, plan, forecast in zip(observers, plans, forecasts, strict=True):
        observer.on_plan(plan.planned_calls, forecast)
    z_lr = joined([condition.z_lr for condition in conditions])
    first, common = plans[0].first, settings[0]
    denoise = TogetherDenoiser(
        model, conditions, plans, plan_halo(model.backbone.geometry, common.tiles), counter,
        observers, [0] * len(plans),
    )  # fmt: skip
    scale, window = model.backbone.geometry.scale, plans[0].blocks[0].window
    on_grid = upload(
        joined([grid_window(plan.attention, window, scale) for plan in plans]), model.device
    )
    num_steps = model.backbone.schedule.num_steps
    z_0 = masked_sample(
        denoise, common.sampling.sampler.step, model.backbone.schedule, first.timesteps,
        AttentionMask(on_grid, first.lower_bound, num_steps), z_lr,
        draw_together(lrs, z_lr, common),
    )  # fmt: skip
    images = [
        finished(z_0[i : i + 1], conditions[i], plan, model, own.sampling.fidelity)
        for i, (plan, own) in enumerate(zip(plans, settings, strict=True))
    ]
    seconds = time.perf_counter() - began
    if not (first.fixed or counter.recovered()):
        learn(model, sum(forecasts), seconds)
    each, recovered = seconds / len(plans), counter.recovered()
    ends = (
        PassEnd(image, plan, calls, forecast, each, recovered)
        for image, plan, calls, forecast in zip(
            images, plans, denoise.calls, forecasts, strict=True
        )
    )
    return [result_of([end], end.image, each) for end in ends]


def encode_together(
    lrs: Sequence[Tensor], model: Model, settings: Sequence[Settings]
) -> tuple[list[Condition], Tensor]:
    """The condition of every picture, and their maps (B, 1, h, w), not padded, on the CPU."""
    height, width = padded_size(lrs[0], model)
    padded = joined([replicate(as_floats(lr), height, width) for lr in lrs])
    padded = upload(padded, model.device)
    strengths = np.array([own.sampling.strength for own in settings], np.float32)
    strength = like(padded, strengths)
    with model.context():
        made = model.backbone.encode(padded, strength)
    assert made.attention is not None  # the source that all of them have
    conditions = [
        Condition(
            made.z_lr[i : i + 1],
            {name: value[i : i + 1] for name, value in made.maps.items()},
            made.attention[i : i + 1],
        )
        for i in range(len(lrs))
    ]
    attention = made.attention[..., : lrs[0].shape[-2], : lrs[0].shape[-1]]
    return conditions, on_cpu(as_float32(attention))


def plan_alone(lr: Tensor, attention: Tensor, model: Model, settings: Settings) -> PicturePlan:
    """The plan that one picture would have by itself."""
    geometry = model.backbone.geometry
    height, width = (n * geometry.scale for n in padded_size(lr, model))
    blocks = make_blocks(height, width, geometry.align, 0, overlap_of(model))
    return plan_blocks(lr, attention, blocks, model, settings)


def draw_together(
    lrs: Sequence[Tensor], z_lr: Tensor, settings: Settings
) -> Callable[[int], Tensor]:
    """The noise that each of the pictures has alone, one after another."""
    sampling = settings.sampling
    draws = [
        make_draw(z_lr[:1], picture_seed(sampling.seed, lr), sampling.sampler, upload=upload)
        for lr in lrs
    ]
    if sampling.sampler.is_stochastic:
        return lambda step: joined([draw(step) for draw in draws])
    once = joined([draw(0) for draw in draws])
    return lambda step: once


def finished(
    z_0: Tensor, condition: Condition, plan: PicturePlan, model: Model, fidelity: float
) -> Tensor:
    """The picture (1, 3, H, W) in [0, 1] of a trajectory's end, on the CPU."""
    net = model.backbone
    image = as_float32(net.decode(z_0, condition))
    if fidelity > 0:
        base = as_float32(net.decode(condition.z_lr, condition))
        image = draw_towards_base(image, base, fidelity)
    return plan.cut(on_cpu(image.clip(0, 1)))
