"""The network that sees how damaged a window of a picture is, and the statistics that it reads."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

STATISTICS = 146
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LUMA_BANDS = tuple((band, band + 1) for band in range(1, 15))  # diagonals of the transform
COLOUR_BANDS = ((1, 3), (3, 5), (5, 8), (8, 15))


class DamageNet(nn.Module):
    """(B, 3, h, w) in [0, 1], sides ≥ ``degradation.LEAST_SIDE``, to (B,) strengths ≥ 0."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(STATISTICS, 96), nn.SiLU(), nn.Linear(96, 48), nn.SiLU(), nn.Linear(48, 1)
        )
        self.register_buffer("mean", torch.zeros(STATISTICS))
        self.register_buffer("deviation", torch.ones(STATISTICS))

    def forward(self, x: Tensor) -> Tensor:
        return self.of_statistics(statistics(x))

    def of_statistics(self, seen: Tensor) -> Tensor:
        """(B,) strengths of (B, ``STATISTICS``)."""
        z = ((seen - self.mean) / self.deviation).clamp(-4, 4)
        out: Tensor = F.softplus(self.layers(z))[:, 0]
        return out


@cache
def damage_net(weights: Path) -> DamageNet:
    """The network of a file."""
    net = DamageNet()
    net.load_state_dict(load(weights.read_bytes()))
    return net.eval().requires_grad_(False)


def statistics(x: Tensor) -> Tensor:
    """(B, ``STATISTICS``) of pictures (B, 3, h, w) in [0, 1]."""
    red, green, blue = (255 * x).unbind(1)
    y = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    cb, cr = (blue[:, None] - y) * 0.564, (red[:, None] - y) * 0.713
    parts = (
        _bands(y, LUMA_BANDS),
        _bands(cb, COLOUR_BANDS),
        _bands(cr, COLOUR_BANDS),
        _block_steps(y),
        _block_steps(cb + cr),
        _edges(y),
        _correlations(y),
    )
    return torch.cat(parts, dim=1)


@cache
def _cosines() -> Tensor:
    """(64, 1, 8, 8): the orthonormal DCT-II, row frequency first."""
    k = torch.arange(8.0)
    line = torch.cos(math.pi * (2 * k + 1) * k[:, None] / 16) / 2
    line[0] /= math.sqrt(2)
    return torch.einsum("ux,vy->uvxy", line, line).reshape(64, 1, 8, 8)


def _bands(plane: Tensor, bands: tuple[tuple[int, int], ...]) -> Tensor:
    """Quantiles over the blocks of the log energy in each band of diagonals."""
    energy = F.conv2d(plane, _cosines().to(plane), stride=2).square().flatten(2)  # (B, 64, n)
    diagonal = (torch.arange(64) // 8 + torch.arange(64) % 8).to(plane.device)
    kept = [(diagonal >= low) & (diagonal < high) for low, high in bands]
    levels = torch.stack([energy[:, band].mean(1) for band in kept], 1)
    levels = (levels + 0.25).log() / 2  # of an energy of rounding
    quantiles = levels.quantile(torch.tensor(QUANTILES).to(plane), dim=-1)
    return quantiles.permute(1, 2, 0).flatten(1)


def _block_steps(plane: Tensor) -> Tensor:
    """How far steps at one phase of a period exceed the others: 12 numbers."""
    found = []
    for turned in (plane, plane.mT):
        step = turned.diff(dim=-1).abs()
        excess = step[..., 1:-1] - (step[..., :-2] + step[..., 2:]) / 2
        usual = step.mean((1, 2, 3)) + 0.5
        for period in (8, 4, 16):
            whole = excess.shape[-1] // period * period
            phases = excess[..., :whole].reshape(*excess.shape[:-1], -1, period).mean((1, 2, 3))
            first, second = phases.topk(2, dim=-1).values.unbind(-1)
            found += [first / usual, (first - second) / usual]
    return torch.stack(found, 1)


def _edges(plane: Tensor) -> Tensor:
    """Quantiles of the gradient, and how sharp the strongest edges are, by two measures."""
    across = plane[..., 1:-1, 2:] - plane[..., 1:-1, :-2]
    down = plane[..., 2:, 1:-1] - plane[..., :-2, 1:-1]
    gradient = ((across.square() + down.square()).sqrt() / 2).flatten(1)
    kernel = plane.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    bend = F.conv2d(plane, kernel).abs().flatten(1)
    top = gradient.quantile(plane.new_tensor([0.5, 0.9, 0.97]), dim=1).mT
    sharpness = _share(bend, gradient, gradient >= top[:, 1:2])
    wide = _range(plane, 5)
    near = _range(plane, 2)[..., : wide.shape[-2], : wide.shape[-1]].flatten(1)
    wide = wide.flatten(1)
    steepness = _share(near, wide, wide >= wide.quantile(0.9, dim=1, keepdim=True))
    return torch.cat([(top + 1).log(), sharpness, steepness], 1)


def _range(plane: Tensor, side: int) -> Tensor:
    """Largest minus least value in every square."""
    return F.max_pool2d(plane, side, 1) + F.max_pool2d(-plane, side, 1)


def _share(part: Tensor, whole: Tensor, where: Tensor) -> Tensor:
    return (part * where).sum(1, keepdim=True) / ((whole * where).sum(1, keepdim=True) + 1)


def _correlations(plane: Tensor) -> Tensor:
    """Moments of locally normalised luma, and its products with five neighbours."""
    mean = F.avg_pool2d(plane, 7, 1)
    deviation = (F.avg_pool2d(plane * plane, 7, 1) - mean * mean).clamp(min=0).sqrt()
    m = (plane[..., 3:-3, 3:-3] - mean) / (deviation + 1.5)
    power = m.square().mean((1, 2, 3))
    found = [power, m.pow(4).mean((1, 2, 3)) / (power**2 + 1e-3)]
    for rows, columns in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
        first = m[..., rows:, columns:]
        second = m[..., : m.shape[-2] - rows, : m.shape[-1] - columns]
        found.append((first * second).mean((1, 2, 3)))
    return torch.stack(found, 1)
