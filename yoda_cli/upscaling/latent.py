"""DiffBIR under YODA's masks: restore, encode, masked reverse diffusion on latents, decode.

The unrefined picture is the code of what stage one restored, so where A is low that picture stays
for most of the chain. A is max-pooled to the latent grid: a latent is refined as early as the most
detailed of its 64 pixels asks for. Images are (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.attention import LEARNED
from yoda_cli.attention.sources import find_source
from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.out_of_memory import Counter, free_memory
from yoda_cli.diffusion.noise import make_draw
from yoda_cli.diffusion.samplers import MULTISTEP_SAMPLERS, SAMPLERS
from yoda_cli.diffusion.timesteps import chain_timesteps
from yoda_cli.diffusion.yoda import masked_sample, time_mask
from yoda_cli.errors import DeviceError, InputError, UsageError
from yoda_cli.images.color import COLOUR_FIXES
from yoda_cli.images.resize import imresize
from yoda_cli.models.calibration import costs_of
from yoda_cli.models.latent.autoencoder import Autoencoder
from yoda_cli.models.latent.components import Parts
from yoda_cli.models.latent.diffbir import FACTOR
from yoda_cli.models.model import Model
from yoda_cli.tiling.budget import Spent, spend
from yoda_cli.tiling.grids import replicate
from yoda_cli.tiling.plan import WINDOW, Plan, forecast_seconds, window_plan
from yoda_cli.tiling.windows import Tile, Window, rounded_up
from yoda_cli.upscaling.blocks import picture_seed
from yoda_cli.upscaling.denoisers import WindowedDenoiser
from yoda_cli.upscaling.picture_plan import Survey
from yoda_cli.upscaling.result import Observer, Pass, Passed
from yoda_cli.upscaling.settings import sampler_name

ALIGN = 64  # pixels: 8 to a latent, 8 latents to the U-Net's coarsest
WHOLE = 96  # latents a side up to which one window sees all
LARGEST = 256 << 20  # pixels that are worked on
WINDOWS_TOGETHER = 4  # on a GPU


@dataclass(frozen=True)
class LatentSurvey(Survey):
    """A survey whose diffusion grid is that of latents; ``attention`` stays on the LR grid.

    ``latents`` is A (1, 1, h, w) on the padded latent grid, ``size`` the part of it that is
    picture; ``restored`` is stage one's picture, not clipped.
    """

    latents: Tensor | None = None
    restored: Tensor | None = None
    options: UpscaleOptions = field(default_factory=UpscaleOptions)

    @property
    def scale(self) -> int:
        return 1

    @property
    def on_grid(self) -> Tensor:
        assert self.latents is not None
        return self.latents

    def forecast(self, model: Model) -> float:
        """Seconds of the diffusion; the other stages are not in it."""
        if not self.planned_calls:
            return 0.0
        steer(model, self.options)
        _parts(model).load()
        return forecast_seconds([self.plan], costs_of(model))


def photo_survey(
    lr: Tensor, model: Model, options: UpscaleOptions, attention: Tensor | None = None
) -> LatentSurvey:
    """Stage one, and the plan that A makes of its picture.

    ``attention`` (1, 1, h, w) on the LR grid takes the place of the source's.
    """
    restored = restore(lr, model, options)
    tall, wide = (rounded_up(n, ALIGN) for n in restored.shape[-2:])
    attention, seen = maps_of(lr, restored, model, options, attention)
    latents = F.max_pool2d(replicate(seen, tall, wide), FACTOR)
    latents, plan, spent = planned(latents, model, options)
    window = Window(0, 0, tall // FACTOR, wide // FACTOR)
    size = (-(-restored.shape[-2] // FACTOR), -(-restored.shape[-1] // FACTOR))
    return LatentSurvey(
        lr,
        attention.clamp(0, 1),
        [Tile(window, window)],
        [plan],
        size,
        spent,
        latents=latents,
        restored=restored,
        options=options,
    )


def steer(model: Model, options: UpscaleOptions) -> None:
    """Set the networks' prompts and scales; the text tower is read for new prompts."""
    parts = _parts(model)
    guidance = parts.guidance(
        options.prompt, options.negative_prompt, options.cfg,
        1.0 if options.strength is None else options.strength, model.fidelity(options),
    )  # fmt: skip
    parts.net.steer(guidance)


