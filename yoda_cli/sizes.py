"""How large a result is to be: a factor, or a length in pixels, which is a factor per picture."""

from __future__ import annotations

import math
from dataclasses import replace

from yoda_cli.config import UpscaleOptions
from yoda_cli.errors import UsageError

MAX_SCALE = 16.0
LENGTHS = {"width": "w", "height": "h", "short_side": "s", "min_size": "m"}


def check_sizes(options: UpscaleOptions) -> None:
    """Refuse a factor or a length that cannot be meant, and contradicting ones."""
    check_scale(options.scale)
    asked = [name for name in LENGTHS if getattr(options, name) is not None]
    if len(asked) > 1 or (asked and options.scale is not None):
        both = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise UsageError(f"one size is enough: leave out all but one of --scale, {both}")
    for name in asked:
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise UsageError(f"{flag} {getattr(options, name)} is not allowed; give 1 or more")


def check_scale(scale: float | None) -> None:
    """Refuse a factor that is not in (0, 16]."""
    if scale is not None and not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        raise UsageError(f"scale {scale:g} is not allowed; give a number above 0, at most 16")


def scale_for(options: UpscaleOptions, width: int, height: int, native: int) -> float | None:
    """The factor for a picture of width × height pixels; None for the model's own."""
    found = options.scale
    if options.width is not None:
        found = options.width / width
    elif options.height is not None:
        found = options.height / height
    elif options.short_side is not None:
        found = options.short_side / min(width, height)
    elif options.min_size is not None:
        found = max(float(native), options.min_size / min(width, height))
    check_scale(found)
    return found


def with_scale(options: UpscaleOptions, scale: float | None) -> UpscaleOptions:
    """The same, the factor settled."""
    return replace(options, scale=scale, width=None, height=None, short_side=None, min_size=None)


def size_label(options: UpscaleOptions, native: int) -> str:
    """What a folder of results is called by: x4, w2000."""
    for name, letter in LENGTHS.items():
        if (length := getattr(options, name)) is not None:
            return f"{letter}{length}"
    return f"x{options.scale if options.scale is not None else float(native):g}"
