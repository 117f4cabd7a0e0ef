"""From an LR image to an SR image: load a model, wire attention, noise, tiles and the loop.

Images are (1, 3, H, W) float32 in [0, 1]. Reads checkpoints, prints nothing.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from yoda_cli.backbones import Condition, crop_condition
from yoda_cli.conditioning import attention_map, encode, pad_to_stride, tiles_of, to_grid
from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion import SAMPLERS, STOCHASTIC_SAMPLERS, spaced_timesteps
from yoda_cli.errors import UsageError
from yoda_cli.models import Model
from yoda_cli.noise import NoiseField
from yoda_cli.resampling import imresize
from yoda_cli.tiling import Tile, count_calls, run_tiles
from yoda_cli.yoda import Denoiser, Draw, StepRecord, masked_sample, time_mask

MAX_SCALE = 16.0
MIN_TILE = 64  # smaller cores spend nearly all time on their halos
# Beyond the native factor, up to this the rest is bicubic; above it the model runs again.
RESIZE_ONLY = 1.5


@dataclass(frozen=True)
class Plan:
    """What one pass will do, known before its first network call."""

    timesteps: Sequence[int]
    lower_bound: float
    tiles: Sequence[Tile]
    planned_calls: int
    dense_calls: int


@dataclass(frozen=True)
class Result:
    """A finished picture. ``image`` is (1, 3, H, W) in [0, 1]; counts are over all passes."""

    image: Tensor
    attention: Tensor
    planned_calls: int
    calls: int
    dense_calls: int
    seconds: float


@dataclass(frozen=True)
class Survey:
    """Where a run will work, before its first network call.

    ``attention`` (1, 1, h, w) is on the grid of ``lr``, ``on_grid`` (1, 1, H, W) on that of the
    diffusion, which may be padded to the right and below; ``size`` is the picture's (H, W) there.
    """

    lr: Tensor
    attention: Tensor
    on_grid: Tensor
    plan: Plan
    size: tuple[int, int]

    def cut(self, x: Tensor) -> Tensor:
        """The part of a canvas that is picture, not padding."""
        return x[..., : self.size[0], : self.size[1]]

    def mask(self, t: int) -> Tensor:
        """M(t) on the picture, (1, 1, H, W)."""
        return self.cut(time_mask(self.on_grid, self.plan.lower_bound, t, self.plan.timesteps[0]))


@dataclass(frozen=True)
class Pass:
    """One run of the model: its survey, and what turns its states into pictures."""

    survey: Survey
    z_lr: Tensor
    decode_state: Callable[[Tensor], Tensor]

    def decode(self, z: Tensor) -> Tensor:
        """A state as a picture (1, 3, H, W) in [0, 1], cut to size, on the CPU."""
        return self.survey.cut(self.decode_state(z)).float().clamp(0, 1).cpu()


@dataclass(frozen=True)
class Observer:
    """Callbacks that watch a run; every one may be left out."""

    on_pass: Callable[[Pass], None] = lambda began: None

    on_plan: Callable[[int], None] = lambda calls: None
    on_call: Callable[[], None] = lambda: None
    on_step: Callable[[StepRecord], None] = lambda record: None


def check_options(options: UpscaleOptions) -> None:
    """Refuse values that cannot be meant, before anything is loaded."""
    scale, lower = options.scale, options.lower_bound
    if scale is not None and not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        raise UsageError(f"scale {scale:g} is not allowed; give a number above 0, at most 16")
    if lower is not None and not (0 < lower <= 1):
        raise UsageError(f"lower bound {lower:g} is not allowed; give a number above 0, at most 1")
    if not 0 <= options.fidelity <= 1:
        raise UsageError(f"fidelity {options.fidelity:g} is not allowed; give 0 … 1")
    if options.denoise is not None and not 0 <= options.denoise <= 1:
        raise UsageError(f"denoise {options.denoise:g} is not allowed; give auto or 0 … 1")
    if options.steps is not None and options.steps < 1:
        raise UsageError(f"steps {options.steps} is not allowed; give 1 or more")
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"seed {options.seed} is not allowed; give 0 … 2^63-1")
    if options.tile is not None and options.tile != 0 and options.tile < MIN_TILE:
        raise UsageError(
            f"tile {options.tile} is not allowed; give 0 (no tiles) or at least {MIN_TILE} pixels"
        )
    if options.sampler is not None and options.sampler not in SAMPLERS:
        raise UsageError(f"unknown sampler {options.sampler!r}; use {', '.join(SAMPLERS)}")
    if options.faithful and options.sampler not in (None, *STOCHASTIC_SAMPLERS):
        raise UsageError(
            f"--faithful needs the variance of an ancestral step; sampler {options.sampler!r} "
            f"has none: use {' or '.join(STOCHASTIC_SAMPLERS)}"
        )


def picture_seed(seed: int, lr: Tensor) -> int:
    """One picture's noise seed, from the user's seed and the LR pixels at 16 bits."""
    pixels = (lr.clamp(0, 1) * 65535).round().to(torch.int32).cpu().contiguous()
    digest = hashlib.sha256(f"{seed} {tuple(lr.shape)} ".encode())
    digest.update(pixels.numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "little")


@torch.inference_mode()
def upscale_tensor(
    lr: Tensor,
    model: Model,
    options: UpscaleOptions,
    observer: Observer | None = None,
    *,
    attention: Tensor | None = None,
) -> Result:
    """Enlarge ``lr`` by ``options.scale`` (the model's own factor if None).

    ``attention`` (1, 1, h, w) in [0, 1] takes the place of the source's map in the first pass.

    Further passes of the model are run when the scale is well beyond its factor; what remains is
    a bicubic resize.
    """
    check_options(options)
    observer = observer or Observer()
    began = time.perf_counter()
    native = model.backbone.scale
    scale = options.scale if options.scale is not None else float(native)
    target = tuple(max(1, round(n * scale)) for n in lr.shape[-2:])
    image, reached = lr, 1.0
    passes: list[Result] = []
    while not passes or scale / reached > RESIZE_ONLY:
        passes.append(one_pass(image, model, options, observer, attention))
        attention, options = None, replace(options, denoise=0.0)  # what it made is clean
        image = passes[-1].image
        reached *= native
    if tuple(image.shape[-2:]) != target:
        image = imresize(image, (target[0], target[1])).clamp(0, 1)
    return Result(
        image,
        passes[0].attention,
        sum(p.planned_calls for p in passes),
        sum(p.calls for p in passes),
        sum(p.dense_calls for p in passes),
        time.perf_counter() - began,
    )


def survey(
    lr: Tensor,
    model: Model,
    options: UpscaleOptions,
    condition: Condition | None = None,
    attention: Tensor | None = None,
) -> Survey:
    """``attention`` or the source's map of ``lr``, and the plan; ``learned`` is taken from
    ``condition`` where it is at hand.

    Without a condition nothing of the size of the output is held but the map: 4 bytes a pixel.
    """
    net = model.backbone
    if attention is None:
        attention = attention_map(lr, condition, model, options)
    height, width = (-(-n // net.stride) * net.stride for n in lr.shape[-2:])
    on_grid = to_grid(attention.to(model.device), height, width, net.scale)
    size = (lr.shape[-2] * net.scale, lr.shape[-1] * net.scale)
    return Survey(lr, attention, on_grid, make_plan(on_grid, model, options), size)


def one_pass(
    lr: Tensor,
    model: Model,
    options: UpscaleOptions,
    observer: Observer,
    attention: Tensor | None = None,
) -> Result:
    """Masked reverse diffusion at the model's native factor."""
    began = time.perf_counter()
    net = model.backbone
    condition = encode(pad_to_stride(lr.to(model.device), net.stride), model, options)
    seen = survey(lr, model, options, condition, attention)
    plan, z_lr = seen.plan, condition.z_lr
    run = Pass(seen, z_lr, lambda z: net.decode(z, condition))
    observer.on_pass(run)
    observer.on_plan(plan.planned_calls)
    calls = 0

    def on_call() -> None:
        nonlocal calls
        calls += 1
        observer.on_call()

    z_0 = z_lr
    if options.fidelity < 1:
        sampled = masked_sample(
            make_denoiser(condition, plan, model, options, on_call),
            SAMPLERS[sampler_name(model, options)],
            net.schedule,
            plan.timesteps,
            seen.on_grid,
            plan.lower_bound,
            z_lr,
            make_draw(z_lr, picture_seed(options.seed, lr)),
            faithful=options.faithful,
            on_step=observer.on_step,
        )
        # The unrefined picture is the most faithful one; between the two lies the whole curve.
        z_0 = torch.lerp(sampled, z_0, options.fidelity)
    image, seconds = run.decode(z_0), time.perf_counter() - began
    return Result(image, seen.attention, plan.planned_calls, calls, plan.dense_calls, seconds)


def make_draw(z_lr: Tensor, seed: int) -> Draw:
    """Noise for the whole canvas of ``z_lr``, on its device."""
    channels, height, width = z_lr.shape[1:]
    field = NoiseField(seed, channels)
    return lambda step: field.draw(step, 0, 0, height, width).to(z_lr.device)


def make_denoiser(
    condition: Condition,
    plan: Plan,
    model: Model,
    options: UpscaleOptions,
    on_call: Callable[[], None],
) -> Denoiser:
    """ẑ_0 of the whole canvas, tile by tile; idle tiles are left out unless told otherwise."""

    def predict(z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        def run(tile: Tile) -> Tensor:
            window = tile.window
            seen = crop_condition(condition, window)
            with model.context():
                z_0 = model.backbone.predict(window.cut(z_t), t, seen, window.cut(mask))
            on_call()
            return z_0

        return run_tiles(run, plan.tiles, torch.zeros_like(z_t), mask if options.skip else None)

    return predict


def sampler_name(model: Model, options: UpscaleOptions) -> str:
    """The sampler to use; ``--faithful`` needs an ancestral one and takes ``ddpm`` by default."""
    return options.sampler or ("ddpm" if options.faithful else model.defaults.sampler)


def make_plan(attention: Tensor, model: Model, options: UpscaleOptions) -> Plan:
    """Timesteps, tiles and the exact number of network calls."""
    total = model.backbone.schedule.num_steps
    lower = options.lower_bound or model.defaults.lower_bound
    if not bool(time_mask(torch.zeros(()), lower, 1, total)):
        raise UsageError(f"lower bound {lower:g} is below 1/T = 1/{total}: noise would remain")
    timesteps = spaced_timesteps(total, options.steps or model.defaults.steps)
    tiles = tiles_of(attention.shape[-2], attention.shape[-1], model, options)
    dense = len(tiles) * (len(timesteps) - 1)
    if options.fidelity >= 1:
        planned = 0
    elif options.skip:
        masks = (time_mask(attention, lower, s + 1, total) for _, s in pairwise(timesteps))
        planned = count_calls(masks, tiles)  # one mask at a time
    else:
        planned = dense
    return Plan(timesteps, lower, tiles, planned, dense)
