"""From an LR image to an SR image: load a model, wire attention, noise, tiles and the loop.

Images are (1, 3, H, W) float32 in [0, 1]. Reads checkpoints, prints nothing.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.attention import LEARNED, SOURCES
from yoda_cli.backbones import Backbone, Condition, crop_condition
from yoda_cli.checkpoint import load_checkpoint
from yoda_cli.config import SampleDefaults, UpscaleOptions
from yoda_cli.devices import autocast, pick_device, pick_precision
from yoda_cli.diffusion import SAMPLERS, STOCHASTIC_SAMPLERS, spaced_timesteps
from yoda_cli.errors import UsageError
from yoda_cli.images import read_picture
from yoda_cli.noise import NoiseField
from yoda_cli.resampling import imresize
from yoda_cli.tiling import Tile, Window, count_calls, make_tiles, run_tiles
from yoda_cli.yoda import StepRecord, masked_sample, time_mask

MAX_SCALE = 16.0
# One tile up to this many output pixels; larger pictures are cut into cores of AUTO_CORE.
UNTILED_PIXELS = 1280 * 1280
AUTO_CORE = 768
# Beyond the native factor, up to this the rest is bicubic; above it the model runs again.
RESIZE_ONLY = 1.5


@dataclass(frozen=True)
class Model:
    """A network ready to run, and how it likes to be sampled."""

    name: str
    backbone: Backbone
    defaults: SampleDefaults
    device: torch.device
    precision: torch.dtype

    def context(self) -> AbstractContextManager[Any]:
        """What network calls run under."""
        return autocast(self.device, self.precision)()


@dataclass(frozen=True)
class Plan:
    """What one pass will do, known before its first network call."""

    timesteps: Sequence[int]
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
class Observer:
    """Callbacks that watch a run; every one may be left out."""

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
    if options.steps is not None and options.steps < 1:
        raise UsageError(f"steps {options.steps} is not allowed; give 1 or more")
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"seed {options.seed} is not allowed; give 0 … 2^63-1")
    if options.tile is not None and options.tile < 0:
        raise UsageError(f"tile {options.tile} is not allowed; give 0 (no tiles) or more pixels")
    if options.sampler is not None and options.sampler not in SAMPLERS:
        raise UsageError(f"unknown sampler {options.sampler!r}; use {', '.join(SAMPLERS)}")


def load_model(path: Path, name: str, options: UpscaleOptions) -> Model:
    """The network in a checkpoint file, on the device and in the precision asked for."""
    device = pick_device(options.device)
    backbone, header = load_checkpoint(path)
    cast(nn.Module, backbone).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(
        name,
        backbone,
        SampleDefaults(**header.card.get("defaults", {})),
        device,
        pick_precision(options.precision, device),
    )


def picture_seed(seed: int, lr: Tensor) -> int:
    """One picture's noise seed, from the user's seed and the LR pixels at 16 bits."""
    pixels = (lr.clamp(0, 1) * 65535).round().to(torch.int32).cpu().contiguous()
    digest = hashlib.sha256(f"{seed} {tuple(lr.shape)} ".encode())
    digest.update(pixels.numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "little")


@torch.inference_mode()
def upscale_tensor(
    lr: Tensor, model: Model, options: UpscaleOptions, observer: Observer | None = None
) -> Result:
    """Enlarge ``lr`` by ``options.scale`` (the model's own factor if None).

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
        passes.append(one_pass(image, model, options, observer))
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


def one_pass(lr: Tensor, model: Model, options: UpscaleOptions, observer: Observer) -> Result:
    """Masked reverse diffusion at the model's native factor."""
    began = time.perf_counter()
    net, device = model.backbone, model.device
    height, width = lr.shape[-2:]
    padded = pad_to_stride(lr.to(device), net.stride)
    condition = encode(padded, model, options)
    lr_map = attention_map(lr, condition, model, options)
    attention = to_grid(lr_map.to(device), condition.z_lr, net.scale)
    lower = options.lower_bound or model.defaults.lower_bound
    plan = make_plan(attention, lower, model, options)
    observer.on_plan(plan.planned_calls)
    calls = 0

    def predict(z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        def run(tile: Tile) -> Tensor:
            nonlocal calls
            window = tile.window
            with model.context():
                z_0 = net.predict(
                    window.cut(z_t), t, crop_condition(condition, window), window.cut(mask)
                )
            calls += 1
            observer.on_call()
            return z_0

        if len(plan.tiles) == 1 and options.skip is False:
            return run(plan.tiles[0])
        return run_tiles(run, plan.tiles, torch.zeros_like(z_t), mask if options.skip else None)

    field = NoiseField(picture_seed(options.seed, lr), net.z_channels)
    grid = condition.z_lr.shape[-2:]
    z_0 = masked_sample(
        predict,
        SAMPLERS[sampler_name(model, options)],
        net.schedule,
        plan.timesteps,
        attention,
        lower,
        condition.z_lr,
        lambda step: field.draw(step, 0, 0, grid[0], grid[1]).to(device),
        faithful=options.faithful,
        on_step=observer.on_step,
    )
    image = net.decode(z_0, condition)[..., : height * net.scale, : width * net.scale]
    return Result(
        image.float().clamp(0, 1).cpu(),
        lr_map,
        plan.planned_calls,
        calls,
        plan.dense_calls,
        time.perf_counter() - began,
    )


def sampler_name(model: Model, options: UpscaleOptions) -> str:
    """The sampler to use; ``--faithful`` needs an ancestral one and takes ``ddpm`` by default."""
    if not options.faithful:
        return options.sampler or model.defaults.sampler
    if options.sampler is not None and options.sampler not in STOCHASTIC_SAMPLERS:
        raise UsageError(
            f"--faithful needs the variance of an ancestral step; sampler {options.sampler!r} "
            f"has none: use {' or '.join(STOCHASTIC_SAMPLERS)}"
        )
    return options.sampler or "ddpm"


def make_plan(attention: Tensor, lower: float, model: Model, options: UpscaleOptions) -> Plan:
    """Timesteps, tiles and the exact number of network calls."""
    net = model.backbone
    total = net.schedule.num_steps
    timesteps = spaced_timesteps(total, options.steps or model.defaults.steps)
    height, width = attention.shape[-2:]
    core = options.tile
    if core is None:
        core = 0 if height * width <= UNTILED_PIXELS else AUTO_CORE
    tiles = make_tiles(height, width, core=core, halo=net.halo, align=net.stride * net.scale)
    dense = len(tiles) * (len(timesteps) - 1)
    if not options.skip:
        return Plan(timesteps, tiles, dense, dense)
    masks = [time_mask(attention, lower, s + 1, total) for _, s in pairwise(timesteps)]
    return Plan(timesteps, tiles, count_calls(masks, tiles), dense)


def encode(lr: Tensor, model: Model, options: UpscaleOptions) -> Condition:
    """The condition of the whole picture, computed tile by tile where it is large."""
    net = model.backbone
    height, width = (n * net.scale for n in lr.shape[-2:])
    core = options.tile
    if core is None:
        core = 0 if height * width <= UNTILED_PIXELS else AUTO_CORE
    tiles = make_tiles(height, width, core=core, halo=net.halo, align=net.stride * net.scale)

    def run(window: Window) -> Condition:
        with model.context():
            return net.encode(window.divided(net.scale).cut(lr))

    if len(tiles) == 1:
        return run(tiles[0].window)
    return stitch([(tile, run(tile.window)) for tile in tiles], height, width)


def stitch(parts: Sequence[tuple[Tile, Condition]], height: int, width: int) -> Condition:
    """One condition from the cores of many."""
    first = parts[0][1]

    def join(pick: Callable[[Condition], Tensor]) -> Tensor:
        sample = pick(first)
        factor = parts[0][0].window.bottom // sample.shape[-2]
        canvas = sample.new_empty(*sample.shape[:2], height // factor, width // factor)
        for tile, condition in parts:
            inner = tile.core.within(tile.window).divided(factor)
            tile.core.divided(factor).cut(canvas).copy_(inner.cut(pick(condition)))
        return canvas

    def map_of(name: str) -> Tensor:
        return join(lambda condition: condition.maps[name])

    def attention_of(condition: Condition) -> Tensor:
        assert condition.attention is not None
        return condition.attention

    return Condition(
        join(lambda condition: condition.z_lr),
        {name: map_of(name) for name in first.maps},
        None if first.attention is None else join(attention_of),
    )


def attention_map(
    lr: Tensor, condition: Condition, model: Model, options: UpscaleOptions
) -> Tensor:
    """A on the LR grid, (1, 1, h, w) in [0, 1], from the source asked for."""
    name = options.attention or model.defaults.attention
    if name == LEARNED:
        if condition.attention is None:
            raise UsageError(f"model {model.name} has no learned attention; use another source")
        return condition.attention[..., : lr.shape[-2], : lr.shape[-1]].float().cpu()
    if name in SOURCES:
        return SOURCES[name](lr)
    path = Path(name)
    if not path.suffix and not path.exists():
        names = ", ".join([LEARNED, *SOURCES])
        raise UsageError(f"unknown attention source {name!r}; use {names}, or a grey picture")
    painted = read_picture(path).rgb.mean(1, keepdim=True)
    if painted.shape[-2:] != lr.shape[-2:]:
        painted = F.interpolate(painted, lr.shape[-2:], mode="bilinear", antialias=True)
    return painted.clamp(0, 1)


def to_grid(attention: Tensor, z_lr: Tensor, scale: int) -> Tensor:
    """A from the LR grid to the diffusion grid: bilinear, clamped, padded like the picture."""
    height, width = (n // scale for n in z_lr.shape[-2:])
    padded = replicate(attention, height, width)
    return F.interpolate(padded, z_lr.shape[-2:], mode="bilinear").clamp(0, 1)


def pad_to_stride(lr: Tensor, stride: int) -> Tensor:
    """Border pixels repeated to the right and below until both sides divide by ``stride``."""
    return replicate(lr, *(-(-n // stride) * stride for n in lr.shape[-2:]))


def replicate(x: Tensor, height: int, width: int) -> Tensor:
    """``x`` with its last row and column repeated up to (height, width)."""
    rows = torch.arange(height, device=x.device).clamp(max=x.shape[-2] - 1)
    cols = torch.arange(width, device=x.device).clamp(max=x.shape[-1] - 1)
    return x.index_select(-2, rows).index_select(-1, cols)
