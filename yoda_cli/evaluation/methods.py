"""What a benchmark compares: ways to enlarge one LR picture, by name.

A method is our network with some options, a resize, the base, or any file spandrel reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from yoda_cli.attention import HEADED, SOURCES
from yoda_cli.config import UpscaleOptions
from yoda_cli.diffusion.samplers import SAMPLERS
from yoda_cli.diffusion.yoda import StepRecord, share
from yoda_cli.errors import UsageError
from yoda_cli.images.resize import imresize
from yoda_cli.models.calibration import costs_of
from yoda_cli.models.image_networks import image_network
from yoda_cli.models.model import Model
from yoda_cli.upscaling.checks import check_model
from yoda_cli.upscaling.conditioning import attention_map
from yoda_cli.upscaling.latent import required
from yoda_cli.upscaling.picture import estimate_denoise
from yoda_cli.upscaling.pipeline import get_model, plan_picture, upscale_tensor
from yoda_cli.upscaling.resolve import resolve
from yoda_cli.upscaling.result import Observer, PassBegin
from yoda_cli.upscaling.settings import Settings
from yoda_cli.weights import Cache, Watch, load_registry
from yoda_cli.weights.tensors import read_tensors

PEERS = ("bicubic", "lanczos", "base", "plain", "shuffled", "faithful", *SOURCES, *HEADED)
SHUFFLE_BLOCK = 8  # LR pixels: blocks of a map that change places

ABLATIONS: dict[str, tuple[str, tuple[object, ...]]] = {
    "attention": ("attention", ("learned", *SOURCES)),
    "lower-bound": ("lower_bound", (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)),
    "steps": ("steps", (4, 8, 15, 25, 50)),
    "sampler": ("sampler", tuple(SAMPLERS)),
    "faithful": ("faithful", (False, True)),
    "tile": ("tile", (0, 128, 192, 256)),
}


@dataclass(frozen=True)
class Outcome:
    """A finished enlargement. ``active`` is the refined share of every step.

    ``flops`` counts the encoder's and the network's windows, a multiply-add as two; None where it
    is not known. ``tile_lines`` are rows and columns between the tiles of a regular grid.
    """

    image: Tensor
    calls: int = 0
    planned_calls: int = 0
    dense_calls: int = 0
    active: tuple[float, ...] = ()
    tile_lines: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    flops: float | None = None
    attention_seconds: float | None = None


@dataclass(frozen=True)
class Method:
    """``run`` enlarges (1, 3, h, w) in [0, 1]; ``settings`` say what was asked. What runs in its
    place where it is ``knowing`` is given the truth too: no rival, a ceiling."""

    name: str
    run: Callable[[Tensor], Outcome]
    settings: dict[str, object] = field(default_factory=dict)
    knowing: Callable[[Tensor, Tensor], Outcome] | None = None


def make_method(name: str, options: UpscaleOptions, model: Model, watch: Watch) -> Method:
    """The peer called ``name``: one of ``PEERS``, or a checkpoint file."""
    if name in ("bicubic", "lanczos"):
        scale = model.scale
        return Method(name, lambda lr: Outcome(resized(lr, scale, name)))
    variants: dict[str, UpscaleOptions] = {
        "base": replace(options, fidelity=1.0),
        "plain": replace(options, attention="uniform"),
        "faithful": replace(options, faithful=True, sampler=None),
    }
    variants |= {source: replace(options, attention=source) for source in (*SOURCES, *HEADED)}
    if name == "base" and model.family is not None:  # a decoder that wraps would diffuse for it
        return Method(name, lambda lr: Outcome(unrefined(lr, model, options)))
    if name in variants:
        return own_method(name, variants[name], model, watch)
    if name == "shuffled":
        check_model(model, replace(options, attention="uniform"))
        return Method(name, lambda lr: enlarge(lr, model, options, shuffled=True))
    path = Path(name)
    if path.suffix in (".pth", ".pt", ".ckpt", ".safetensors"):
        return spandrel_method(path, model)
    raise UsageError(f"unknown peer {name!r}; use {', '.join(PEERS)}, or a file spandrel reads")


def own_method(name: str, options: UpscaleOptions, model: Model, watch: Watch) -> Method:
    """Our network with ``options``, its attention's weights fetched first.

    UsageError where the network does not read one of them.
    """
    check_model(model, options)
    if options.attention in HEADED:
        get_model(options, watch)
    return Method(name, lambda lr: enlarge(lr, model, options))


def ablation(kind: str, options: UpscaleOptions, model: Model, watch: Watch) -> list[Method]:
    """One method per value of the setting that ``kind`` varies."""
    if kind not in ABLATIONS:
        raise UsageError(f"unknown ablation {kind!r}; use {', '.join(ABLATIONS)} or adaptive")
    key, values = ABLATIONS[kind]
    if kind == "attention":  # DINO's sources too, where their weights are already there
        known, cache = load_registry(), Cache.default()
        ready = [n for n, s in HEADED.items() if cache.trusted_or_none(known.files[s.file])]
        values = (*values, *ready)
    if kind == "faithful":
        options = replace(options, sampler="ddpm")  # both need the same one
    methods = []
    for value in values:
        changed = replace(options, **{key: value})  # type: ignore[arg-type]
        method = own_method(f"{kind} {value}".lower(), changed, model, watch)
        if kind == "attention":
            method = replace(method, run=with_attention_time(method.run, changed, model))
        methods.append(replace(method, settings={key: value}))
    return methods


def with_attention_time(
    run: Callable[[Tensor], Outcome], options: UpscaleOptions, model: Model
) -> Callable[[Tensor], Outcome]:
    """``run``, and how long the map alone takes on the same picture."""

    def timed(lr: Tensor) -> Outcome:
        with torch.inference_mode():
            began = time.perf_counter()
            attention_map(lr, model, settings_for(lr, model, options))
            seconds = time.perf_counter() - began
        return replace(run(lr), attention_seconds=seconds)

    return timed


def settings_for(lr: Tensor, model: Model, options: UpscaleOptions) -> Settings:
    """As ``yoda upscale`` settles them: damage is estimated where no strength was asked for."""
    return resolve(estimate_denoise(lr, model, options)[0], model)


def enlarge(
    lr: Tensor, model: Model, options: UpscaleOptions, *, shuffled: bool = False
) -> Outcome:
    """Our network on one picture, watched."""
    active: list[float] = []
    lines: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    flops: list[float] = []
    settings = settings_for(lr, model, options)
    restored = settings.sampling.strength > model.backbone.restores_from
    encoder, network = (0.0, 0.0) if model.family else flops_per_pixel(model, restored=restored)

    def on_pass(run: PassBegin) -> None:
        height, width = run.plan.size
        plan = run.plan.first
        flops.append(encoder * plan.pixels + network * plan.network_pixels)
        first = plan.layouts[0] if plan.fixed and plan.layouts else None
        cores = [tile.core for tile in (*first.active, *first.idle)] if first else []
        rows = sorted({core.top for core in cores if 0 < core.top < height})
        lines.append((tuple(rows), tuple(sorted({c.left for c in cores if 0 < c.left < width}))))

    def on_step(record: StepRecord) -> None:
        active.append(share(record.mask))

    attention = shuffle(plan_picture(lr, model, settings).attention) if shuffled else None
    observer = Observer(on_pass=on_pass, on_step=on_step, whole=True)
    result = upscale_tensor(lr, model, settings, observer, attention=attention)
    return Outcome(
        result.image, result.calls, result.planned_calls, result.dense_calls, tuple(active),
        lines[0] if len(lines) == 1 else ((), ()), (flops[0] or None) if len(flops) == 1 else None,
    )  # fmt: skip


def unrefined(lr: Tensor, model: Model, options: UpscaleOptions) -> Tensor:
    """The picture that a model of latents starts from, at the size of its result; no network of
    diffusion runs."""
    settings = settings_for(lr, model, options)
    restored = required(plan_picture(lr, model, settings).restored).float().cpu()
    size = (round(lr.shape[-2] * settings.scale), round(lr.shape[-1] * settings.scale))
    return imresize(restored, size).clamp(0, 1)


def get_ready(model: Model) -> None:
    """Measure and count what is kept: it belongs to no picture's seconds."""
    if model.family is None:
        costs_of(model)
        for restored in {False, model.backbone.restores_from < 1}:
            flops_per_pixel(model, restored=restored)


