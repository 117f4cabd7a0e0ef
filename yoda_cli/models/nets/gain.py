"""The gain regressor: from two estimates in a row, what the step between them gained."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 4  # latents or pixels on a side of a cell of the first layer
STRIDE = 8  # pixels from cell to cell: a quarter of them tells as much. Latents are fewer: PATCH
TIMES = 16  # sinusoids of each time


class GainNet(nn.Module):
    """Three convolutions over cells, pooled to means and deviations, beside the two times.

    ``channels`` is the C of the diffusion space; cells lie ``stride`` apart. It puts out (B, 2):
    the gains of fidelity and of realism, each in (-1, 1). ``scale`` is how large they are on
    average in training.
    """

    scale: Tensor

    def __init__(self, channels: int, width: int = 24, stride: int = STRIDE) -> None:
        super().__init__()
        self.cells = nn.Conv2d(2 * channels, width, PATCH, stride=stride)
        self.middle = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.hidden = nn.Linear(4 * width + 2 * TIMES, 64)
        self.out = nn.Linear(64, 2)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, before: Tensor, after: Tensor, z_lr: Tensor, times: Tensor) -> Tensor:
        """``before``, ``after`` and ``z_lr`` are (B, C, H, W), ``times`` (B, 2) in [0, 1]: those of
        the two estimates over T."""
        return self.compare(self.look(before), self.look(after), self.look(z_lr), times)

    def look(self, z: Tensor) -> Tensor:
        """What ``compare`` needs of one estimate, (B, 2·width, H/stride, W/stride).

        The first layer sees before - z_lr and after - before. It is linear, so it takes each of
        them once, whatever it is compared with.
        """
        weight = torch.cat(self.cells.weight.chunk(2, 1))
        stride = self.cells.stride[0]
        return F.conv2d(pad_to(z, stride), weight, stride=stride)

    def compare(self, before: Tensor, after: Tensor, z_lr: Tensor, times: Tensor) -> Tensor:
        """The same from what ``look`` gave of each."""
        (state, step), (_, now), (lr, _) = (x.chunk(2, 1) for x in (before, after, z_lr))
        assert self.cells.bias is not None
        x = F.silu(state - lr + now - step + self.cells.bias[:, None, None])
        x = F.silu(self.middle(x))
        x = F.silu(self.coarse(x))
        mean = x.mean((2, 3))
        deviation = (x.square().mean((2, 3)) - mean.square()).clamp(min=1e-8).sqrt()
        hidden = F.silu(self.hidden(torch.cat([mean, deviation, sinusoids(times)], 1)))
        return torch.tanh(self.out(hidden) * self.scale)


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """``x`` with its border repeated until its sides divide."""
    right, below = -x.shape[-1] % multiple, -x.shape[-2] % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if right or below else x


def sinusoids(times: Tensor) -> Tensor:
    """(B, 2) → (B, 2·TIMES)."""
    waves = math.pi * torch.arange(1, TIMES // 2 + 1, device=times.device, dtype=times.dtype)
    phase = times[:, :, None] * waves
    return torch.cat([phase.sin(), phase.cos()], -1).flatten(1)
