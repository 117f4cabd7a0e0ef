"""Windows that slide over a canvas and overlap, and the weights by which they are blended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from yoda_cli.tiling.windows import Window

if TYPE_CHECKING:
    from torch import Tensor

VARIANCE = 0.01  # of DiffBIR's bell, in window sides, as published


def sliding_windows(height: int, width: int, size: int, stride: int) -> list[Window]:
    """Windows in row order, of ``size`` or of the whole side where it is shorter; the last of a
    row or column ends at the border."""

    def starts(length: int) -> list[int]:
        last = max(length - size, 0)
        return [*range(0, last, stride), last]

    return [
        Window(top, left, min(top + size, height), min(left + size, width))
        for top in starts(height)
        for left in starts(width)
    ]


def blend(see: Callable[[Window], Tensor], windows: Sequence[Window], canvas: Tensor) -> Tensor:
    """The mean on ``canvas`` (1, C, H, W, zeros) of what ``see`` gives per window, by tents."""
    total = canvas.new_zeros(1, 1, *canvas.shape[-2:])
    for window in windows:
        weight = tent(window.height, canvas)[:, None] * tent(window.width, canvas)
        window.cut(canvas).add_(weight * see(window))
        window.cut(total).add_(weight)
    return canvas / total


def tent(size: int, like: Tensor) -> Tensor:
    """Rises to the middle and falls again to 1 / size, so that no sum is 0."""
    import torch

    position = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5
    return 1 - (2 * position / size - 1).abs()


def gaussian_weights(height: int, width: int) -> Tensor:
    """DiffBIR's weights (h, w) of a window, fp64: rows peak half a pixel late, as published."""
    import torch

    def bell(length: int, middle: float) -> Tensor:
        at = (torch.arange(length, dtype=torch.float64) - middle) / length
        return torch.exp(-(at**2) / (2 * VARIANCE)) / math.sqrt(2 * math.pi * VARIANCE)

    return bell(height, height / 2)[:, None] * bell(width, (width - 1) / 2)
