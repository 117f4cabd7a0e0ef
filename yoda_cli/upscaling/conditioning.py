"""What the loop is given for one picture: tiles, the encoded condition, the attention map.

Images and maps on the LR grid are (1, C, h, w) in [0, 1]; padding repeats border pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from yoda_cli.attention import LEARNED
from yoda_cli.attention.sources import find_source
from yoda_cli.config import UpscaleOptions
from yoda_cli.devices.device import upload
from yoda_cli.devices.out_of_memory import Counter, free_memory, is_out_of_memory
from yoda_cli.errors import DeviceError, UsageError
from yoda_cli.models import Condition
from yoda_cli.models.model import Model
from yoda_cli.tiling.grids import replicate
from yoda_cli.tiling.plan import MIN_TILE
from yoda_cli.tiling.windows import Tile, halves, rounded_up
from yoda_cli.upscaling.memory_limits import ENCODER_HALOS, encoder_tiles


def encode(
    lr: Tensor, model: Model, options: UpscaleOptions, counter: Counter | None = None
) -> Condition:
    """The condition of the whole picture, computed tile by tile where it is large.

    Where memory runs out the same tile is tried again, then its halves; ``counter`` is told.
    """
    net = model.backbone
    height, width = (n * net.scale for n in lr.shape[-2:])
    tiles = encoder_tiles(height, width, model, options)
    parts = [
        part for tile in tiles for part in _encoded(tile, lr, model, options, counter or Counter())
    ]
    return parts[0][1] if len(parts) == 1 else joined(parts, height, width)


def _encoded(
    tile: Tile, lr: Tensor, model: Model, options: UpscaleOptions, counter: Counter
) -> list[tuple[Tile, Condition]]:
    """The tile, or what it had to be cut into, each with its condition."""
    net = model.backbone
    for again in (False, True):
        try:
            with model.context():
                small = tile.window.divided(net.scale).cut(lr)
                condition = net.encode(small, options.denoise or 0.0)
            counter.repeated += int(again)
            return [(tile, condition)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        free_memory()
    align = net.stride * net.scale
    if max(tile.core.height, tile.core.width) <= max(MIN_TILE, align):
        raise DeviceError(f"out of memory on {model.device} while encoding the smallest tile")
    counter.smaller_tiles += 1
    height, width = (n * net.scale for n in lr.shape[-2:])
    halo = rounded_up(ENCODER_HALOS * net.halo, align)
    cut = halves(tile, halo, align, height, width)
    return [part for half in cut for part in _encoded(half, lr, model, options, counter)]


def joined(parts: Sequence[tuple[Tile, Condition]], height: int, width: int) -> Condition:
    """One condition from the cores of many."""
    first = parts[0][1]

    def join(pick: Callable[[Condition], Tensor]) -> Tensor:
        sample = pick(first)
        if not any(sample.stride()):  # one number for the whole picture
            return sample[..., :1, :1].expand(*sample.shape[:2], height, width)
        factor = parts[0][0].window.bottom // sample.shape[-2]
        canvas = sample.new_empty(*sample.shape[:2], height // factor, width // factor)
        for tile, condition in parts:
            tile.divided(factor).paste(canvas, pick(condition))
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


def learned_map(lr: Tensor, model: Model, options: UpscaleOptions) -> Tensor | None:
    """The checkpoint's own attention, tile by tile; nothing else of the encoder is kept."""
    net = model.backbone
    padded = replicate(upload(lr, model.device), *strided(lr, model))
    canvas = padded.new_empty(1, 1, *padded.shape[-2:])
    height, width = (n * net.scale for n in padded.shape[-2:])
    for tile in encoder_tiles(height, width, model, options):
        with model.context():
            condition = net.encode(
                tile.window.divided(net.scale).cut(padded), options.denoise or 0.0
            )
        if condition.attention is None:
            return None
        tile.divided(net.scale).paste(canvas, condition.attention)
    return canvas


def attention_map(
    lr: Tensor, condition: Condition | None, model: Model, options: UpscaleOptions
) -> Tensor:
    """A on the LR grid, (1, 1, h, w) in [0, 1], from the source asked for."""
    name = options.attention or model.defaults.attention
    if name == LEARNED:
        learned = condition.attention if condition else learned_map(lr, model, options)
        if learned is None:
            raise UsageError(f"model {model.name} has no learned attention; use another source")
        if options.heads is not None:
            raise UsageError("the learned attention has no heads")
        return learned[..., : lr.shape[-2], : lr.shape[-1]].float().cpu()
    return find_source(name, options.heads, model.device).attend(lr)


def strided(lr: Tensor, model: Model) -> tuple[int, int]:
    """Height and width of ``lr``, rounded up to what the network's stride divides."""
    stride = model.backbone.stride
    return rounded_up(lr.shape[-2], stride), rounded_up(lr.shape[-1], stride)
