"""What a step truly gained, where the truth is known: the measures that a regressor learns.

Sums of measures stand in units of the texture distance; 7 dB of PSNR are taken for 1 of it, as
``docs/benchmarks.md`` does. So a gain of 0.005 is 0.035 dB, or 0.005 of texture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from yoda_cli.diffusion.adaptive import Gains
from yoda_cli.evaluation.metrics.basic import psnr, ssim, texture_distance
from yoda_cli.images.resize import imresize
from yoda_cli.models.gain import RegionView

#: dB of PSNR for one of texture distance: about what a sample costs against its base, as
#: `scripts/experiment_table.py` reckons too.
DB_PER_TEXTURE = 7.0
SCALES = 3  # of the similarity: whole, half and quarter size


def multi_scale_ssim(sr: Tensor, hr: Tensor) -> float:
    """The mean of SSIM on Y at full, half and quarter size, of those where a window fits."""
    values = []
    for _ in range(SCALES):
        if min(sr.shape[-2:]) < 11:
            break
        values.append(ssim(sr, hr))
        sr, hr = F.avg_pool2d(sr, 2), F.avg_pool2d(hr, 2)
    return sum(values) / len(values) if values else 0.0


def true_sums(sr: Tensor, hr: Tensor) -> Gains:
    """Fidelity: PSNR and SSIM of several scales. Realism: the texture distance, negative.

    Pictures are (1, 3, H, W) in [0, 1]. A picture without texture has the realism 0.
    """
    decibels = min(psnr(sr, hr), 100.0)
    texture = texture_distance(sr, hr) if min(hr.shape[-2:]) >= 32 else math.nan
    return Gains(
        decibels / DB_PER_TEXTURE + multi_scale_ssim(sr, hr),
        0.0 if math.isnan(texture) else -texture,
    )


@dataclass
class Oracle:
    """Judges one region by the truth ``hr`` (1, 3, H, W) of the whole picture."""

    hr: Tensor
    view: RegionView
    before: Gains | None = None

    def __call__(self, z_0: Tensor, t: int) -> Gains | None:
        now = true_sums(*self.pictures(z_0))
        before, self.before = self.before, now
        return None if before is None else Gains.between(before, now)

    def pictures(self, z_0: Tensor) -> tuple[Tensor, Tensor]:
        """The region of the estimate and of the truth, without padding."""
        sr = self.view.decode(z_0).float().clamp(0, 1).cpu()
        window, factor = self.view.window, max(sr.shape[-2] // z_0.shape[-2], 1)
        size = (self.view.size[0] * factor, self.view.size[1] * factor)
        hr = self.hr if tuple(self.hr.shape[-2:]) == size else imresize(self.hr, size)
        hr = window.multiplied(factor).cut(hr)
        return sr[..., : hr.shape[-2], : hr.shape[-1]], hr[..., : sr.shape[-2], : sr.shape[-1]]
