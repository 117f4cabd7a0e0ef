"""The picture in memory, and colours under transparency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Metadata:
    """What a file carries beside its pixels, orientation already applied."""

    kind: str = "PNG"
    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    xmp: bytes = b""
    text: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """``rgb`` (1, 3, H, W) and ``alpha`` (1, 1, H, W) or None, float32 in [0, 1], not
    premultiplied. ``notices`` are lines for the user."""

    rgb: Tensor
    alpha: Tensor | None = None
    is_grey: bool = False
    bits: int = 8
    metadata: Metadata = field(default_factory=Metadata)
    notices: tuple[str, ...] = ()


def fill_transparent(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Colours under transparent pixels replaced by their visible neighbours', so that enlarging
    bleeds no hidden colour into the edge."""
    weight = alpha.clamp(0, 1)
    colour, known = rgb * weight, weight
    filled = torch.where(weight > 0, rgb, torch.zeros_like(rgb))
    missing = weight == 0
    for _ in range(max(rgb.shape[-2:]).bit_length()):
        if not bool(missing.any()):
            break
        colour, known = (_spread(x) for x in (colour, known))
        reached = missing & (known > 1e-6)
        filled = torch.where(reached, colour / known.clamp(min=1e-6), filled)
        missing = missing & ~reached
    return filled.clamp(0, 1)


def _spread(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 9, 1, 4, count_include_pad=False)
