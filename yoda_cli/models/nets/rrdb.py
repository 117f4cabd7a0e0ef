"""The RRDB network (Wang et al., arXiv:1809.00219) as SRDiff uses it: an encoder of the LR image.

Key names are the published ones. Works on images in [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
RESIDUAL = 0.2


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class DenseBlock(nn.Module):
    """Five 3×3 convolutions, each reading everything before it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(5):
            out = growth if i < 4 else channels
            self.add_module(f"conv{i + 1}", nn.Conv2d(channels + i * growth, out, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for name, conv in self.named_children():
            out: Tensor = conv(seen)
            if name != "conv5":
                seen = torch.cat([seen, _activate(out)], dim=1)
        return x + RESIDUAL * out


class RRDB(nn.Module):
    """Three dense blocks in a residual."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.RDB1 = DenseBlock(channels, growth)
        self.RDB2 = DenseBlock(channels, growth)
        self.RDB3 = DenseBlock(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + RESIDUAL * self.RDB3(self.RDB2(self.RDB1(x)))
        return out


class RRDBNet(nn.Module):
    """``forward(lr)``: (SR in [-1, 1], features), ``scale`` 4 or 8.

    ``features`` are the output of every block and, last, the trunk added to the first convolution.
    """

    def __init__(self, *, num_feat: int, num_block: int, growth: int, scale: int) -> None:
        super().__init__()
        if scale not in (4, 8):
            raise ValueError(f"RRDB enlarges by 4 or 8, not {scale}")
        self.conv_first = nn.Conv2d(3, num_feat, 3, padding=1)
        self.RRDB_trunk = nn.ModuleList(RRDB(num_feat, growth) for _ in range(num_block))
        self.trunk_conv = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.upconv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.upconv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        if scale == 8:
            self.upconv3 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.HRconv = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_last = nn.Conv2d(num_feat, 3, 3, padding=1)
        self.ups = scale.bit_length() - 1

    def features(self, lr: Tensor) -> list[Tensor]:
        """All that the SRDiff denoiser may read, without the enlarged image."""
        first = self.conv_first((lr + 1) / 2)
        x, features = first, []
        for block in self.RRDB_trunk:
            x = block(x)
            features.append(x)
        return [*features, first + self.trunk_conv(x)]

    def enlarge(self, features: Tensor) -> Tensor:
        """The enlarged image in [0, 1] before it is clamped."""
        for i in range(self.ups):
            conv = getattr(self, f"upconv{i + 1}")
            features = _activate(conv(F.interpolate(features, scale_factor=2, mode="nearest")))
        out: Tensor = self.conv_last(_activate(self.HRconv(features)))
        return out

    def forward(self, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.features(lr)
        return self.enlarge(features[-1]).clamp(0, 1) * 2 - 1, features
