"""The texture term of training: are small patches distributed here as in the real picture?

A sliced Wasserstein distance (Bonneel et al. 2015; on image features as a loss: Delbracio et al.,
arXiv:2012.09289), kept local and kept apart by phase, so that a grid costs more than texture.
It does not rule one out (the spread of a phase's values is compared, not how neighbours differ),
so it is asked for together with the energy score, to which what samples share is an error.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64  # pixels within which a patch may stand anywhere
PATCHES = (1, 3, 5, 7)  # sides, one of them at each call; 1: single pixels, which dots cannot hide
AXES = 8
SIGMA, RADIUS = 1.5, 4
LUMA = (0.299, 0.587, 0.114)
COLOUR_SPREAD = 0.5  # by which an axis' colour differs from luma: coloured dots count too


def texture_loss(image: Tensor, target: Tensor, period: int, generator: torch.Generator) -> Tensor:
    """Mean distance of the sorted projections of the high bands' patches, in the images' unit.

    Images (B, 3, H, W) in [0, 1], float32, larger than ``period`` + 6. Random axes at every call;
    how strong a detail is and of which shape counts, where in its block it lies does not. A network
    that puts out ``period``² pixels a cell can make a pattern of that period: patches are compared
    only with those of their own phase, among which the real picture has no such pattern.
    """
    side = PATCHES[int(torch.randint(len(PATCHES), (1,), generator=generator))]
    axes = _random_axes(side, generator).to(image)
    room = min(image.shape[-2:]) - side + 1
    block = min(BLOCK, room) // period * period
    top, left = torch.randint(min(block, room - block + 1), (2,), generator=generator).tolist()
    ours, theirs = (
        _sorted(F.conv2d(_high_band(x), axes)[..., top:, left:], block, period)
        for x in (image, target.detach())
    )
    return (ours - theirs).abs().mean()


def _random_axes(side: int, generator: torch.Generator) -> Tensor:
    """(AXES, 3, side, side): unit vectors in space, each in a colour of its own around luma."""
    axes = torch.randn(AXES, 1, side, side, generator=generator)
    colours = torch.tensor(LUMA).view(1, 3, 1, 1)
    colours = colours + COLOUR_SPREAD * torch.randn(AXES, 3, 1, 1, generator=generator)
    axes = F.normalize(axes.flatten(1)).view_as(axes)
    return axes * colours


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
