"""The blocks of a picture: each an independent trajectory on a window of the canvas.

Neighbours overlap widely, share the noise and the map, and are blended once. Images are
(1, 3, H, W) float32 in [0, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from yoda_cli.arrays import (
    add_product,
    as_array,
    as_float32,
    blank,
    is_plain,
    like,
    on_cpu,
    zeros,
)
from yoda_cli.attention import LEARNED
from yoda_cli.devices.device import upload
from yoda_cli.devices.memory import Scratch, release_pages, trim_heap
from yoda_cli.devices.out_of_memory import Counter
from yoda_cli.diffusion.noise import make_draw
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.images.fidelity import draw_towards_base
from yoda_cli.images.resize import as_floats
from yoda_cli.models.base import Condition
from yoda_cli.models.model import Model
from yoda_cli.tiling.grids import grid_window, replicated
from yoda_cli.tiling.plan import plan_halo
from yoda_cli.tiling.windows import Tile, feather
from yoda_cli.upscaling.conditioning import attention_map, encode, padded_size
from yoda_cli.upscaling.denoisers import TiledDenoiser
from yoda_cli.upscaling.memory_limits import (
    BLOCK_OVERLAP,
    LEAN_PIXELS,
    check_memory,
    make_blocks,
    overlap_of,
)
from yoda_cli.upscaling.picture_plan import PicturePlan, plan_blocks
from yoda_cli.upscaling.result import Observer, PassBegin
from yoda_cli.upscaling.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from yoda_cli.upscaling.adaptive import RegionRun

HASHED = 1 << 20  # values turned into numbers of 16 bits at once: 4 MB
#: Conditions of all blocks are kept from plan to run up to this, which spares encoding them twice.
#: Chosen: about as much as torch itself takes.
KEPT_BYTES = 400 << 20


def picture_seed(seed: int, lr: Tensor) -> int:
    """One picture's noise seed, from the user's seed and the LR pixels at 16 bits."""
    digest = hashlib.sha256(f"{seed} {tuple(lr.shape)} ".encode())
    together = max(HASHED // lr.shape[-1], 1)
    for plane in lr[0]:
        for top in range(0, plane.shape[0], together):
            rows = as_array(as_floats(plane[top : top + together])).clip(0, 1)
            digest.update((rows * 65535).round().astype(np.int32).tobytes())
            release_pages()
    return int.from_bytes(digest.digest()[:8], "little")


@dataclass(frozen=True)
class Conditions:
    """The encoder's output for every block, kept where there is room, made again where not.

    ``kept`` is filled by ``attention`` and emptied by ``take``.
    """

    lr: Tensor
    model: Model
    settings: Settings
    blocks: Sequence[Tile]
    counter: Counter = field(default_factory=Counter)
    kept: dict[int, Condition] = field(default_factory=dict)
    keep_bytes: int = KEPT_BYTES
    scratch: Scratch = field(default_factory=Scratch)

    def take(self, index: int, *, survey: bool = False) -> Condition:
        """For one block; not kept any longer. In a ``survey`` its attention alone will be read."""
        if index in self.kept:
            return self.kept.pop(index)
        window = self.blocks[index].window.divided(self.model.backbone.geometry.scale)
        lr = as_floats(replicated(self.lr, window))  # a canvas is larger than lr, by padding
        return encode(lr, self.model, self.settings, self.counter, survey=survey)

    def attention(self) -> Tensor | None:
        """The learned map of the whole picture, if the network has one.

        What was encoded for it is kept for the run where all of it can be.
        """
        scale = self.model.backbone.geometry.scale
        shape = (1, 1, *padded_size(self.lr, self.model))
        canvas = zeros(self.lr, *shape) if self.model.is_plain else self.scratch.zeros(*shape)
        keeps = True
        for index, block in enumerate(self.blocks):
            condition = self.take(index, survey=not keeps)
            if condition.attention is None:
                return None
            block.divided(scale).paste(canvas, on_cpu(as_float32(condition.attention)))
            keeps = keeps and self._may_keep(condition)
            if keeps:
                self.kept[index] = condition
            else:
                trim_heap()
        return canvas

    def _may_keep(self, condition: Condition) -> bool:
        """Whether all blocks' conditions may be kept, by that of one."""
        count = len(self.blocks)
        return count == 1 or bytes_of(condition) * count <= self.keep_bytes


def bytes_of(condition: Condition) -> int:
    """Memory that the maps of a condition hold, nearly all of what it holds."""
    if any(is_plain(kept) for kept in condition.maps.values()):
        return sum(kept.nbytes for kept in condition.maps.values())
    tensors = {t.untyped_storage().data_ptr(): t for t in condition.maps.values()}
    return sum(t.untyped_storage().nbytes() for t in tensors.values())


