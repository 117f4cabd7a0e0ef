"""What fits into memory: the largest window of a call, blocks of a canvas, encoder tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from yoda_cli.config import MIN_TILE
from yoda_cli.devices.memory import free_bytes
from yoda_cli.errors import DeviceError
from yoda_cli.models.model import Model
from yoda_cli.tiling.geometry import Geometry
from yoda_cli.tiling.plan import EXACT_TILE, TileChoice, grid_tiles
from yoda_cli.tiling.windows import Tile, Window, make_tiles, rounded_up, with_halo

# All in output pixels, if not said otherwise. Sizes of blocks and windows were chosen with
# `scripts/benchmark.py PHOTOS --part sizes` (seconds a megapixel against size) and `--part memory`.

#: Above this a run is lean: it uses little memory and takes more time.
LEAN_PIXELS = 16 << 20
#: A canvas up to this is one block; a larger one that is not lean is cut into blocks of so many.
#: At 1.5 megapixels the overlaps of blocks alone cost 8 % of the time.
WHOLE_PIXELS = 4 << 20
#: The core of a block in a lean run.
LEAN_BLOCK = 3 << 19
#: A block of WHOLE_PIXELS with what it shares with its neighbours.
WHOLE_WINDOW = 17 << 18
#: On every side of a block's core; half of it is blended. With 16 a cut picture lies at
#: 52 dB from the uncut one, with 32 at 57.
BLOCK_OVERLAP = 32
#: The largest window of one network call: in a lean run, in any other, and as a share of a block
#: (half of it in whole cells and with a halo, so that two calls do a step), whichever is more.
LARGEST_WINDOW = 768 * 1024
LARGEST_QUICK = 7 << 18
HALF = 0.54
#: Of the free memory one call may take so much; the rest is the canvas, its noise and its estimate.
SHARE_OF_FREE = 1 / 4
#: The encoder runs once, so its tiles may see three halos far, where a step's see one, and it works
#: on the LR grid: it takes five times the pixels of a network call in the same memory.
ENCODER_HALOS = 3
ENCODED_TOGETHER = 5
#: Of what is restored on the way, in pictures whose other calls are smaller: halos cost a third of
#: the time there, with half of this they would cost half.
RESTORED_TOGETHER = 2
#: The core of an exact run's tiles there: twice that of its other calls, for the same reason.
EXACT_RESTORED = 2 * EXACT_TILE
#: Bytes per output pixel of state, noise, estimate and condition. It refuses a block, so it is less
#: than half of what one holds in fp32 (219, `scripts/measure_constants.py CANVAS_BYTES`): only what
#: surely cannot end is refused.
CANVAS_BYTES = 100


def largest_window(model: Model, pixels: int, *, lean: bool = False) -> float:
    """Pixels that one network call may have on a canvas of ``pixels``: what a quarter of the free
    memory holds, at most the constants above."""
    free = free_bytes(model.device) * SHARE_OF_FREE / model.backbone.geometry.pixel_bytes
    half = HALF * pixels if pixels <= WHOLE_WINDOW else 0
    most = LARGEST_WINDOW if lean else max(LARGEST_QUICK, half)
    return max(min(free, most), MIN_TILE**2)


def check_memory(blocks: Sequence[Tile], model: Model) -> None:
    """Refuse blocks whose canvas alone needs more memory than there is."""
    largest = max(block.window.pixels for block in blocks)
    needed, free = largest * CANVAS_BYTES, free_bytes(model.device)
    if needed > free:
        raise DeviceError(
            f"a block of {largest:,} pixels needs about {needed / 1e9:.1f} GB on {model.device}, "
            f"and {free / 1e9:.1f} GB are free; leave --block at auto"
        )


def encoder_tiles(
    height: int, width: int, model: Model, asked: TileChoice, *, restored: bool = False
) -> list[Tile]:
    """The windows in which a canvas is encoded, once: as large as memory allows.

    What is ``restored`` on the way looks farther than the encoder does.
    """
    geometry = model.backbone.geometry
    if asked.exact:
        far = encoder_halo(geometry) if restored else geometry.halo
        farther = replace(geometry, halo=max(far, geometry.base_halo))
        if restored and asked.core is None:
            asked = replace(asked, core=EXACT_RESTORED)
        return grid_tiles(height, width, farther, asked)
    whole = height * width <= WHOLE_WINDOW
    together = ENCODED_TOGETHER if whole else RESTORED_TOGETHER if restored else 1
    side = int(math.sqrt(together * largest_window(model, height * width, lean=not whole)))
    core = 0 if height * width <= side * side else side
    halo = encoder_halo(geometry)
    return make_tiles(height, width, core=core, halo=halo, align=geometry.align)


def encoder_halo(geometry: Geometry) -> int:
    """Output pixels around the core of an encoder's tile, on the grid."""
    return rounded_up(max(ENCODER_HALOS * geometry.halo, geometry.base_halo), geometry.align)


def make_blocks(
    height: int, width: int, align: int, block: int | None, overlap: int = BLOCK_OVERLAP
) -> list[Tile]:
    """Cores that partition a canvas, each with the window of an independent trajectory.

    ``block`` is their side in pixels: 0 for one block, None for what suits the canvas. Edges lie
    on multiples of ``align``; a window reaches ``overlap`` pixels beyond its core.
    """
    if block == 0 or (block is None and height * width <= WHOLE_PIXELS):
        return make_tiles(height, width, core=0, halo=0, align=align)
    pixels = WHOLE_PIXELS if height * width <= LEAN_PIXELS else LEAN_BLOCK
    side = block or math.isqrt(pixels)
    rows = _even(height, side, align)
    columns = _even(width, side if block else pixels // min(rows, height), align)
    cores = [
        Window(top, left, min(top + rows, height), min(left + columns, width))
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]
    return [with_halo(core, rounded_up(overlap, align), height, width) for core in cores]


def overlap_of(model: Model) -> int:
    """Pixels of a block's window on every side of its core.

    A network of one call has nothing to gain from noise shared with a neighbour, but what it saw
    too little of must not be blended in.
    """
    geometry = model.backbone.geometry
    if not model.diffuses:
        return BLOCK_OVERLAP // 2 + geometry.halo
    return max(BLOCK_OVERLAP, BLOCK_OVERLAP // 2 + geometry.base_halo)


def _even(size: int, largest: int, align: int) -> int:
    """The length of equal parts of ``size``, on the grid, none far above ``largest``.

    The last part is never shorter than the overlap of two blocks.
    """
    count = -(-size // largest)
    part = rounded_up(-(-size // count), align)
    while count > 1 and size - (count - 1) * part < 2 * BLOCK_OVERLAP:
        count -= 1
        part = rounded_up(-(-size // count), align)
    return part