def maps_of(
    lr: Tensor, restored: Tensor, model: Model, options: UpscaleOptions, attention: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A on the grids of the LR picture and of the restored one, both from one of them."""
    name = options.attention or model.defaults.attention
    if name == LEARNED:
        raise UsageError(f"model {model.name} has no learned attention; use another source")
    source = find_source(name, options.heads, model.device)
    if attention is None and options.attention_from != "lr":
        seen = source.attend(restored.clamp(0, 1)).float().cpu()
        return F.interpolate(seen, lr.shape[-2:], mode="bilinear", antialias=True), seen
    attention = source.attend(lr).float().cpu() if attention is None else attention
    grown = F.interpolate(attention, restored.shape[-2:], mode="bilinear")
    return attention, grown.clamp_(0, 1)


def restore(lr: Tensor, model: Model, options: UpscaleOptions) -> Tensor:
    """Stage one's picture at the size that is worked on, not clipped."""
    scale = options.scale if options.scale is not None else float(model.scale)
    height, width = (max(1, round(n * scale)) for n in lr.shape[-2:])
    shortest = _parts(model).version.shortest
    larger = max(1.0, shortest / min(height, width))
    height, width = round(height * larger), round(width * larger)
    if height * width > LARGEST:
        raise InputError(
            f"{model.name} would work on {width}×{height} pixels, because it needs {shortest} on "
            f"the short side; at most {LARGEST:,} are possible"
        )
    with _parts(model).restorer() as restorer:
        if restorer is None:
            return imresize(lr, (height, width)).clamp(0, 1)
        return restorer.restore(lr, height, width)


def planned(
    latents: Tensor, model: Model, options: UpscaleOptions
) -> tuple[Tensor, Plan, Spent | None]:
    """A as it will be used, the windows of every step, and what a budget made of A."""
    total = model.backbone.schedule.num_steps
    lower = options.lower_bound or model.defaults.lower_bound
    if not bool(time_mask(torch.zeros(()), lower, 1, total)):
        raise UsageError(f"lower bound {lower:g} is below 1/T = 1/{total}: noise would remain")
    sampler = options.sampler or model.defaults.sampler
    chain = "trailing" if sampler in MULTISTEP_SAMPLERS else _parts(model).version.chain
    timesteps = chain_timesteps(chain, total, options.steps or model.defaults.steps)
    timesteps = timesteps if model.fidelity(options) < 1 else timesteps[:1]
    size = window_size(latents.shape[-2], latents.shape[-1], options.tile)

    def plan(candidate: Tensor, bound: float) -> Plan:
        return window_plan(candidate, timesteps, bound, total, size, skip=options.skip)

    if options.budget is None or model.fidelity(options) >= 1:
        return latents, plan(latents, lower), None
    spent = spend(
        latents, options.budget, lower, 1 / total,
        lambda candidate, bound: float(plan(candidate, bound).planned_calls),
    )  # fmt: skip
    return spent.attention, plan(spent.attention, spent.lower_bound), spent


def window_size(height: int, width: int, tile: int | None) -> int:
    """Latents a side of a window, 0 for one window, from the tile asked for in pixels."""
    if tile is not None:
        return rounded_up(tile // FACTOR, ALIGN // FACTOR)
    return 0 if max(height, width) <= WHOLE else WINDOW


def photo_pass(
    lr: Tensor, model: Model, options: UpscaleOptions, observer: Observer,
    attention: Tensor | None = None, noise_of: Tensor | None = None,
) -> Passed:  # fmt: skip
    """The picture at the size asked for, and how it was made."""
    began = time.perf_counter()
    parts = _parts(model)
    parts.check_memory()
    seen = photo_survey(lr, model, options, attention)
    restored = seen.restored
    assert restored is not None
    tall, wide = (side * FACTOR for side in seen.on_grid.shape[-2:])
    height, width = restored.shape[-2:]
    size = window_size(tall // FACTOR, wide // FACTOR, options.tile)
    counter = Counter(observer.on_call)
    forecast = 0.0
    with parts.autoencoder(size) as vae:
        z_lr = vae.encode(replicate(restored, tall, wide) * 2 - 1)
    z_0 = z_lr
    if model.fidelity(options) < 1:
        steer(model, options)
        with parts.networks():
            forecast = seen.forecast(model)
            observer.on_plan(seen.planned_calls, forecast)
            z_0 = diffuse(
                z_lr, seen, model, options, observer, lr if noise_of is None else noise_of, counter
            )
    with parts.autoencoder(size) as vae:
        image = (vae.decode(z_0)[..., :height, :width] + 1) / 2
    if not bool(image.isfinite().all()):
        raise DeviceError(f"{model.name} overflowed in {model.precision}; use --precision fp32")
    image = COLOUR_FIXES[parts.version.colour](image, restored)
    scale = options.scale if options.scale is not None else float(model.scale)
    target = (max(1, round(lr.shape[-2] * scale)), max(1, round(lr.shape[-1] * scale)))
    if tuple(image.shape[-2:]) != target:
        image = imresize(image, target)
    free_memory()
    seconds = time.perf_counter() - began
    return Passed(image.clamp(0, 1), seen, counter.calls, forecast, seconds, counter.recovered())


def diffuse(
    z_lr: Tensor, seen: LatentSurvey, model: Model, options: UpscaleOptions, observer: Observer,
    noise_of: Tensor, counter: Counter,
) -> Tensor:  # fmt: skip
    """Masked reverse diffusion of the latents, on the CPU again."""
    z_lr = z_lr.to(model.device)
    condition = model.backbone.encode(z_lr)
    sampler = sampler_name(model, options)
    together = WINDOWS_TOGETHER if options.batch is None else options.batch
    alone = model.device.type == "cpu" or options.exact
    if observer.whole:
        observer.on_pass(Pass(seen, z_lr, _decoder(seen, model, options)))
    plan = seen.plan
    return masked_sample(
        WindowedDenoiser(model, condition, plan, 1 if alone else together, counter),
        SAMPLERS[sampler],
        model.backbone.schedule,
        plan.timesteps,
        seen.on_grid.to(model.device),
        plan.lower_bound,
        z_lr,
        make_draw(z_lr, picture_seed(options.seed, noise_of), sampler),
        faithful=options.faithful,
        on_step=observer.on_step if observer.whole else None,
    ).cpu()


def _decoder(
    seen: LatentSurvey, model: Model, options: UpscaleOptions
) -> Callable[[Tensor], Tensor]:
    """States as pictures, in the size that is worked on; the autoencoder is kept for them."""
    assert seen.restored is not None
    height, width = seen.restored.shape[-2:]
    size = window_size(seen.on_grid.shape[-2], seen.on_grid.shape[-1], options.tile)
    vae = Autoencoder(_parts(model).load_vae(), model.device, size)

    def decode(z: Tensor) -> Tensor:
        return (vae.decode(z.cpu())[..., :height, :width] + 1) / 2

    return decode


def _parts(model: Model) -> Parts:
    assert model.parts is not None
    return model.parts
