"""Patterns that a network weaves into a result and no photograph has. Pictures are (1, 3, H, W).

Both look at the result alone (``weave`` finds its flat places in the truth), so a result that is
smooth passes; both are ratios, whose values in photographs are the measure of what is too much.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.images.color import luma

PERIODS = (2, 4, 8)  # pixels: of a network's cells, their halves and doubles
SIGMA = 1.5  # pixels: what is smoother is no pattern of a few pixels
BLOCK = 32  # pixels on a side of a place that is judged as flat or not
FLAT_SHARE = 0.1  # of the blocks
LEAST_BLOCKS = 4
LOWEST = 3  # of the spectrum's BLOCK / 2 frequencies: below is shading
AROUND = 2  # frequencies on either side that a peak is compared with


def grid(image: Tensor) -> float:
    """The largest over the smallest mean of the high band's amplitude by position modulo 2, 4 and
    8, minus 1.

    Amplitudes count up to twice their median, so that a few edges decide nothing. About 0 where no
    position is special; NaN for pictures of less than 64 pixels a side.
    """
    if min(image.shape[-2:]) < 64:
        return math.nan
    size = high_band(image).abs()
    size = size.clamp(max=2 * float(size.median()))
    found = []
    for period in PERIODS:
        height, width = (n // period * period for n in size.shape[-2:])
        phases = F.pixel_unshuffle(size[..., :height, :width], period).mean((0, 2, 3))
        found.append(float(phases.max() / phases.min().clamp(min=1e-12)) - 1)
    return max(found)


def weave(image: Tensor, truth: Tensor) -> float:
    """The highest peak of the high band's spectrum in flat places over what is around it.

    The flattest tenth of the blocks of 32 pixels by ``truth``, windowed, their power spectra
    averaged; NaN for pictures of fewer than 40 blocks.
    """
    blocks, flat = (as_blocks(high_band(x)) for x in (image, truth))
    count = int(len(blocks) * FLAT_SHARE)
    if count < LEAST_BLOCKS:
        return math.nan
    chosen = blocks[flat.square().mean((1, 2)).argsort()[:count]]
    window = torch.hann_window(BLOCK, dtype=chosen.dtype)
    spectrum = torch.fft.rfft2(chosen * window * window[:, None]).abs().square().mean(0)
    side = 2 * AROUND + 1
    turned = F.pad(spectrum[None, None], (AROUND, AROUND, 0, 0), mode="reflect")
    turned = F.pad(turned, (0, 0, AROUND, AROUND), mode="circular")
    around = F.unfold(turned, side).median(1).values.view_as(spectrum)
    rows = torch.fft.fftfreq(BLOCK, 1 / BLOCK).abs()
    high = (rows[:, None] >= LOWEST) | (torch.arange(BLOCK // 2 + 1) >= LOWEST)
    return float((spectrum / around.clamp(min=1e-12))[high].max())


def high_band(image: Tensor) -> Tensor:
    """Luma less its Gaussian blur, (1, 1, H, W) float64."""
    y = luma(image)
    x = torch.arange(-4, 5, dtype=y.dtype)
    kernel = torch.exp(-(x**2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    padded = F.pad(y, (4,) * 4, mode="reflect")
    return y - F.conv2d(F.conv2d(padded, kernel), kernel.mT)


def as_blocks(plane: Tensor) -> Tensor:
    """(1, 1, H, W) as (N, BLOCK, BLOCK)."""
    height, width = (n // BLOCK * BLOCK for n in plane.shape[-2:])
    tiles = plane[0, 0, :height, :width].unfold(0, BLOCK, BLOCK).unfold(1, BLOCK, BLOCK)
    return tiles.reshape(-1, BLOCK, BLOCK)
