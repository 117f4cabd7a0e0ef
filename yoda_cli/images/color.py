"""Making a generated picture keep the colours of the one it was made from.

Pictures are (B, 3, H, W), nominally in [0, 1]; nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
TINY = 1e-5


def low_band(image: Tensor, levels: int = LEVELS) -> Tensor:
    """What is left of ``image`` after ``levels`` undecimated 3×3 binomial blurs, each twice as
    wide as the one before; borders are repeated."""
    row = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    across = row.view(1, 1, 1, 3).expand(channels, 1, 1, 3)
    down = row.view(1, 1, 3, 1).expand(channels, 1, 3, 1)
    for level in range(levels):
        reach = 1 << level
        padded = F.pad(image, (reach,) * 4, mode="replicate")
        wide = F.conv2d(padded, across, groups=channels, dilation=(1, reach))
        image = F.conv2d(wide, down, groups=channels, dilation=(reach, 1))
    return image


def wavelet_fix(content: Tensor, style: Tensor) -> Tensor:
    """The detail of ``content`` over the colours of ``style``."""
    return content - low_band(content) + low_band(style)


def adain_fix(content: Tensor, style: Tensor) -> Tensor:
    """``content`` with the mean and the deviation that each channel has in ``style``."""

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        variance = x.flatten(2).var(-1, keepdim=True) + TINY
        return x.flatten(2).mean(-1, keepdim=True)[..., None], variance.sqrt()[..., None]

    (mean, deviation), (new_mean, new_deviation) = moments(content), moments(style)
    return (content - mean) / deviation * new_deviation + new_mean


COLOR_FIXES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "wavelet": wavelet_fix,
    "adain": adain_fix,
    "none": lambda content, style: content,
}


def luma(image: Tensor) -> Tensor:
    """Y of YCbCr as MATLAB's rgb2ycbcr, in [16, 235]/255; (B, 1, H, W) float64."""
    weight = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=image.device)
    return (16 + (image.double() * weight.view(1, 3, 1, 1)).sum(1, keepdim=True)) / 255
