"""NIQE: how unlike natural pictures a picture's local statistics are; needs no reference.

The model of natural pictures is an own fit (``fit``), not the authors'; its numbers compare among
themselves only. Source: Mittal, Soundararajan, Bovik 2013, "Making a Completely Blind Image Quality
Analyzer".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from yoda_cli.images.color import luma
from yoda_cli.images.resize import imresize

Values = npt.NDArray[np.float64]

BLOCK = 96
WINDOW = 7
SIGMA = 7 / 6
SHARP = 0.75  # blocks at least this sharp, of the sharpest, are fitted
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True)
class Model:
    """Mean (36,) and covariance (36, 36) of natural blocks' features, and what they are of."""

    mean: Values
    covariance: Values
    about: str


def normalised(y: Tensor) -> tuple[Tensor, Tensor]:
    """(MSCN coefficients, local deviation) of luminance 0 … 255, (1, 1, H, W)."""
    x = torch.arange(WINDOW, dtype=y.dtype) - WINDOW // 2
    kernel = torch.exp(-(x**2) / (2 * SIGMA**2))
    kernel = (kernel[:, None] * kernel) / kernel.sum() ** 2
    pad = (WINDOW // 2,) * 4

    def mean(v: Tensor) -> Tensor:
        return F.conv2d(F.pad(v, pad, mode="replicate"), kernel[None, None])

    centre = mean(y)
    deviation = (mean(y * y) - centre**2).abs().sqrt()
    return (y - centre) / (deviation + 1), deviation


@lru_cache
def shape_table() -> tuple[Values, Values]:
    """Shapes of a generalised Gaussian and (E|x|)² / E x² at each."""
    shapes = np.arange(0.2, 10.001, 0.001)
    gamma = np.vectorize(math.lgamma)
    log = 2 * gamma(2 / shapes) - gamma(1 / shapes) - gamma(3 / shapes)
    return shapes, np.exp(log)


def asymmetric_fit(values: Values) -> tuple[float, float, float]:
    """Shape, left and right scale of an asymmetric generalised Gaussian, by its moments."""
    left, right = values[values < 0], values[values > 0]
    sl = math.sqrt((left**2).mean()) if left.size else 1e-6
    sr = math.sqrt((right**2).mean()) if right.size else 1e-6
    power = (values**2).mean()
    if power == 0:
        return 10.0, 1e-6, 1e-6
    ratio = sl / sr
    r = np.abs(values).mean() ** 2 / power
    target = r * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moments = shape_table()
    shape = float(shapes[np.argmin((moments - target) ** 2)])
    scale = math.exp(0.5 * (math.lgamma(1 / shape) - math.lgamma(3 / shape)))
    return shape, sl * scale, sr * scale


def block_features(mscn: Values) -> list[float]:
    """18 numbers of one block: its own distribution, and those of four neighbours' products."""
    shape, left, right = asymmetric_fit(mscn)
    found = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = asymmetric_fit(mscn * np.roll(mscn, shift, (0, 1)))
        step = math.exp(math.lgamma(2 / shape) - math.lgamma(1 / shape))
        found += [shape, (right - left) * step, left, right]
    return found


def features(image: Tensor) -> tuple[Values, Values]:
    """(blocks, 36) features at two scales and (blocks,) sharpness, of (1, 3, H, W) in [0, 1]."""
    y = (luma(image) * 255).round()
    rows, columns = y.shape[-2] // BLOCK, y.shape[-1] // BLOCK
    y = y[..., : rows * BLOCK, : columns * BLOCK]
    halves, sharpness = [], np.zeros(0)
    for scale in (1, 2):
        mscn, deviation = normalised(y)
        size = BLOCK // scale
        blocks = mscn[0, 0].unfold(0, size, size).unfold(1, size, size).flatten(0, 1).numpy()
        halves.append(np.array([block_features(block) for block in blocks]))
        if scale == 1:
            sharpness = F.avg_pool2d(deviation, BLOCK).flatten().numpy()
            y = imresize(y / 255, scale=0.5) * 255
    return np.concatenate(halves, 1), sharpness


def fit(pictures: Iterable[Tensor], about: str) -> Model:
    """The model of natural pictures from their sharp blocks."""
    kept = []
    for picture in pictures:
        if min(picture.shape[-2:]) < BLOCK:
            continue
        values, sharpness = features(picture)
        kept.append(values[sharpness >= SHARP * sharpness.max()])
    table = np.concatenate(kept)
    return Model(table.mean(0), np.cov(table, rowvar=False), about)


@lru_cache
def packaged_model() -> Model:
    """The fit that comes with the package."""
    packaged = files("yoda_cli.evaluation.metrics") / "niqe.npz"
    with packaged.open("rb") as file, np.load(file) as stored:
        return Model(stored["mean"], stored["covariance"], str(stored["about"]))


def niqe(image: Tensor, model: Model | None = None) -> float:
    """Distance of a picture from natural ones; lower is better. NaN below 2 blocks of 96 pixels."""
    model = model or packaged_model()
    if (image.shape[-2] // BLOCK) * (image.shape[-1] // BLOCK) < 2:
        return math.nan
    values, _ = features(image)
    apart = values.mean(0) - model.mean
    spread = (np.cov(values, rowvar=False) + model.covariance) / 2
    return float(math.sqrt(apart @ np.linalg.pinv(spread) @ apart))
