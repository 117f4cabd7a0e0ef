"""What a result will need, from the header alone: refused or streamed before anything is decoded.

The bound on pixels is the user's to raise; the one on memory is the machine's.
"""

from __future__ import annotations

import contextlib
import sys

import torch

from yoda_cli.devices.memory import free_bytes
from yoda_cli.errors import DeviceError, InputError
from yoda_cli.files import shown
from yoda_cli.upscaling.picture import Item

RESIZE_ONLY = 1.5  # what is left of a scale up to which no further pass of the model is run
DECODED_BYTES = 16  # per input pixel: floats of three channels, and the file's own pixels
REDUCED_BYTES = 6  # the same where the picture stays as bytes
CANVAS_BYTES = 12  # per pixel of the largest canvas: floats of three channels
RESULT_BYTES = 20  # per pixel of the result: floats, integers, and what an encoder holds


def passes_to(scale: float, native: int) -> int:
    """How often a model of the factor ``native`` runs: never for a reduction, once at ×1."""
    if native == 1:
        return int(scale >= 1)
    count, reached = 0, 1.0
    while scale >= 1 and (count == 0 or scale / reached > RESIZE_ONLY):
        count, reached = count + 1, reached * native
    return count


def largest_canvas(width: int, height: int, scale: float, native: int | None) -> int:
    """Pixels of the largest picture on the way to the result; ``native`` None: in one pass."""
    factor = scale if native is None else float(native) ** passes_to(scale, native)
    return max(round(width * factor) * round(height * factor), result_pixels(width, height, scale))


def result_pixels(width: int, height: int, scale: float) -> int:
    """Pixels of the result."""
    return max(1, round(width * scale)) * max(1, round(height * scale))


def check_pixels(
    name: str, size: tuple[int, int], scale: float, native: int | None, bound: int
) -> None:
    """Refuse a result, or a picture on the way to it, of more than ``bound`` pixels."""
    width, height = size
    made = max(1, round(width * scale)), max(1, round(height * scale))
    if made[0] * made[1] > bound:
        what = f"{name} would become {made[0]}×{made[1]} pixels"
    elif scale >= 1 and (canvas := largest_canvas(width, height, scale, native)) > bound:
        what = f"{name} would be made by way of {canvas:,} pixels"
    else:
        return
    raise InputError(f"{what}; the bound is {bound:,}: --max-pixels raises it")


def needed_bytes(item: Item, scale: float, native: int | None) -> int:
    """Memory that one frame takes at once, where the result is not streamed."""
    pixels = item.width * item.height
    result = RESULT_BYTES * result_pixels(item.width, item.height, scale)
    if item.reduces_bytes:
        return REDUCED_BYTES * pixels + result
    canvas = 0 if scale < 1 else largest_canvas(item.width, item.height, scale, native)
    return DECODED_BYTES * pixels + CANVAS_BYTES * canvas + result


def check_memory(item: Item, scale: float, native: int | None) -> None:
    """Refuse a picture that memory will not hold."""
    needed, free = needed_bytes(item, scale, native), free_memory_bytes()
    if needed > free:
        raise DeviceError(
            f"{shown(item.source)} needs about {needed / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free; give --stream or a smaller --scale"
        )


def free_memory_bytes() -> int:
    """What this process can still have: of the machine, and of its own limit on addresses."""
    free = free_bytes(torch.device("cpu"))
    if sys.platform == "linux":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            import psutil

            with contextlib.suppress(psutil.Error):
                free = min(free, limit - psutil.Process().memory_info().vms)
    return max(free, 0)
