"""Image quality as pure functions. Every one states its range, its colour space and its border.

Images are (1, 3, H, W) in [0, 1]. ``quantise`` first if the numbers are to match files on disk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.images.color import luma
from yoda_cli.images.resize import imresize

TEXTURE_BLOCK = 32
TEXTURE_PATCH = 5
TEXTURE_SIGMA = 1.5
ASIDE = (4, 8)  # pixels: networks that enlarge fourfold draw every fourth one alike


def quantise(image: Tensor) -> Tensor:
    """What an 8-bit file holds: clamped, rounded to multiples of 1/255."""
    return (image.clamp(0, 1) * 255).round() / 255


def crop_border(image: Tensor, border: int) -> Tensor:
    """Without ``border`` pixels on each side."""
    return image[..., border : image.shape[-2] - border, border : image.shape[-1] - border]


def psnr(sr: Tensor, hr: Tensor, *, border: int = 0, on_luma: bool = True) -> float:
    """Peak signal-to-noise ratio in dB, peak 1; inf for equal images."""
    x, y = (luma(sr), luma(hr)) if on_luma else (sr.double(), hr.double())
    error = (crop_border(x, border) - crop_border(y, border)).square().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)


def _gaussian(sigma: float, radius: int) -> Tensor:
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Separable, (B, 1, H, W), valid part only."""
    kernel = kernel.to(x)
    return F.conv2d(F.conv2d(x, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def ssim(sr: Tensor, hr: Tensor, *, border: int = 0, on_luma: bool = True) -> float:
    """Structural similarity: Gaussian window 11×11, σ 1.5, valid part, K = (0.01, 0.03).

    On Y, or the mean over R, G and B. NaN where no whole window fits.
    """
    x, y = (luma(sr), luma(hr)) if on_luma else (sr.double(), hr.double())
    x, y = (crop_border(v, border).transpose(0, 1) for v in (x, y))  # channels as a batch
    if min(x.shape[-2:]) < 11:
        return math.nan
    return float(structural_similarity(x, y))


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """The mean SSIM of (B, 1, H, W) in [0, 1], H and W at least 11, as ``ssim`` defines it."""
    kernel = _gaussian(1.5, 5)
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = _blur(x, kernel), _blur(y, kernel)
    var_x = _blur(x * x, kernel) - mean_x**2
    var_y = _blur(y * y, kernel) - mean_y**2
    cov = _blur(x * y, kernel) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return (numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


def _high_band(image: Tensor, border: int) -> Tensor:
    y = crop_border(luma(image), border)
    radius = 6  # 4 σ
    mode = "reflect" if min(y.shape[-2:]) > radius else "replicate"  # too few pixels to reflect
    padded = F.pad(y, (radius,) * 4, mode=mode)
    return y - _blur(padded, _gaussian(TEXTURE_SIGMA, radius))


def _sorted_projections(high: Tensor) -> Tensor:
    """(1, 1, H, W) → (blocks, 32, patches): each block's 5×5 patches on 32 axes, sorted."""
    size = TEXTURE_BLOCK
    rows, cols = high.shape[-2] // size, high.shape[-1] // size
    blocks = high[0, 0, : rows * size, : cols * size].view(rows, size, cols, size)
    blocks = blocks.permute(0, 2, 1, 3).reshape(-1, 1, size, size)
    axes = np.random.default_rng(0).normal(size=(TEXTURE_PATCH**2, 32))
    axes = axes / np.linalg.norm(axes, axis=0, keepdims=True)
    projection = torch.from_numpy(axes.T.copy()).to(high)
    patches = F.unfold(blocks, TEXTURE_PATCH)  # (blocks, 25, 28·28)
    projected = (projection @ patches).detach().cpu().numpy()
    return torch.from_numpy(np.sort(projected, axis=-1))  # ten times as fast as torch's


def texture_distance(sr: Tensor, hr: Tensor, *, border: int = 0) -> float:
    """Local sliced Wasserstein distance of the high band's patches; 0 is the same texture.

    Luminance (border cropped) minus its Gaussian blur (σ = 1.5), whole 32-pixel blocks from the
    top left; 5×5 patches on 32 fixed unit vectors, sorted; Σ mean|SR - HR| over Σ mean|HR|.
    Bicubic ×4 is about 0.75. NaN when no whole block fits or HR has no high band.
    """
    x, y = _sorted_projections(_high_band(sr, border)), _sorted_projections(_high_band(hr, border))
    total = y.abs().mean((1, 2)).sum().item()
    if x.numel() == 0 or total < 1e-6:
        return math.nan
    return float((x - y).abs().mean((1, 2)).sum().item() / total)


def colour_error(sr: Tensor, hr: Tensor) -> float:
    """Largest absolute difference of the channel means, in units of 1/255."""
    return float((sr.double().mean((0, 2, 3)) - hr.double().mean((0, 2, 3))).abs().max() * 255)


def detail_ratio(sr: Tensor, hr: Tensor, *, border: int = 0) -> float:
    """Energy of SR's high band (Y minus its blur, σ = 1.5) over HR's; 1 is as much detail.

    Root mean squares over the whole border-cropped picture. NaN where HR has none.
    """
    x, y = (_high_band(image, border).square().mean().sqrt().item() for image in (sr, hr))
    return x / y if y > 1e-6 else math.nan  # rounding is no detail


def lr_consistency(sr: Tensor, lr: Tensor) -> float:
    """PSNR in dB on RGB of SR, reduced to LR's size by the benchmark's bicubic, against LR."""
    return psnr(imresize(sr, (lr.shape[-2], lr.shape[-1])), lr, on_luma=False)


def seam(image: Tensor, rows: Sequence[int], columns: Sequence[int]) -> float:
    """Mean gradient of Y across tile lines over that across the lines ``ASIDE`` them, minus 1.

    0 is no seam. Where tiles are blended their detail is softer, but as soft a few pixels aside,
    and what a picture shows there is nearly the same: a seam alone is told apart. ``rows`` and
    ``columns`` are the first pixels behind each line. NaN without a line, or where all is flat.
    """
    y = luma(image)
    across, aside = [], []
    for dim, lines in ((-2, rows), (-1, columns)):
        gradient = y.diff(dim=dim).abs().transpose(dim, -1)[0, 0]
        for line in lines:
            beside = [line + way * far for far in ASIDE for way in (-1, 1)]
            free = [at - 1 for at in beside if 0 < at <= gradient.shape[1] and at not in lines]
            if free:
                across.append(gradient[:, line - 1])
                aside.append(gradient[:, free].mean(1))
    if not across or not (mean := float(torch.cat(aside).mean())):
        return math.nan
    return float(torch.cat(across).mean()) / mean - 1
