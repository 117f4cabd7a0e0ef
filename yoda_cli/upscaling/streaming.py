"""Pictures beyond memory: blocks go to the disk as bytes one by one, and from there, through
pyvips, into the target's format.

Held is one block. The LR picture, its map and the result's bytes wait in files without a name
beside the target. Still pictures of 8 bits without transparency, in one pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from yoda_cli.arrays import add_product, for_inference, like
from yoda_cli.config import UpscaleOptions, WriteOptions
from yoda_cli.devices.memory import Scratch, keep_few_kernels, peak_bytes, reset_peak, trim_heap
from yoda_cli.devices.out_of_memory import Counter
from yoda_cli.errors import WeightsError, how_to_install
from yoda_cli.files import name_write_errors
from yoda_cli.files.overwriting import replacing
from yoda_cli.images import Picture, read_picture, shown
from yoda_cli.images.strips import read_strips
from yoda_cli.images.vips import encode, to_bytes
from yoda_cli.models.calibration import learn
from yoda_cli.models.model import Model
from yoda_cli.tiling.windows import feather
from yoda_cli.upscaling import forecast
from yoda_cli.upscaling.batch.inputs import STREAM
from yoda_cli.upscaling.blocks import begin, picture_seed, run_block
from yoda_cli.upscaling.memory_limits import BLOCK_OVERLAP
from yoda_cli.upscaling.picture import (
    Finished,
    Item,
    resolve_for_picture,
    source_notices,
)
from yoda_cli.upscaling.picture_plan import PicturePlan
from yoda_cli.upscaling.pipeline import exact_kernels, name_memory_errors, pipeline_of
from yoda_cli.upscaling.provenance import provenance
from yoda_cli.upscaling.result import Observer, PassEnd, result_of
from yoda_cli.upscaling.stable_source import hash_of_stable_file

if TYPE_CHECKING:
    from torch import Tensor

    from yoda_cli.upscaling.adaptive import RegionRun

STREAM_PIXELS = 96 << 20  # output pixels above which a picture is streamed: as floats 1.2 GB
STREAM_BLOCK = 512  # smaller than others: 768 is 7 % faster and takes 130 MB more
KINDS = ("PNG", "JPEG", "TIFF")


def can_stream(item: Item, model: Model, options: UpscaleOptions) -> bool:
    """Whether the picture is of a kind that streams, and pyvips is there."""
    native = model.scale
    if not pipeline_of(model).can_stream or STREAM in (item.source, item.target):
        return False
    if item.kind not in KINDS or item.frames > 1 or item.has_alpha or item.bits > 8:
        return False
    if options.scale not in (None, float(native)) or options.faces or options.where:
        return False
    try:
        import pyvips  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def wants_stream(item: Item, model: Model, options: UpscaleOptions) -> bool:
    """Whether a picture is to be streamed: when asked for, or when it is very large."""
    if options.stream is False:
        return False
    if options.stream is None:
        large = item.pixels * model.scale**2 > STREAM_PIXELS or (
            forecast.needed_bytes(item, float(model.scale), forecast.way_of(model))
            > forecast.free_memory_bytes()
        )
        return large and can_stream(item, model, options)
    if not can_stream(item, model, options):
        raise WeightsError(
            f"{shown(item.source)} cannot be streamed: that takes {how_to_install('vips')}, "
            "and a file with a still picture of 8 bits without transparency, at the model's own "
            f"scale and without --faces and --where, to a file of {', '.join(KINDS)}"
        )
    return True


@for_inference
def stream(
    item: Item, model: Model, options: UpscaleOptions, writing: WriteOptions, observer: Observer
) -> Finished:
    """Read, enlarge and write one picture; ``Result.image`` of the record is empty."""
    import torch

    keep_few_kernels()
    reset_peak(model.device)
    began, scratch = time.perf_counter(), Scratch(item.target.parent)
    with name_write_errors(item.target), hash_of_stable_file(item.source) as sha256:
        picture = read_strips(item.source, scratch) or read_picture(
            item.source, as_bytes=True, accept_damaged=item.accept_damaged
        )
        lr = picture.rgb
        height, width = (n * model.backbone.geometry.scale for n in lr.shape[-2:])
        channels = 1 if picture.is_grey else 3
        made = scratch.zeros(height, width, channels, dtype=torch.uint8)  # before the long work
    settings, said = resolve_for_picture(lr, model, in_small_blocks(item.settled(options)))
    notices = picture.notices + source_notices(lr, model, settings) + said
    notices += dropped(item, picture, writing)
    with exact_kernels(settings.tiles.exact), name_memory_errors(), name_write_errors(item.target):
        counter, seed = Counter(observer.on_call), picture_seed(settings.sampling.seed, lr)
        seen, conditions = begin(
            lr, model, settings, counter=counter, keep_bytes=0, scratch=scratch
        )  # fmt: skip
        trim_heap()
        forecast = seen.forecast_seconds or 0.0

        regions: list[RegionRun] = []
        observer.planned(seen, forecast)

        def block(index: int) -> Tensor:
            condition = conditions.take(index)
            made = run_block(seen, index, condition, model, settings, observer, seed, counter)
            regions.extend([made.region] if made.region else [])
            return made.image

        write_blocks(seen, block, made, scratch)
        check = replacing(writing.existing, item.is_ours)
        mark = provenance(model, settings)
        encode(made, picture, item.target, item.kind, mark, writing, check)
    seconds, recovered = time.perf_counter() - began, counter.recovered()
    if not (seen.first.fixed or seen.first.rule or recovered):
        learn(model, forecast, seconds)
    end = PassEnd(
        torch.empty(0), seen, counter.calls, forecast, seconds, recovered, tuple(regions)
    )  # fmt: skip
    result = result_of([end], end.image, seconds)
    return Finished(item.source, item.target, lr, result, (width, height),
                    (*notices, "streamed"), settings, 1, peak_bytes(), sha256)  # fmt: skip


def dropped(item: Item, picture: Picture, writing: WriteOptions) -> tuple[str, ...]:
    """A notice of what the file cannot hold."""
    if item.kind == "TIFF" and picture.metadata.exif and not writing.strip_metadata:
        return ("a streamed TIFF does not keep the picture's EXIF: dropped",)
    return ()


def in_small_blocks(options: UpscaleOptions) -> UpscaleOptions:
    """The options of a streamed run."""
    return replace(options, block=options.block or STREAM_BLOCK)


def with_stream_blocks(item: Item, model: Model, options: UpscaleOptions) -> UpscaleOptions:
    """``options`` with the blocks that the picture will be made in."""
    streamed = wants_stream(item, model, item.settled(options))
    return in_small_blocks(options) if streamed else options


def write_blocks(
    seen: PicturePlan, block: Callable[[int], Tensor], made: Tensor, scratch: Scratch
) -> None:
    """The picture as bytes into ``made`` (H, W, C), block by block.

    The sums are those of ``blend_blocks``, in its order. Held is one block and what it shares with
    its left neighbour, as floats; what it shares with the row above is in scratch.
    """
    import torch

    height, width, channels = made.shape
    rows = [
        list(members) for _, members in groupby(enumerate(seen.blocks), lambda one: one[1].core.top)
    ]
    tops = [row[0][1].window.top for row in rows]
    above = torch.zeros(1, 3, 0, seen.blocks[-1].core.right)
    for row, end in zip(rows, [*tops[1:], height], strict=True):
        top, bottom = row[0][1].window.top, row[0][1].window.bottom
        below = scratch.zeros(1, 3, max(bottom - end, 0), above.shape[-1])
        lefts = [tile.window.left for _, tile in row]
        shared = torch.zeros(1, 3, bottom - top, 0)
        for (index, tile), right in zip(row, [*lefts[1:], width], strict=True):
            window = tile.window
            whole = torch.zeros(1, 3, window.height, window.width)
            whole[..., : above.shape[-2], :] = above[..., window.left : window.right]
            whole[..., : shared.shape[-1]] = shared
            part = block(index)
            add_product(whole, part, like(part, feather(tile, BLOCK_OVERLAP)))
            finished = right - window.left
            below[..., window.left : window.left + finished] = whole[..., end - top :, :finished]
            part = to_bytes(whole[0, :, : end - top, :finished], grey=channels == 1)
            made[top:end, window.left : right] = part
            shared = whole[..., finished:].clone()
            trim_heap()
        above = below
