"""Overlapping windows over a grid, blended by weights that fall towards their borders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Window = tuple[int, int, int, int]  # top, left, bottom, right


def starts(length: int, size: int, step: int) -> list[int]:
    """Where windows of ``size`` begin along ``length``; the last one ends with it."""
    if length <= size:
        return [0]
    return [*range(0, length - size, step), length - size]


def make_windows(height: int, width: int, size: int, step: int) -> list[Window]:
    """Windows of ``size`` (or of the whole side, where it is shorter) every ``step``."""
    return [
        (top, left, min(top + size, height), min(left + size, width))
        for top in starts(height, size, step)
        for left in starts(width, size, step)
    ]


def blend(
    see: Callable[[int, int, int, int], Tensor], windows: Sequence[Window], canvas: Tensor
) -> Tensor:
    """The weighted mean on ``canvas`` (1, C, H, W, zeros) of what ``see`` gives per window."""
    total = canvas.new_zeros(1, 1, *canvas.shape[-2:])
    for top, left, bottom, right in windows:
        rows, columns = slice(top, bottom), slice(left, right)
        weight = tent(bottom - top, canvas)[:, None] * tent(right - left, canvas)
        canvas[..., rows, columns] += weight * see(top, left, bottom, right)
        total[..., rows, columns] += weight
    return canvas / total


def tent(size: int, like: Tensor) -> Tensor:
    """Rises to the middle and falls again, above 0 everywhere."""
    position = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5
    return 1 - (2 * position / size - 1).abs() * 0.98