@lru_cache(maxsize=4)
def flops_per_pixel(model: Model, *, restored: bool = False) -> tuple[float, float]:
    """Of the encoder, with what is ``restored``, and of one network call, per output pixel, counted
    on a small picture."""
    net, side = model.backbone, 64
    lr = torch.zeros(1, net.geometry.in_channels, side, side, device=model.device)
    with torch.inference_mode(), model.context():
        with FlopCounterMode(display=False) as encoder:
            condition = net.encode(lr, float(restored))
        z = torch.zeros_like(condition.z_lr)
        mask = torch.ones_like(z[:, :1], dtype=torch.bool)
        with FlopCounterMode(display=False) as network:
            net.predict(z, net.schedule.num_steps, condition, mask)
    pixels = (side * net.geometry.scale) ** 2
    return encoder.get_total_flops() / pixels, network.get_total_flops() / pixels


def shuffle(attention: Tensor) -> Tensor:
    """The same values elsewhere: whole blocks of the map change places, the same way every time.

    Rows and columns that fill no block stay where they are.
    """
    size = SHUFFLE_BLOCK
    rows, columns = attention.shape[-2] // size, attention.shape[-1] // size
    if rows * columns < 2:
        return attention.flip(-1).flip(-2)
    inner = attention[..., : rows * size, : columns * size]
    blocks = F.unfold(inner, size, stride=size)
    order = torch.from_numpy(np.random.default_rng(0).permutation(rows * columns))
    moved = attention.clone()
    moved[..., : rows * size, : columns * size] = F.fold(
        blocks[..., order], inner.shape[-2:], size, stride=size
    )
    return moved


def resized(lr: Tensor, scale: int, kind: str) -> Tensor:
    """Plain enlargement: the benchmark's bicubic, or Pillow's Lanczos."""
    if kind == "bicubic":
        return imresize(lr, scale=scale).clamp(0, 1)
    pixels = (lr[0].permute(1, 2, 0) * 255).round().byte().numpy()
    size = (lr.shape[-1] * scale, lr.shape[-2] * scale)
    large = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    return torch.from_numpy(large.copy()).permute(2, 0, 1)[None].float() / 255


def spandrel_method(path: Path, model: Model) -> Method:
    """A network of somebody else's that spandrel knows, of the same factor."""
    loaded = image_network(read_tensors(path), str(path)).to(model.device)
    if loaded.scale != model.scale:
        raise UsageError(f"{path} does not enlarge by {model.scale}")

    def run(lr: Tensor) -> Outcome:
        with torch.inference_mode():
            return Outcome(loaded(lr.to(model.device)).clamp(0, 1).float().cpu(), calls=1)

    status = path.stat()
    return Method(path.stem, run, {"file": (str(path), status.st_size, status.st_mtime_ns)})
