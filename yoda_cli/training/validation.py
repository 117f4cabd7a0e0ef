"""A quick, repeatable look at a network in training: scores on held-out crops and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from yoda_cli.diffusion.noise import NoiseField
from yoda_cli.diffusion.steps import ddim_step
from yoda_cli.diffusion.timesteps import spaced_timesteps
from yoda_cli.diffusion.yoda import AttentionMask, masked_sample
from yoda_cli.evaluation.metrics import psnr, quantise, texture_distance
from yoda_cli.images.resize import imresize
from yoda_cli.models.backbone import Backbone
from yoda_cli.training.true_gains import TrueGains

CROP = 256

# On the perception-distortion line of compact networks a unit of texture costs about 7 dB.
DB_PER_TEXTURE = 7.0


@dataclass(frozen=True)
class Score:
    """Means over the held-out crops, PSNR in dB on Y, 4-pixel border; samples use A ≡ 1.

    ``texture`` is NaN where no crop has a whole block of texture.
    """

    bicubic_psnr: float
    base_psnr: float
    sample_psnr: float
    texture: float

    @property
    def value(self) -> float:
        """Larger is better: how far the sample lies above the perception-distortion line."""
        texture = 0.0 if math.isnan(self.texture) else self.texture
        return self.sample_psnr - DB_PER_TEXTURE * texture


def validate(
    net: Backbone, pictures: Sequence[Tensor], steps: int, device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]], sheet: Path,
) -> Score:  # fmt: skip
    """Score ``net`` on centre crops of (1, 3, H, W) uint8 pictures.

    Saves bicubic, base, sample and HR side by side as ``sheet``.
    """
    rows: list[Tensor] = []
    scores: list[tuple[float, float, float, float]] = []
    for index, picture in enumerate(pictures):
        hr = centre_crop(picture, CROP).float() / 255
        lr = quantise(imresize(hr, scale=1 / net.geometry.scale))
        base, sample = reconstruct(net, lr.to(device), hr.to(device), steps, index, autocast)
        up = imresize(lr, scale=net.geometry.scale)
        scores.append(
            (
                psnr(quantise(up), hr, border=4),
                psnr(quantise(base), hr, border=4),
                psnr(quantise(sample), hr, border=4),
                texture_distance(quantise(sample), hr, border=4),
            )
        )
        rows.append(torch.cat([up, base, sample, hr], dim=3)[0])
    save_sheet(rows, sheet)
    return Score(*torch.tensor(scores).nanmean(0).tolist())


@torch.no_grad()
def reconstruct(
    net: Backbone, lr: Tensor, hr: Tensor, steps: int, seed: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The unrefined picture and a plain DDIM sample of it, both on the CPU.

    A network that takes gains is told the true ones, by ``hr``; every step is taken.
    """
    with autocast():
        condition = net.encode(lr)
    height, width = condition.z_lr.shape[-2:]
    field = NoiseField(seed, net.geometry.z_channels)
    chain = spaced_timesteps(net.schedule.num_steps, steps)
    gains = TrueGains(hr, lambda z: net.decode(z, condition), net.schedule.num_steps)

    def predict(z_t: Tensor, t: int, mask: Tensor) -> Tensor:
        with autocast():
            z_0 = net.predict(z_t, t, replace(condition, gains=gains.now), mask)
        if net.takes_gains:
            gains.see(z_0, chain[chain.index(t) + 1])
        return z_0

    z_0 = masked_sample(
        predict,
        ddim_step,
        net.schedule,
        chain,
        AttentionMask(torch.ones_like(condition.z_lr[:, :1]), 1.0, net.schedule.num_steps),
        condition.z_lr,
        lambda step: field.draw(step, 0, 0, height, width).to(lr.device),
    )
    base = net.decode(condition.z_lr, condition)
    return base.float().cpu(), net.decode(z_0, condition).float().cpu()


def centre_crop(picture: Tensor, size: int) -> Tensor:
    """The centre ``size`` square, or the largest multiple of 32 that fits."""
    height, width = (min(size, n // 32 * 32) for n in picture.shape[-2:])
    top, left = (picture.shape[-2] - height) // 2, (picture.shape[-1] - width) // 2
    return picture[..., top : top + height, left : left + width]


def save_sheet(rows: Sequence[Tensor], path: Path) -> None:
    """Stack rows (3, H, W) of equal width into one PNG; narrower rows are left out."""
    width = max(row.shape[-1] for row in rows)
    sheet = torch.cat([row for row in rows if row.shape[-1] == width], dim=1)
    pixels = (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
