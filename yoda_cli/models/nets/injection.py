"""AdaDiffSR's progressive feature injection: what the last step gained steers the condition.

ô = α·o + β with (α, β) = φ(o, I) (arXiv:2410.17752): how strongly the encoder's features o reach
the denoiser depends on what the region's last step gained, I.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 16
GAINS = 2  # of fidelity and of realism
USUAL = 0.05  # about what steps of a long chain gain on average: larger gains are bent


class Injection(nn.Module):
    """φ: convolutions of 1×1, so no pixel sees its neighbours, and halos stay as they are.

    Parameters: ``features`` (C → 16), ``gains`` (2 → 16) and ``out`` (16 → 2·C, α - 1 before β),
    each ``weight`` and ``bias``. ``out`` starts at zero: α = 1, β = 0, and not a bit changes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, WIDTH, 1)
        self.gains = nn.Linear(GAINS, WIDTH)
        self.out = nn.Conv2d(WIDTH, 2 * channels, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, gains: Tensor | None) -> Tensor:
        """ô, like ``features`` o (B, C, h, w). ``gains`` (B, 2) are in (-1, 1): fidelity, realism;
        None is zero."""
        if gains is None:
            gains = features.new_zeros(len(features), GAINS)
        bent = torch.tanh(gains / USUAL).to(features.dtype)
        hidden = F.silu(self.features(features) + self.gains(bent)[:, :, None, None])
        alpha, beta = self.out(hidden).chunk(2, 1)
        steered: Tensor = features + alpha * features + beta
        return steered
