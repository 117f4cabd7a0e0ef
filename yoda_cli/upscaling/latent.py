"""Models of latents under YODA's masks: restore, encode, masked reverse diffusion, decode.

The unrefined picture is the code of what the family restored, so where A is low that picture stays
for most of the chain. A is max-pooled to the latent grid: a latent is refined as early as the most
detailed of its 64 pixels asks for. Images are (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from yoda_cli.attention import LEARNED
from yoda_cli.attention.sources import find_source
from yoda_cli.devices.out_of_memory import Counter, free_memory
from yoda_cli.diffusion.noise import make_draw
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.errors import DeviceError, InputError, UsageError
from yoda_cli.images.color import COLOR_FIXES
from yoda_cli.images.resize import imresize
from yoda_cli.models.base import Condition
from yoda_cli.models.calibration import costs_of, known_costs
from yoda_cli.models.latent.denoising import FACTOR
from yoda_cli.models.latent.family import Codec, LatentFamily, Steering
from yoda_cli.models.model import Model
from yoda_cli.tiling.budget import Spent, spend
from yoda_cli.tiling.cost import Costs
from yoda_cli.tiling.grids import replicate
from yoda_cli.tiling.plan import Plan, forecast_seconds, window_plan
from yoda_cli.tiling.windows import Tile, Window, rounded_up
from yoda_cli.upscaling.adaptive import RegionRun
from yoda_cli.upscaling.blocks import picture_seed
from yoda_cli.upscaling.denoisers import RefiningDenoiser, WindowedDenoiser
from yoda_cli.upscaling.latent_clock import Clock
from yoda_cli.upscaling.latent_regions import sample_windows
from yoda_cli.upscaling.picture_plan import PicturePlan, with_rule
from yoda_cli.upscaling.result import Observer, PassBegin, PassEnd
from yoda_cli.upscaling.settings import LatentSettings, Settings

ALIGN = 64  # pixels: 8 to a latent, 8 latents to the U-Net's coarsest
LARGEST = 256 << 20  # pixels that are worked on: as many as a picture that is read may have


@dataclass(frozen=True)
class LatentPipeline:
    """One pass gives any scale; the picture is one block of overlapping windows."""

    model: Model
    family: LatentFamily
    can_stream: bool = False
    can_cut: bool = False
    one_pass: bool = True

    def plan(self, lr: Tensor, settings: Settings, attention: Tensor | None = None) -> PicturePlan:
        """Stage one, and the plan that A makes of its picture.

        ``attention`` (1, 1, h, w) on the LR grid takes the place of the source's.
        """
        restored = self.restore(lr, settings)
        tall, wide = (rounded_up(n, ALIGN) for n in restored.shape[-2:])
        attention, seen = self.maps_of(lr, restored, settings, attention)
        latents = F.max_pool2d(replicate(seen, tall, wide), FACTOR)
        latents, plan, spent = self.windows_of(latents, settings)
        window = Window(0, 0, tall // FACTOR, wide // FACTOR)
        size = (-(-restored.shape[-2] // FACTOR), -(-restored.shape[-1] // FACTOR))
        costs = known_costs(self.model, variant_of(latent_of(settings).steering))
        return PicturePlan(
            lr, attention.clamp(0, 1), [Tile(window, window)], [plan], size,
            None if costs is None else forecast_seconds([plan], costs),
            spent, grid_attention=latents, restored=restored,
        )  # fmt: skip

    def restore(self, lr: Tensor, settings: Settings) -> Tensor:
        """The family's picture at the size that is worked on, not clipped."""
        height, width = (max(1, round(n * settings.scale)) for n in lr.shape[-2:])
        shortest = self.family.settings.shortest
        larger = max(1.0, shortest / min(height, width))
        height, width = round(height * larger), round(width * larger)
        if height * width > LARGEST:
            raise InputError(
                f"{self.model.name} would work on {width}×{height} pixels, because it needs "
                f"{shortest} on the short side; at most {LARGEST:,} are possible"
            )
        return self.family.restore(lr, height, width)

    def maps_of(
        self, lr: Tensor, restored: Tensor, settings: Settings, attention: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """A on the grids of the LR picture and of the restored one, both from one of them."""
        if settings.mask.source == LEARNED:
            raise UsageError(
                f"model {self.model.name} has no learned attention; use another source"
            )
        device = self.model.device
        source = find_source(settings.mask.source, settings.mask.heads or None, device)
        if attention is None and latent_of(settings).attention_from != "lr":
            seen = source.attend(restored.clamp(0, 1)).float().cpu()
            return F.interpolate(seen, lr.shape[-2:], mode="bilinear", antialias=True), seen
        attention = source.attend(lr).float().cpu() if attention is None else attention
        grown = F.interpolate(attention, restored.shape[-2:], mode="bilinear")
        return attention, grown.clamp_(0, 1)

    def windows_of(self, latents: Tensor, settings: Settings) -> tuple[Tensor, Plan, Spent | None]:
        """A as it will be used, the windows of every step, and what a budget made of A."""
        mask, total = settings.mask, self.model.backbone.schedule.num_steps
        timesteps = settings.sampling.timesteps if settings.refines else (total,)
        size = self.window_size(latents, settings)

        def plan(candidate: Tensor, bound: float) -> Plan:
            found = window_plan(candidate, timesteps, bound, total, size, skip=settings.tiles.skip)
            return with_rule(found, settings)

        if not mask.budget or not settings.refines:
            return latents, plan(latents, mask.lower_bound), None
        spent = spend(
            latents, mask.budget, mask.lower_bound, 1 / total,
            lambda candidate, bound: float(plan(candidate, bound).planned_calls),
        )  # fmt: skip
        return spent.attention, plan(spent.attention, spent.lower_bound), spent

    def window_size(self, latents: Tensor, settings: Settings) -> int:
        """Latents a side of a window, 0 for one window, from the tile asked for in pixels."""
        own = self.family.settings
        if settings.tiles.core is not None:
            return rounded_up(settings.tiles.core // FACTOR, ALIGN // FACTOR)
        return 0 if max(latents.shape[-2:]) <= own.whole else own.window

    def run(
        self, lr: Tensor, settings: Settings, observer: Observer,
        attention: Tensor | None = None, noise_of: Tensor | None = None,
    ) -> PassEnd:  # fmt: skip
        """The picture at the size asked for, and how it was made."""
        counter, steering = Counter(observer.on_call), latent_of(settings).steering
        clock = Clock(self.model, variant_of(steering), self.refinements(settings))
        self.family.check_memory()
        plan = self.plan(lr, settings, attention)
        restored = required(plan.restored)
        tall, wide = (side * FACTOR for side in plan.on_grid.shape[-2:])
        size = self.window_size(plan.on_grid, settings)
        with clock.timing("coding"), self.family.codec(size, steering) as codec:
            z_lr = codec.encode(replicate(restored, tall, wide) * 2 - 1)
        z_0, forecast = z_lr, 0.0
        regions: tuple[RegionRun, ...] = ()
        if settings.refines:
            seed = picture_seed(settings.sampling.seed, lr if noise_of is None else noise_of)
            z_0, forecast, regions = self.diffuse(
                z_lr, plan, settings, observer, seed, counter, clock
            )
        with self.family.codec(size, steering) as codec:
            image = self.decode(codec, z_0, restored)
        if not bool(image.isfinite().all()):
            name, precision = self.model.name, self.model.precision
            raise DeviceError(f"{name} overflowed in {precision}; use --precision fp32")
        image = COLOR_FIXES[self.family.settings.color](image, restored)
        target = tuple(max(1, round(n * settings.scale)) for n in lr.shape[-2:])
        if tuple(image.shape[-2:]) != target:
            image = imresize(image, (target[0], target[1]))
        free_memory()
        seconds, recovered = clock.elapsed, counter.recovered()
        if settings.refines and not observer.whole and settings.sampling.adaptive is None:
            clock.learn(plan.first, costs_of(self.model, variant=clock.variant))
        return PassEnd(
            image.clamp(0, 1), plan, counter.calls, forecast, seconds, recovered, regions
        )  # fmt: skip

    def diffuse(
        self, z_lr: Tensor, plan: PicturePlan, settings: Settings, observer: Observer, seed: int,
        counter: Counter, clock: Clock,
    ) -> tuple[Tensor, float, tuple[RegionRun, ...]]:  # fmt: skip
        """Masked reverse diffusion of the latents, on the CPU again, the forecast for it, and how
        regions that decided on their way were made."""
        model, sampler = self.model, settings.sampling.sampler
        restored, steering = required(plan.restored), latent_of(settings).steering
        with ExitStack() as kept:
            lr_code = z_lr.to(model.device)
            condition = self.family.condition(lr_code, restored, plan.lr, steering)
            net = kept.enter_context(self.family.denoiser())
            with clock.timing("measuring"):
                costs = self.costs(condition, steering)
            forecast = clock.forecast(plan.first, costs)
            observer.planned(plan, forecast)
            size = self.window_size(plan.on_grid, settings)
            if settings.sampling.adaptive is not None:
                z_0, runs = sample_windows(
                    plan, condition, model, settings, seed, counter, self.family.settings.start,
                    partial(self.see_window, restored=restored, steering=steering),
                )  # fmt: skip
                return z_0.cpu(), forecast, tuple(runs)
            if observer.whole:
                codec = kept.enter_context(self.family.codec(size, steering))
                see = partial(self.decode, codec, restored=restored)
                observer.on_pass(PassBegin(plan, condition.z_lr, see))
            first, total = plan.first, net.schedule.num_steps
            refine = clock.timed(
                "refining", partial(self.family.refine, restored=restored, tile=size)
            )
            windowed = WindowedDenoiser(model, condition, first, settings.group, counter)
            with clock.timing("diffusion"):
                z_0 = masked_sample(
                    RefiningDenoiser(windowed, refine),
                    sampler.step,
                    net.schedule,
                    first.timesteps,
                    AttentionMask(plan.on_grid.to(model.device), first.lower_bound, total),
                    condition.z_lr,
                    make_draw(condition.z_lr, seed, sampler),
                    start=self.family.settings.start,
                    faithful=settings.mask.faithful,
                    on_step=observer.on_step if observer.whole else None,
                ).cpu()
        return z_0, forecast, ()

    def see_window(self, window: Window, z: Tensor, restored: Tensor, steering: Steering) -> Tensor:
        """The latents of a window as a picture."""
        tall, wide = window.bottom * FACTOR, window.right * FACTOR
        seen = window.multiplied(FACTOR).cut(replicate(restored, tall, wide))
        with self.family.codec(0, steering) as codec:
            return self.decode(codec, z, seen)

    def costs(self, condition: Condition, steering: Steering) -> Costs:
        """What a call takes. The networks are loaded."""

        def condition_of(latent: Tensor) -> Condition:
            return replace(self.model.backbone.encode(latent), guidance=condition.guidance)

        return costs_of(self.model, condition_of, variant_of(steering))

    def refinements(self, settings: Settings) -> int:
        """Times that a picture is decoded between two steps."""
        steps = len(settings.sampling.timesteps) - 1
        return max(steps - 1, 0) if self.family.settings.refinement > 0 else 0

    def decode(self, codec: Codec, z: Tensor, restored: Tensor) -> Tensor:
        """A state as a picture of the size that is worked on, not clipped."""
        tall, wide = (side * FACTOR for side in z.shape[-2:])
        seen = replicate(restored, tall, wide) * 2 - 1
        image = (codec.decode(z.cpu(), seen) + 1) / 2
        return image[..., : restored.shape[-2], : restored.shape[-1]]


def variant_of(steering: Steering) -> str:
    """What a call costs by: with two prompts the networks run twice a step."""
    return "one prompt" if steering.cfg == 1 else "two prompts"


def latent_of(settings: Settings) -> LatentSettings:
    """The part of the settings that only models of latents have."""
    if settings.latent is None:
        raise ValueError("these settings were resolved for a model of pixels")
    return settings.latent


def required(restored: Tensor | None) -> Tensor:
    """The restored picture, which every plan of this pipeline has."""
    if restored is None:
        raise ValueError("a plan of latents has a restored picture")
    return restored
