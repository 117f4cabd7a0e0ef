"""One pass of a model over a picture: survey and plan, then blocks of masked reverse diffusion.

A block is an independent trajectory on a window of the canvas. Neighbours overlap widely, share
the noise and the map, and are blended once. Images are (1, 3, H, W) float32 in [0, 1].
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from yoda_cli.attention import LEARNED
from yoda_cli.backbones import Condition
from yoda_cli.conditioning import encode, grid_window, replicated, strided
from yoda_cli.config import UpscaleOptions
from yoda_cli.costs import learn
from yoda_cli.devices import upload
from yoda_cli.fidelity import drawn_back
from yoda_cli.memory import Scratch, as_floats, give_back, let_go
from yoda_cli.models import Model
from yoda_cli.planning import BLOCK_OVERLAP, LEAN_PIXELS, canvas_of, check_memory, make_blocks
from yoda_cli.recovery import Counter, Recovered
from yoda_cli.samplers import SAMPLERS
from yoda_cli.sampling import TiledDenoiser, make_draw
from yoda_cli.surveys import Survey, survey
from yoda_cli.tiling import Tile, feather
from yoda_cli.yoda import StepRecord, masked_sample

HASHED = 1 << 20  # values turned into numbers of 16 bits at once
KEPT_BYTES = 400 << 20  # conditions of all blocks are kept from plan to run up to this


@dataclass(frozen=True)
class Pass:
    """One run of the model on a picture in one block.

    ``decode_state`` turns its states into pictures, cut to size.
    """

    survey: Survey
    z_lr: Tensor
    decode_state: Callable[[Tensor], Tensor]

    def decode(self, z: Tensor) -> Tensor:
        """A state as a picture (1, 3, H, W) in [0, 1], on the CPU."""
        return self.decode_state(z).float().clamp(0, 1).cpu()


@dataclass(frozen=True)
class Observer:
    """Callbacks that watch a run; every one may be left out.

    ``whole`` keeps the picture in one block, as ``on_pass`` and ``on_step`` need it.
    """

    on_pass: Callable[[Pass], None] = lambda began: None
    on_plan: Callable[[int, float], None] = lambda calls, seconds: None
    on_call: Callable[[], None] = lambda: None
    on_step: Callable[[StepRecord], None] = lambda record: None
    whole: bool = False


@dataclass(frozen=True)
class Passed:
    """What one pass made, (1, 3, H, W), and how."""

    image: Tensor
    survey: Survey
    calls: int
    forecast_seconds: float
    seconds: float
    recovered: Recovered


def picture_seed(seed: int, lr: Tensor) -> int:
    """One picture's noise seed, from the user's seed and the LR pixels at 16 bits."""
    digest = hashlib.sha256(f"{seed} {tuple(lr.shape)} ".encode())
    together = max(HASHED // lr.shape[-1], 1)
    for plane in lr[0]:
        for rows in plane.split(together):
            pixels = (as_floats(rows).clamp(0, 1) * 65535).round().to(torch.int32).cpu()
            digest.update(pixels.contiguous().numpy().tobytes())
            let_go()
    return int.from_bytes(digest.digest()[:8], "little")


@dataclass(frozen=True)
class Conditions:
    """The encoder's output for every block, kept where there is room, made again where not."""

    lr: Tensor
    model: Model
    options: UpscaleOptions
    blocks: Sequence[Tile]
    counter: Counter = field(default_factory=Counter)
    kept: dict[int, Condition] = field(default_factory=dict)
    keep_bytes: int = KEPT_BYTES
    scratch: Scratch = field(default_factory=Scratch)

    def take(self, index: int) -> Condition:
        """For one block; not kept any longer."""
        if index in self.kept:
            return self.kept.pop(index)
        window = self.blocks[index].window.divided(self.model.backbone.scale)
        lr = as_floats(replicated(self.lr, window))  # a canvas is larger than lr, by padding
        return encode(lr, self.model, self.options, self.counter)

    def attention(self) -> Tensor | None:
        """The learned map of the whole picture, if the network has one.

        What was encoded for it is kept for the run where all of it can be.
        """
        scale = self.model.backbone.scale
        canvas = self.scratch.zeros(1, 1, *strided(self.lr, self.model))
        for index, block in enumerate(self.blocks):
            condition = self.take(index)
            if condition.attention is None:
                return None
            block.divided(scale).paste(canvas, condition.attention.float().cpu())
            if bytes_of(condition) * len(self.blocks) <= self.keep_bytes or len(self.blocks) == 1:
                self.kept[index] = condition
            else:
                give_back()
        return canvas


def bytes_of(condition: Condition) -> int:
    """Memory that a condition holds."""
    tensors = {t.untyped_storage().data_ptr(): t for t in condition.maps.values()}
    return sum(t.untyped_storage().nbytes() for t in tensors.values())


