"""What the loop is given for one picture: the encoded condition, and the attention map.

Images and maps on the LR grid are (1, C, h, w) in [0, 1]; padding repeats border pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from yoda_cli.arrays import as_float32, is_blank, on_cpu, spread, zeros
from yoda_cli.attention import LEARNED
from yoda_cli.attention.sources import find_source
from yoda_cli.config import MIN_TILE
from yoda_cli.devices.device import upload
from yoda_cli.devices.out_of_memory import Counter, run_with_less_memory
from yoda_cli.errors import UsageError
from yoda_cli.models.base import Condition
from yoda_cli.models.model import Model
from yoda_cli.tiling.grids import replicate
from yoda_cli.tiling.windows import Tile, halves, rounded_up
from yoda_cli.upscaling.memory_limits import encoder_halo, encoder_tiles
from yoda_cli.upscaling.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor


def encode(
    lr: Tensor, model: Model, settings: Settings, counter: Counter | None = None, *,
    survey: bool = False,
) -> Condition:  # fmt: skip
    """The condition of the whole picture, computed tile by tile where it is large.

    In a ``survey`` its attention alone will be read. Where memory runs out the same tile is tried
    again, then its halves; ``counter`` is told.
    """
    net, geometry = model.backbone, model.backbone.geometry
    encoded = net.survey if survey else net.encode if settings.refines else net.encode_base
    height, width = (n * geometry.scale for n in lr.shape[-2:])
    parts: list[tuple[Tile, Condition]] = []

    def work(tiles: Sequence[Tile]) -> None:
        (tile,) = tiles
        with model.context():
            small = tile.window.divided(geometry.scale).cut(lr)
            parts.append((tile, encoded(small, settings.sampling.strength)))

    def smaller(tile: Tile) -> Sequence[Tile]:
        if max(tile.core.height, tile.core.width) <= max(MIN_TILE, geometry.align):
            return ()
        return halves(tile, encoder_halo(geometry), geometry.align, height, width)

    def refusal(tile: Tile) -> str:
        return f"out of memory on {model.device} while encoding the smallest tile"

    restored = settings.sampling.strength > net.restores_from and not survey
    for tile in encoder_tiles(height, width, model, settings.tiles, restored=restored):
        run_with_less_memory([tile], work, smaller, counter or Counter(), refusal)
    return parts[0][1] if len(parts) == 1 else stitch(parts, height, width)


def stitch(parts: Sequence[tuple[Tile, Condition]], height: int, width: int) -> Condition:
    """One condition of (height, width) from the cores of many."""
    first = parts[0][1]

    def join(pick: Callable[[Condition], Tensor]) -> Tensor:
        sample = pick(first)
        if is_blank(sample):  # one number for the whole picture
            return spread(sample[..., :1, :1], *sample.shape[:2], height, width)
        factor = parts[0][0].window.bottom // sample.shape[-2]
        canvas = zeros(sample, *sample.shape[:2], height // factor, width // factor)
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


def learned_map(lr: Tensor, model: Model, settings: Settings) -> Tensor | None:
    """The checkpoint's own attention, tile by tile; nothing else of the encoder is kept."""
    scale = model.backbone.geometry.scale
    padded = replicate(upload(lr, model.device), *padded_size(lr, model))
    canvas = zeros(padded, 1, 1, *padded.shape[-2:])
    height, width = (n * scale for n in padded.shape[-2:])
    for tile in encoder_tiles(height, width, model, settings.tiles):
        with model.context():
            small = tile.window.divided(scale).cut(padded)
            condition = model.backbone.survey(small, settings.sampling.strength)
        if condition.attention is None:
            return None
        tile.divided(scale).paste(canvas, condition.attention)
    return canvas


def attention_map(lr: Tensor, model: Model, settings: Settings) -> Tensor:
    """A on the LR grid, (1, 1, h, w) in [0, 1], from the source asked for."""
    source, heads = settings.mask.source, settings.mask.heads or None
    if source != LEARNED:
        return find_source(source, heads, model.device).attend(lr)
    if heads is not None:
        raise UsageError("the learned attention has no heads")
    learned = learned_map(lr, model, settings)
    if learned is None:
        raise UsageError(f"model {model.name} has no learned attention; use another source")
    return on_cpu(as_float32(learned[..., : lr.shape[-2], : lr.shape[-1]]))


def padded_size(lr: Tensor, model: Model) -> tuple[int, int]:
    """Height and width of ``lr``, rounded up to what the network's stride divides."""
    stride = model.backbone.geometry.stride
    return rounded_up(lr.shape[-2], stride), rounded_up(lr.shape[-1], stride)
