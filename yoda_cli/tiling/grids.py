"""Pictures and maps from one grid to another: padding, bilinear enlargement, windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from yoda_cli.arrays import Array, as_array, is_plain, taken
from yoda_cli.tiling.windows import Window

if TYPE_CHECKING:
    from torch import Tensor


def to_grid(attention: Tensor, height: int, width: int, scale: int) -> Tensor:
    """A from the LR grid, padded to (height, width) like the picture, to the diffusion grid."""
    padded = replicate(attention, height, width)
    return bilinear(padded, (height * scale, width * scale)).clip(0, 1)


def grid_window(attention: Tensor, window: Window, scale: int) -> Tensor:
    """The part of ``to_grid`` of the whole map that a window of output pixels sees."""
    small = window.divided(scale)
    top, left = max(small.top - 1, 0), max(small.left - 1, 0)  # what bilinear weights reach
    cut = replicated(attention, Window(top, left, small.bottom + 1, small.right + 1))
    grown = bilinear(cut, (cut.shape[-2] * scale, cut.shape[-1] * scale)).clip(0, 1)
    return window.within(Window(top * scale, left * scale, 0, 0)).cut(grown)


def replicate(x: Tensor, height: int, width: int) -> Tensor:
    """``x`` with its last row and column repeated up to (height, width)."""
    return replicated(x, Window(0, 0, height, width))


def replicated(x: Tensor, window: Window) -> Tensor:
    """A copy of a window that may reach beyond the last row and column of ``x``: they repeat."""
    cut = x[..., min(window.top, x.shape[-2] - 1) : window.bottom, :]  # of the rest nothing is read
    cut = cut[..., min(window.left, x.shape[-1] - 1) : window.right]
    rows = np.arange(window.height).clip(max=cut.shape[-2] - 1)
    cols = np.arange(window.width).clip(max=cut.shape[-1] - 1)
    return taken(taken(cut, -2, rows), -1, cols)


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``x`` (1, C, h, w) enlarged to ``size``; pixel centres at half-integers, borders repeated."""
    if is_plain(x):
        made = as_array(x)
        for axis in (-1, -2):
            made = _between(made, axis, size[axis])
        return cast("Tensor", made)
    import torch.nn.functional as F

    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _between(x: Array, axis: int, count: int) -> Array:
    """``count`` values, evenly over an axis."""
    length = x.shape[axis]
    at = ((np.arange(count) + 0.5) * (length / count) - 0.5).clip(0, length - 1)
    first = np.floor(at).astype(np.int64)
    weight = (at - first).astype(np.float32)
    weight = weight if axis == -1 else weight[:, None]
    following = np.minimum(first + 1, length - 1)
    made = (1 - weight) * np.take(x, first, axis) + weight * np.take(x, following, axis)
    return cast(Array, made)
