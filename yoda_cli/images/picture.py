"""The picture in memory, and colours under transparency. Knows no file.

Values are float32 in [0, 1]; transparency is straight (not premultiplied).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

ANIMATED = ("PNG", "WEBP", "GIF", "AVIF")
GREY_MODES = ("1", "L", "LA", "La", "F")  # and "I", "I;16", …


@dataclass(frozen=True)
class Metadata:
    """What a file carries beside its pixels, orientation already applied.

    ``kind`` is the file format (PNG, JPEG, …), ``mode`` how the file stored its pixels in Pillow's
    terms ("RGB", "P", "I;16", "CMYK"; "" without a file). ``exif`` starts with the six bytes
    "Exif\\0\\0" and says orientation 1. ``dpi`` is (x, y). ``is_lossless``: the file was WebP that
    lost nothing.
    """

    kind: str = "PNG"
    mode: str = ""
    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    xmp: bytes = b""
    text: Mapping[str, str] = field(default_factory=dict)
    comment: bytes = b""
    is_lossless: bool = False


@dataclass(frozen=True)
class Picture:
    """``rgb`` (1, 3, H, W), as bytes where that was asked for, and ``alpha`` (1, 1, H, W) or None.

    ``is_grey``: the picture has no colour (its file may still store three channels). ``bits`` is 8
    or 16. ``notices`` are lines for the user about what reading changed.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    is_grey: bool = False
    bits: int = 8
    metadata: Metadata = field(default_factory=Metadata)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Animation:
    """Frames of one size, how long each is shown, how often all are (0: for ever)."""

    frames: tuple[Picture, ...]
    milliseconds: tuple[float, ...]
    plays: int = 0


def stores_one_channel(picture: Picture) -> bool:
    """Whether a file of this picture keeps grey as one channel, as its source did.

    Palettes and pictures of no file go by their content, unless they carry an RGB profile: that
    describes no one-channel picture.
    """
    metadata = picture.metadata
    if metadata.mode in ("", "P"):
        return picture.is_grey and metadata.icc[16:20] != b"RGB "
    return picture.is_grey and (metadata.mode in GREY_MODES or metadata.mode.startswith("I"))


def fill_transparent(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Colours under fully transparent pixels replaced by those of visible neighbours.

    Enlarging the result bleeds no hidden colour (often black) into the visible edge. Pixels with
    any opacity keep their colour. With nothing visible at all everything is black.
    """
    visible = alpha > 0
    if bool(visible.all()):
        return rgb
    if not bool(visible.any()):
        return torch.zeros_like(rgb)
    return torch.where(visible, rgb, _pull_push(rgb * alpha, alpha))


def _pull_push(colour: Tensor, weight: Tensor) -> Tensor:
    """(…, H, W) colours where the weight is 0 taken from coarser and coarser averages.

    ``colour`` is premultiplied by ``weight``.
    """
    known = weight > 0
    own = colour / torch.where(known, weight, torch.ones_like(weight))
    if bool(known.all()):
        return own
    coarse = _pull_push(*(F.avg_pool2d(x, 2, ceil_mode=True) for x in (colour, weight)))
    near = F.interpolate(coarse, colour.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known, own, near)
