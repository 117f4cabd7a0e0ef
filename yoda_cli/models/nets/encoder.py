"""A small LR encoder for the compact networks: features, a regression base, a learned attention.

Residual blocks without normalisation (Lim et al., arXiv:1707.02921). The base is bicubic plus a
pixel-shuffled correction that starts at zero, so an untrained base is bicubic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTH = 17  # LR pixels over which the attention is averaged
DIFFICULTY_SHIFT = 4.0  # an untrained difficulty is softplus(-4) = 0.018
FULL = 3.0  # times difficulty_p90: where the attention is 1


class Encoding(NamedTuple):
    """What the encoder says about an LR image on its grid (h, w).

    ``base`` is (B, 3, h·scale, w·scale) nominally in [0, 1]; ``difficulty`` (B, 1, h, w) ≥ 0 is the
    predicted mean |y - base|.
    """

    features: Tensor
    base: Tensor
    difficulty: Tensor


class ResidualBlock(nn.Module):
    """conv - ReLU - conv, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In place: a layer's result is nobody else's, and fresh memory takes longer than the sum.
        out: Tensor = self.conv2(F.relu(self.conv1(x), inplace=True)).add_(x)
        return out


class LREncoder(nn.Module):
    """``forward(lr, lr_up, strength)``: lr (B, 3, h, w) and its bicubic enlargement, in [0, 1].

    ``strength`` in [0, 1], a number or (B,), is the degradation to expect (0: a clean picture).
    ``difficulty_p90`` is the 90th percentile of ``difficulty`` over the training pictures.
    """

    difficulty_p90: Tensor

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv_first = nn.Conv2d(4, channels, 3, padding=1)
        self.trunk = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.conv_trunk = nn.Conv2d(channels, channels, 3, padding=1)
        self.base_head = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        self.attention_head = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1)
        )
        _start_at_zero(self.base_head)
        self.register_buffer("difficulty_p90", torch.tensor(0.05))

    def attention(self, difficulty: Tensor) -> Tensor:
        """A in [0, 1] on the LR grid: the predicted difficulty in units of ``FULL``·p90, averaged.

        Both are there for speed. A third of the brightness saves a quarter to a third of the time
        at l = 0.1, and the picture stays where it was between PSNR and texture. The average takes
        single bright pixels away, each of which would keep a whole tile active: at the same
        distance from the truth 9 pixels take a fifth less time than none, and 17 another 4 to
        12 %, by forecast.
        """
        sharp = (difficulty / (FULL * self.difficulty_p90)).clamp(0, 1)
        for kernel in ((SMOOTH, 1), (1, SMOOTH)):  # a square's mean, in two passes
            reach = (kernel[0] // 2, kernel[1] // 2)
            sharp = F.avg_pool2d(sharp, kernel, 1, reach, count_include_pad=False)
        return sharp

    def forward(self, lr: Tensor, lr_up: Tensor, strength: float | Tensor) -> Encoding:
        plane = torch.as_tensor(strength, device=lr.device, dtype=lr.dtype).view(-1, 1, 1, 1)
        plane = plane.expand(lr.shape[0], 1, *lr.shape[-2:])
        first = self.conv_first(torch.cat([lr - 0.5, plane], dim=1))
        features = self.conv_trunk(self.trunk(first)).add_(first)
        base = lr_up + F.pixel_shuffle(self.base_head(features), self.scale).to(lr_up.dtype)
        # Detached: the head reads the features and does not shape them.
        difficulty = F.softplus(self.attention_head(features.detach()).float() - DIFFICULTY_SHIFT)
        if self.training and difficulty.requires_grad:  # frozen, it stays what it was
            with torch.no_grad():
                p90 = difficulty.detach().flatten().quantile(0.9)
                self.difficulty_p90.lerp_(p90.clamp(min=1e-4), 0.01)
        return Encoding(features, base, difficulty)


def _start_at_zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
