"""The mean of the square around each pixel, of NumPy arrays and torch tensors alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from yoda_cli.arrays import Array, as_array, is_plain, like

if TYPE_CHECKING:
    from torch import Tensor


def local_mean(x: Tensor, reach: int) -> Tensor:
    """(B, C, H, W): over ``reach`` (odd) pixels each way, as many of them as lie inside."""
    if is_plain(x):
        one = np.ones((1, 1, *x.shape[-2:]), np.float32)
        return like(x, _square_sums(as_array(x), reach) / _square_sums(one, reach))
    import torch.nn.functional as F

    for side in ((reach, 1), (1, reach)):
        x = F.avg_pool2d(x, side, 1, (side[0] // 2, side[1] // 2), count_include_pad=False)
    return x


def _square_sums(x: Array, reach: int) -> Array:
    for axis in (-2, -1):
        wide = np.pad(x, [(0, 0)] * (x.ndim + axis) + [(reach // 2,) * 2] + [(0, 0)] * (-1 - axis))
        parts = np.lib.stride_tricks.sliding_window_view(wide, reach, axis)
        x = parts.sum(-1)
    return x
