"""Layers that more than one network uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    """``F.pixel_unshuffle``, its result laid out channels last: what the next convolution reads."""
    b, c, height, width = x.shape
    cells = x.view(b, c, height // factor, factor, width // factor, factor)
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(b, height // factor, width // factor, -1)
    return cells.permute(0, 3, 1, 2)


def silu(x: Tensor) -> Tensor:
    """SiLU; in the memory of ``x`` where no gradient will ask for it."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel: looks at no neighbour."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6)
        return y.permute(0, 3, 1, 2)
