"""The picture in memory, and colours under transparency. Knows no file.

Values are float32 in [0, 1]; transparency is straight (not premultiplied).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.arrays import Array, as_array, like, where, zeros
from yoda_cli.tiling.grids import bilinear

if TYPE_CHECKING:
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
    """``rgb`` (1, 3, H, W), as bytes where that was asked for, and ``alpha`` (1, 1, H, W) or None:
    tensors of torch, or NumPy's arrays.

    ``is_grey``: the picture has no colour (its file may still store three channels). ``bits`` is 8
    or 16. ``notices`` are lines for the user about what reading changed.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    is_grey: bool = False
    bits: int = 8
    metadata: Metadata = field(default_factory=Metadata)
    notices: tuple[str, ...] = ()


def as_tensors(picture: Picture) -> Picture:
    """A picture of NumPy's arrays as one of torch, in the same memory."""
    import torch

    alpha = None if picture.alpha is None else torch.from_numpy(picture.alpha)
    return replace(picture, rgb=torch.from_numpy(picture.rgb), alpha=alpha)


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
        return zeros(rgb, *rgb.shape)
    # The noise depends on every bit of the colours: they are computed in one way for all runtimes.
    seen = as_array(alpha)
    filled = _pull_push(as_array(rgb) * seen, seen)
    return where(visible, rgb, like(rgb, filled))


def _pull_push(colour: Array, weight: Array) -> Array:
    """(…, H, W) colours where the weight is 0 taken from coarser and coarser averages.

    ``colour`` is premultiplied by ``weight``.
    """
    known = weight > 0
    own: Array = colour / np.where(known, weight, np.float32(1))
    if known.all():
        return own
    coarse = cast("Tensor", _pull_push(_halved(colour), _halved(weight)))
    larger = as_array(bilinear(coarse, (colour.shape[-2], colour.shape[-1])))
    return np.where(known, own, larger)


def _halved(x: Array) -> Array:
    """Means of 2×2 pixels; at odd borders of those that there are."""
    one = np.ones((1, 1, *x.shape[-2:]), np.float32)
    means: Array = _sums_of_four(x) / _sums_of_four(one)
    return means


def _sums_of_four(x: Array) -> Array:
    rows, columns = (np.arange(0, length, 2) for length in x.shape[-2:])
    return cast(Array, np.add.reduceat(np.add.reduceat(x, rows, -2), columns, -1))