def begin(
    lr: Tensor, model: Model, options: UpscaleOptions, attention: Tensor | None, *, whole: bool,
    counter: Counter | None = None, keep_bytes: int = KEPT_BYTES, scratch: Scratch | None = None,
) -> tuple[Survey, Conditions]:  # fmt: skip
    """The plan of a pass, and what was encoded for it if that is not above ``keep_bytes``.

    ``lr`` (1, 3, h, w) may be bytes; the learned map is put in ``scratch``.
    """
    height, width = (n * model.backbone.scale for n in strided(lr, model))
    if whole:
        options = replace(options, block=0)
    blocks = make_blocks(height, width, model, options)
    check_memory(blocks, model)
    conditions = Conditions(
        upload(lr, model.device), model, options, blocks, counter or Counter(),
        keep_bytes=keep_bytes, scratch=scratch or Scratch(),
    )  # fmt: skip
    again = False
    is_learned = (options.attention or model.defaults.attention) == LEARNED
    if attention is None and is_learned and options.heads is None:
        learned = conditions.attention()
        again = not conditions.kept
        attention = None if learned is None else learned[..., : lr.shape[-2], : lr.shape[-1]]
    seen = survey(lr, model, options, None, attention, whole=whole)
    return replace(seen, encoded_again=again), conditions


def one_pass(
    lr: Tensor,
    model: Model,
    options: UpscaleOptions,
    observer: Observer,
    attention: Tensor | None = None,
    noise_of: Tensor | None = None,
) -> Passed:
    """Masked reverse diffusion at the model's native factor.

    The noise is that of the picture ``noise_of``, ``lr`` if left out.
    """
    began = time.perf_counter()
    counter = Counter(observer.on_call)
    seen, conditions = begin(
        lr, model, options, attention, whole=observer.whole, counter=counter
    )  # fmt: skip
    forecast = seen.forecast(model)
    observer.on_plan(seen.planned_calls, forecast)
    seed = picture_seed(options.seed, lr if noise_of is None else noise_of)
    made = (
        run_block(seen, i, conditions.take(i), model, options, observer, seed, counter)
        for i in range(len(seen.blocks))
    )
    image = blended(seen, made)
    seconds = time.perf_counter() - began
    recovered = counter.recovered()
    if not (observer.whole or seen.plan.fixed or recovered):  # others are slower for their reasons
        learn(model, forecast, seconds)
    return Passed(image, seen, counter.calls, forecast, seconds, recovered)


def blended(seen: Survey, made: Iterable[Tensor]) -> Tensor:
    """The picture (1, 3, H, W) from its blocks, in their order, one in memory at a time."""
    if len(seen.blocks) == 1:
        (only,) = made
        return seen.cut(only)
    canvas = seen.blocks[-1].core
    image = torch.zeros(1, 3, canvas.bottom, canvas.right)
    for block, window in zip(seen.blocks, made, strict=True):
        block.window.cut(image).addcmul_(window, feather(block, BLOCK_OVERLAP))
        if canvas.bottom * canvas.right > LEAN_PIXELS:
            give_back()
    return seen.cut(image)


def run_block(
    seen: Survey, index: int, condition: Condition, model: Model, options: UpscaleOptions,
    observer: Observer, seed: int, counter: Counter,
) -> Tensor:  # fmt: skip
    """One trajectory: the window of a block as a picture (1, 3, h, w) in [0, 1], on the CPU."""
    net, plan, window = model.backbone, seen.plans[index], seen.blocks[index].window
    z_lr = condition.z_lr
    if observer.whole:
        observer.on_pass(Pass(seen, z_lr, lambda z: seen.cut(net.decode(z, condition))))
    fidelity = model.fidelity(options)
    z_0 = z_lr
    if fidelity < 1:
        sampler = sampler_name(model, options)
        halo = canvas_of(z_lr.shape[-2], z_lr.shape[-1], model, options).halo
        z_0 = masked_sample(
            TiledDenoiser(model, condition, plan, halo, group_of(model, options), counter),
            SAMPLERS[sampler],
            net.schedule,
            plan.timesteps,
            upload(grid_window(seen.attention, window, net.scale), model.device),
            plan.lower_bound,
            z_lr,
            make_draw(z_lr, seed, sampler, window.top, window.left),
            faithful=options.faithful,
            on_step=observer.on_step if observer.whole else None,
        )
    image = net.decode(z_0, condition).float()
    if 0 < fidelity < 1:
        image = drawn_back(image, net.decode(z_lr, condition).float(), fidelity)
    return image.clamp_(0, 1).cpu()


def group_of(model: Model, options: UpscaleOptions) -> int:
    """How many windows go through the network together."""
    if model.device.type == "cpu" or options.exact:
        return 1
    return options.batch or 8


def sampler_name(model: Model, options: UpscaleOptions) -> str:
    """The sampler to use; ``--faithful`` needs an ancestral one and takes ``ddpm`` by default."""
    return options.sampler or ("ddpm" if options.faithful else model.defaults.sampler)
