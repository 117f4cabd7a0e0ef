"""How degraded a picture is, in the strength that ``--denoise`` gives the encoder: 0 … 1.

Training draws a strength s and degrades by up to a bound that grows with it: JPEG quality
95 − 65·s·u and noise σ 20·s·u (of 255), u uniform (``data.degrade_pair``). What is seen here is
x = s·u, so s is estimated by its mean given x, (1 − x) / ln(1/x).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.devices.memory import let_go
from yoda_cli.images.color import luma
from yoda_cli.images.resize import as_floats

WORST_QUALITY, BEST_QUALITY = 30, 95

WORST_SIGMA = 20.0

# The 5 % quantile of 8×8 blocks' noise. On clean pictures reduced ×4 nine in ten lie below 2.8
# (texture is no noise); Gaussian noise of σ 10 gives 4.6 … 6.4, about 0.55 σ.
CLEAN_BELOW = 3.0
QUANTILE, QUANTILE_OF_SIGMA = 0.05, 0.55

# A strength stands for blur, noise and JPEG together; a picture with one needs less. On Set5
# both checkpoints came nearest at 0.3, where the mean says 0.83 (JPEG 50) and 0.72 (σ = 10).
CAUTION = 0.4
BLOCK = 8
BAND_PIXELS = 1 << 20  # looked at together: it is done in float64

#: JPEG's example table for luminance at quality 50 sums to this.
TABLE_SUM = 3685


@dataclass(frozen=True)
class Estimate:
    """A strength and the words for it; empty words where there is nothing to say."""

    strength: float
    why: str


def given(x: float) -> float:
    """The mean strength of pictures that were degraded by x = s·u."""
    x = min(max(x, 0.0), 1.0)
    if x == 0:
        return 0.0
    return 1.0 if x > 0.999 else (1 - x) / math.log(1 / x)


def jpeg_quality(table: Sequence[int]) -> float:
    """The usual 1 … 100 scale, from a luminance quantisation table's 64 entries."""
    percent = 100 * sum(table) / TABLE_SUM
    return min(100.0, (200 - percent) / 2 if percent <= 100 else 5000 / percent)


def noise_sigma(image: Tensor) -> float:
    """σ of the noise in (1, 3, H, W), floats or bytes, of 255; 0 where it cannot be told from
    texture."""
    height, width = image.shape[-2:]
    if min(height, width) < BLOCK + 2:
        return 0.0
    rows = max(BAND_PIXELS // width // BLOCK, 1) * BLOCK
    found = []
    for top in range(0, height - BLOCK - 1, rows):
        found.append(_deviations(image[..., top : top + rows + 2, :]))
        let_go()
    blocks = torch.cat(found)
    if blocks.numel() > 1_000_000:
        blocks = blocks[:: blocks.numel() // 1_000_000 + 1]
    low = float(blocks.quantile(QUANTILE))
    return 0.0 if low < CLEAN_BELOW else low / QUANTILE_OF_SIGMA


def _deviations(image: Tensor) -> Tensor:
    """(n,): of what a second difference leaves in every block of (1, 3, h, w), of 255."""
    y = luma(as_floats(image)) * 255 * 255 / 219
    line = torch.tensor([1.0, -2.0, 1.0], dtype=y.dtype)
    high = F.conv2d(y, (line[:, None] * line)[None, None] / 6)
    return F.avg_pool2d(high.square(), BLOCK).sqrt().flatten()


def estimate(image: Tensor, table: Sequence[int] | None) -> Estimate:
    """How strongly to restore a picture; ``table`` is its JPEG quantisation, if it was one."""
    sigma = noise_sigma(image)
    found = Estimate(given(sigma / WORST_SIGMA), f"noise of about {sigma:.0f}/255")
    if table is not None:
        quality = jpeg_quality(table)
        x = (BEST_QUALITY - quality) / (BEST_QUALITY - WORST_QUALITY)
        by_jpeg = Estimate(given(x), f"JPEG quality {quality:.0f}")
        found = max(found, by_jpeg, key=lambda guess: guess.strength)
    rounded = round(CAUTION * found.strength, 2)
    return Estimate(rounded, found.why if rounded > 0 else "")
