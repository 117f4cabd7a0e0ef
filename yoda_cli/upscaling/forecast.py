"""What a result will need, from the header alone: refused or streamed before anything is decoded.

The bound on pixels is the user's to raise; the one on memory is the machine's.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

from yoda_cli.devices.memory import available_bytes
from yoda_cli.errors import DeviceError, InputError
from yoda_cli.files import shown
from yoda_cli.models.model import Model
from yoda_cli.upscaling.picture import Item
from yoda_cli.upscaling.pipeline import RESIZE_ONLY, pipeline_of

# What decides are large pictures: 10000² of 16 bits took 11 bytes a pixel to be reduced, a WebP of
# 16383² 4. Of 1 to 6 megapixels `scripts/measure_constants.py DECODED_BYTES` reads 24, 12, 23, 27
# and 16 for the first four and the last of these, with what the C library keeps.
DECODED_BYTES = 16  # per input pixel: floats of three channels, and the file's own pixels
REDUCED_BYTES = 9  # the same where the picture stays as bytes; measured: 5 of GIF, 8 of others
WEBP_BYTES = 18  # and of WebP, whose decoder holds the picture twice
DEEP_BYTES = 25  # and of more than 8 bits, which are floats after all
CANVAS_BYTES = 12  # per pixel of the largest canvas: floats of three channels
LATENT_BYTES = 50  # of latents; counted: restored, encoded, decoded, corrected, and a map of bytes
RESULT_BYTES = 20  # per pixel of the result: floats, integers, and what an encoder holds

FRAMES_TOGETHER = 10  # times the bound of a frame


def passes_to(scale: float, native: int) -> int:
    """How often a model of the factor ``native`` runs: never for a reduction, once at ×1."""
    if native == 1:
        return int(scale >= 1)
    count, reached = 0, 1.0
    while scale >= 1 and (count == 0 or scale / reached > RESIZE_ONLY):
        count, reached = count + 1, reached * native
    return count


@dataclass(frozen=True)
class Way:
    """How a model gets to a size: by passes of the factor ``native``, or (None) in one pass on a
    picture whose sides are at least ``shortest``."""

    native: int | None
    shortest: int = 0


def way_of(model: Model) -> Way:
    """What there is to know of a model for a forecast."""
    if pipeline_of(model).one_pass and model.family is not None:
        return Way(None, model.family.settings.shortest)
    return Way(model.scale)


def size_of(width: int, height: int, scale: float) -> tuple[int, int]:
    """(width, height) of the result."""
    return max(1, round(width * scale)), max(1, round(height * scale))


def largest_canvas(width: int, height: int, scale: float, way: Way) -> int:
    """Pixels of the largest picture on the way to the result."""
    wide, tall = size_of(width, height, scale)
    if way.native is None:
        larger = max(1.0, way.shortest / min(wide, tall))
        return round(wide * larger) * round(tall * larger)
    factor = float(way.native) ** passes_to(scale, way.native)
    return max(round(width * factor) * round(height * factor), wide * tall)


def check_pixels(
    name: str, size: tuple[int, int], scale: float, way: Way, bound: int, *, frames: int = 1
) -> None:
    """Refuse a result, or a picture on the way to it, of more than ``bound`` pixels.

    All frames of an animation together may have ``FRAMES_TOGETHER`` times as many.
    """
    width, height = size_of(*size, scale)
    canvas = largest_canvas(*size, scale, way)
    raising = f"the bound is {bound:,}: --max-pixels raises it"
    if width * height > bound:
        raise InputError(f"{name} would become {width}×{height} pixels; {raising}")
    if (scale >= 1 or way.native is None) and canvas > bound:
        raise InputError(f"{name} would be made by way of {canvas:,} pixels; {raising}")
    if width * height * frames > bound * FRAMES_TOGETHER:
        raise InputError(
            f"{name} would become {frames} frames of {width}×{height} pixels; {raising}, of all "
            f"frames together it is {FRAMES_TOGETHER} times as much"
        )


def needed_bytes(item: Item, scale: float, way: Way, kind: str = "") -> int:
    """Memory that one frame takes at once, where the result is not streamed; ``kind`` is that of
    the source."""
    pixels = item.width * item.height
    wide, tall = size_of(item.width, item.height, scale)
    result = RESULT_BYTES * wide * tall
    if item.reduces_bytes:
        read = DEEP_BYTES if item.bits > 8 else WEBP_BYTES if kind == "WEBP" else REDUCED_BYTES
        return read * pixels + result
    is_reduced = scale < 1 and way.native is not None
    canvas = 0 if is_reduced else largest_canvas(item.width, item.height, scale, way)
    bytes_each = CANVAS_BYTES if way.native is not None else LATENT_BYTES
    return DECODED_BYTES * pixels + bytes_each * canvas + result


def check_memory(item: Item, scale: float, way: Way, kind: str = "") -> None:
    """Refuse a picture that memory will not hold."""
    needed, free = needed_bytes(item, scale, way, kind), free_memory_bytes()
    if needed > free:
        less = "free some" if item.is_reduced else "give --stream or a smaller --scale"
        raise DeviceError(
            f"{shown(item.source)} needs about {needed / 1e9:.2g} GB of memory and "
            f"{free / 1e9:.2g} GB are free; {less}"
        )


def free_memory_bytes() -> int:
    """What this process can still have: of the machine, and of its own limit on addresses."""
    free = available_bytes()
    if sys.platform == "linux":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            import psutil

            with contextlib.suppress(psutil.Error):
                free = min(free, limit - psutil.Process().memory_info().vms)
    return max(free, 0)
