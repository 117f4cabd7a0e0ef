"""The texture term of training: are small patches distributed here as in the real picture?

A sliced Wasserstein distance (Bonneel et al. 2015; on image features as a loss: Delbracio et al.,
arXiv:2012.09289), kept local and kept apart by phase, so that a grid costs more than texture.
It does not rule one out (the spread of a phase's values is compared, not how neighbours differ),
so it is asked for together with the energy score, to which what samples share is an error.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64  # pixels within which a patch may stand anywhere
PATCHES = (1, 3, 5, 7)  # sides, one of them at each call; 1: single pixels, which dots cannot hide
AXES = 8  # directions that patches are projected on, drawn anew at each call
WAVE_SIDE = 13  # of the windowed waves, whose bands are narrow enough to tell a weave from texture
WAVE_SIGMA = 2.5  # pixels, of their window
WAVE_BAND = (0.1, 0.5)  # cycles per pixel
SIGMA, RADIUS = 1.5, 4  # pixels: of the blur that the high band lacks

LUMA = (0.299, 0.587, 0.114)
COLOUR_SPREAD = 0.5  # by which an axis' colour differs from luma: coloured dots count too


def texture_loss(image: Tensor, target: Tensor, period: int, generator: torch.Generator) -> Tensor:
    """Mean distance of the sorted projections of the high bands' patches, in the images' unit.

    Images (B, 3, H, W) in [0, 1], float32, larger than ``period`` + 12. Random axes at every call;
    how strong a detail is and of which shape counts, where in its block it lies does not. A network
    that puts out ``period``² pixels a cell can make a pattern of that period: patches are compared
    only with those of their own phase, among which the real picture has no such pattern. A weave of
    another period lies in a narrow band: waves of all frequencies are compared too, of all phases.
    """
    side = PATCHES[int(torch.randint(len(PATCHES), (1,), generator=generator))]
    bands = _high_band(image), _high_band(target.detach())
    patches = _distance(*bands, _random_patches(side, generator), period, generator)
    return (patches + _distance(*bands, _random_waves(generator), 1, generator)) / 2


def _distance(
    image: Tensor, target: Tensor, axes: Tensor, period: int, generator: torch.Generator
) -> Tensor:
    """Mean distance of the sorted projections of blocks, in the images' unit."""
    axes = _coloured(axes, generator).to(image)
    room = min(image.shape[-2:]) - axes.shape[-1] + 1
    block = min(BLOCK, room) // period * period
    top, left = torch.randint(min(block, room - block + 1), (2,), generator=generator).tolist()
    ours, theirs = (
        _sorted(F.conv2d(x, axes)[..., top:, left:], block, period) for x in (image, target)
    )
    return (ours - theirs).abs().mean()


def _random_patches(side: int, generator: torch.Generator) -> Tensor:
    """(AXES, 1, side, side): unit vectors, every direction as likely as any other."""
    axes = torch.randn(AXES, 1, side, side, generator=generator)
    return F.normalize(axes.flatten(1)).view_as(axes)


def _random_waves(generator: torch.Generator) -> Tensor:
    """(AXES, 1, WAVE_SIDE, WAVE_SIDE): waves in a Gaussian window, of random direction and phase.

    The higher the frequency the larger they are, as pictures have less of it.
    """
    x = torch.arange(WAVE_SIDE) - WAVE_SIDE // 2
    window = torch.exp(-(x**2) / (2 * WAVE_SIGMA**2))
    low, high = WAVE_BAND
    frequency = low + (high - low) * torch.rand(AXES, 1, 1, 1, generator=generator)
    angle, phase = 2 * math.pi * torch.rand(2, AXES, 1, 1, 1, generator=generator)
    along = x.view(-1, 1) * angle.sin() + x * angle.cos()
    waves = window.view(-1, 1) * window * torch.cos(2 * math.pi * frequency * along + phase)
    return F.normalize(waves.flatten(1)).view_as(waves) * frequency / high


def _coloured(axes: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 1, H, W) to (N, 3, H, W), each in a colour of its own around luma."""
    colours = torch.tensor(LUMA).view(1, 3, 1, 1)
    return axes * (colours + COLOUR_SPREAD * torch.randn(len(axes), 3, 1, 1, generator=generator))


def _high_band(image: Tensor) -> Tensor:
    x = torch.arange(-RADIUS, RADIUS + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(x**2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
    padded = F.pad(image, (RADIUS,) * 4, mode="reflect")
    return image - F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)


def _sorted(projected: Tensor, block: int, period: int) -> Tensor:
    """Each block's values of each axis and phase in a row of their own, sorted."""
    rows, columns = (n // block for n in projected.shape[-2:])
    phases = F.pixel_unshuffle(projected[..., : rows * block, : columns * block], period)
    cells = block // period
    blocks = phases.reshape(*phases.shape[:2], rows, cells, columns, cells).transpose(-3, -2)
    ordered: Tensor = blocks.flatten(-2).sort(dim=-1).values
    return ordered
