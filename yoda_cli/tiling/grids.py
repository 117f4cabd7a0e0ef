"""Pictures and maps from one grid to another: padding, bilinear enlargement, windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.tiling.windows import Window


def to_grid(attention: Tensor, height: int, width: int, scale: int) -> Tensor:
    """A from the LR grid, padded to (height, width) like the picture, to the diffusion grid."""
    padded = replicate(attention, height, width)
    size = (height * scale, width * scale)
    return F.interpolate(padded, size, mode="bilinear").clamp_(0, 1)


def grid_window(attention: Tensor, window: Window, scale: int) -> Tensor:
    """The part of ``to_grid`` of the whole map that a window of output pixels sees."""
    small = window.divided(scale)
    top, left = max(small.top - 1, 0), max(small.left - 1, 0)  # what bilinear weights reach
    cut = replicated(attention, Window(top, left, small.bottom + 1, small.right + 1))
    size = (cut.shape[-2] * scale, cut.shape[-1] * scale)
    grown = F.interpolate(cut, size, mode="bilinear").clamp_(0, 1)
    return window.within(Window(top * scale, left * scale, 0, 0)).cut(grown)


def replicate(x: Tensor, height: int, width: int) -> Tensor:
    """``x`` with its last row and column repeated up to (height, width)."""
    return replicated(x, Window(0, 0, height, width))


def replicated(x: Tensor, window: Window) -> Tensor:
    """A copy of a window that may reach beyond the last row and column of ``x``: they repeat."""
    cut = x[..., min(window.top, x.shape[-2] - 1) : window.bottom, :]  # of the rest nothing is read
    cut = cut[..., min(window.left, x.shape[-1] - 1) : window.right]
    rows = torch.arange(window.height, device=x.device).clamp(max=cut.shape[-2] - 1)
    cols = torch.arange(window.width, device=x.device).clamp(max=cut.shape[-1] - 1)
    return cut.index_select(-2, rows).index_select(-1, cols)