def begin(
    lr: Tensor, model: Model, settings: Settings, attention: Tensor | None = None, *,
    counter: Counter | None = None, keep_bytes: int = KEPT_BYTES, scratch: Scratch | None = None,
    wanted: Tensor | None = None,
) -> tuple[PicturePlan, Conditions]:  # fmt: skip
    """The plan of a pass, and what was encoded for it if that is not above ``keep_bytes``.

    ``lr`` (1, 3, h, w) may be bytes; the learned map is put in ``scratch``. ``attention`` on its
    grid takes the place of the source's map. Tiles that nothing ``wanted`` (1, 1, h, w) lies in are
    idle.
    """
    geometry = model.backbone.geometry
    height, width = (n * geometry.scale for n in padded_size(lr, model))
    blocks = make_blocks(height, width, geometry.align, settings.tiles.block, overlap_of(model))
    check_memory(blocks, model)
    conditions = Conditions(
        upload(lr, model.device), model, settings, blocks, counter or Counter(),
        keep_bytes=keep_bytes, scratch=scratch or Scratch(),
    )  # fmt: skip
    again = False
    if model.is_plain and not settings.refines:  # nothing is diffused, and nobody is shown the map
        attention = blank(as_floats(lr[..., :1, :1]), 1, 1, *lr.shape[-2:])
    if attention is None and settings.mask.source == LEARNED and not settings.mask.heads:
        attention = conditions.attention()
        again = attention is not None and not conditions.kept
    if attention is None:  # or say why there is none
        attention = attention_map(as_floats(lr), model, settings)
    attention = attention[..., : lr.shape[-2], : lr.shape[-1]]
    plan = plan_blocks(lr, attention, blocks, model, settings, wanted, encoded_again=again)
    return plan, conditions


@dataclass(frozen=True)
class BlockEnd:
    """The window of a block as a picture (1, 3, h, w) in [0, 1], on the CPU; how it was made, where
    it decided on its way."""

    image: Tensor
    region: RegionRun | None = None


def run_block(
    plan: PicturePlan, index: int, condition: Condition, model: Model, settings: Settings,
    observer: Observer, seed: int, counter: Counter,
) -> BlockEnd:  # fmt: skip
    """One trajectory."""
    net, tiles, window = model.backbone, plan.plans[index], plan.blocks[index].window
    if settings.sampling.adaptive is not None and settings.refines:
        (made,) = run_regions(plan, [index], [condition], model, settings, observer, seed, counter)
        return made
    sampling, z_lr = settings.sampling, condition.z_lr
    if observer.whole:
        observer.on_pass(PassBegin(plan, z_lr, lambda z: plan.cut(net.decode(z, condition))))
    z_0 = z_lr
    if settings.refines:
        halo = plan_halo(net.geometry, settings.tiles)
        attention = grid_window(plan.attention, window, net.geometry.scale)
        z_0 = masked_sample(
            TiledDenoiser(model, condition, tiles, halo, settings.group, counter),
            sampling.sampler.step,
            net.schedule,
            tiles.timesteps,
            AttentionMask(
                upload(attention, model.device), tiles.lower_bound, net.schedule.num_steps
            ),
            z_lr,
            make_draw(z_lr, seed, sampling.sampler, window.top, window.left, upload=upload),
            faithful=settings.mask.faithful,
            on_step=observer.on_step if observer.whole else None,
        )
    return BlockEnd(picture_of(z_0, condition, model, settings))


def run_regions(
    plan: PicturePlan, indices: Sequence[int], conditions: Sequence[Condition], model: Model,
    settings: Settings, observer: Observer, seed: int, counter: Counter,
) -> list[BlockEnd]:  # fmt: skip
    """Blocks that decide on their way, those at the same time together."""
    from yoda_cli.upscaling.adaptive import Region, measured, sample_regions

    net, adaptive = model.backbone, settings.sampling.adaptive
    assert adaptive is not None
    halo = plan_halo(net.geometry, settings.tiles)
    regions = []
    for index, condition in zip(indices, conditions, strict=True):
        tiles, window = plan.plans[index], plan.blocks[index].window
        regions.append(
            Region(
                window,
                plan.size,
                grid_window(plan.attention, window, net.geometry.scale),
                tiles,
                TiledDenoiser(model, condition, tiles, halo, settings.group, counter),
                partial(_decoded, condition=condition, model=model),
            )
        )
    made = sample_regions(
        regions, settings.sampling, adaptive.rule, model.judge_of or measured, seed
    )  # fmt: skip
    return [
        BlockEnd(picture_of(z_0, condition, model, settings), run)
        for (z_0, run), condition in zip(made, conditions, strict=True)
    ]


def _decoded(z: Tensor, condition: Condition, model: Model) -> Tensor:
    return model.backbone.decode(z, condition)


def picture_of(z_0: Tensor, condition: Condition, model: Model, settings: Settings) -> Tensor:
    """The end of a trajectory as a picture, drawn towards the unrefined one as was asked."""
    net, fidelity = model.backbone, settings.sampling.fidelity
    image = as_float32(net.decode(z_0, condition))
    if settings.refines and fidelity > 0:
        base = as_float32(net.decode(condition.z_lr, condition))
        image = draw_towards_base(image, base, fidelity)
    return on_cpu(image.clip(0, 1))


def blend_blocks(plan: PicturePlan, made: Iterable[Tensor]) -> Tensor:
    """The picture (1, 3, H, W) from its blocks, in their order, one in memory at a time."""
    if len(plan.blocks) == 1:
        (only,) = made
        return plan.cut(only)
    canvas = plan.blocks[-1].core
    image: Tensor | None = None
    for block, window in zip(plan.blocks, made, strict=True):
        image = zeros(window, 1, 3, canvas.bottom, canvas.right) if image is None else image
        weights = like(window, feather(block, BLOCK_OVERLAP))
        add_product(block.window.cut(image), window, weights)
        if canvas.bottom * canvas.right > LEAN_PIXELS:
            trim_heap()
    assert image is not None
    return plan.cut(image)
