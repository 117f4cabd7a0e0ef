"""A network that restores damaged pictures: Real-ESRGAN's x4plus, made smaller and taught anew.

Dense blocks on the LR grid (Wang et al., arXiv:1809.00219), with most of the picture drawn there
too: the enlargement is two pixel shuffles. Its blocks began as some of the 23 of x4plus, and it
learned from pictures of the whole network (``scripts/restorer.py``).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from yoda_cli.models.nets.rrdb import RRDB, SLOPE

CHANNELS, GROWTH, LAST = 64, 32, 32  # of the trunk, its dense blocks, and at twice the LR size
SCALE = 4


class Restorer(nn.Module):
    """``forward(lr)``: lr (B, 3, h, w) in [0, 1] → (B, 3, 4·h, 4·w), nominally in [0, 1]."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.body = nn.ModuleList(RRDB(CHANNELS, GROWTH) for _ in range(blocks))
        self.conv_body = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.conv_up = nn.Conv2d(CHANNELS, 4 * LAST, 3, padding=1)
        self.conv_hr = nn.Conv2d(LAST, LAST, 3, padding=1)
        self.conv_last = nn.Conv2d(LAST, 3 * 4, 3, padding=1)

    def features(self, lr: Tensor) -> Tensor:
        """(B, ``CHANNELS``, h, w): those that x4plus enlarges."""
        first = x = self.conv_first(lr)
        for block in self.body:
            x = block(x)
        out: Tensor = first + self.conv_body(x)
        return out

    def enlarge(self, features: Tensor) -> Tensor:
        """The picture of ``features``."""
        x = F.leaky_relu(F.pixel_shuffle(self.conv_up(features), 2), SLOPE)
        x = F.leaky_relu(self.conv_hr(x), SLOPE)
        return F.pixel_shuffle(self.conv_last(x), 2)

    def forward(self, lr: Tensor) -> Tensor:
        return self.enlarge(self.features(lr))
