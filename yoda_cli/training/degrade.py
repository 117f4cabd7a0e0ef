"""Damaged LR pictures for training: what cameras, resizers and codecs do to a photograph.

Two rounds of blur, resizing, noise and compression (the high-order model of Real-ESRGAN,
arXiv:2107.10833), then the LR grid and a last compression. Every round draws its own kinds and
amounts; one severity per picture bounds them all. Pictures are (H, W, 3) uint8 RGB here, and all
randomness comes from the generator given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from yoda_cli.images.resize import imresize

Bytes = NDArray[np.uint8]  # (H, W, 3) RGB
Floats = NDArray[Any]  # float32: (H, W, 3) RGB in [0, 1], or a kernel

KERNELS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
FIRST_FACTOR, SECOND_FACTOR = (0.35, 1.3), (0.5, 1.3)  # of the size, around both rounds
CODEC_ALONE = 0.2  # of the pictures are reduced well, then perhaps noisy and compressed
BEST_QUALITY, WORST_QUALITY = 95, 30  # of JPEG and WebP
WORST_SIGMA = 25.0 / 255  # of Gaussian noise
WORST_SHOT = 0.012  # variance of Poisson noise at white
WORST_LOSS = 0.6  # 1 - SSIM to the clean LR picture, from which on the strength is 1


def degrade(hr: Bytes, scale: int, rng: Generator) -> tuple[Bytes, float]:
    """A damaged LR picture of ``hr`` and the strength of its damage (see ``strength_of``).

    The sides of ``hr`` are multiples of ``scale``. The strength is what the damage does to this
    picture: noise that vanishes in foliage is much in a clear sky.
    """
    lr = damaged(hr, scale, rng)
    return lr, strength_of(lr, clean_lr(hr, scale))


def damaged(hr: Bytes, scale: int, rng: Generator) -> Bytes:
    """``hr`` on the LR grid, damaged; how it is damaged depends on ``rng`` alone."""
    severity = float(rng.uniform(0.1, 1))
    if rng.random() < CODEC_ALONE:
        x = _noise(clean_lr(hr, scale).astype(np.float32) / 255, severity, rng)
    else:
        size = hr.shape[1] // scale, hr.shape[0] // scale  # (width, height)
        x = _two_rounds(hr.astype(np.float32) / 255, size, severity, rng)
    return _bytes(_compress(x, severity, 0.85, rng))


def _two_rounds(hr: Floats, size: tuple[int, int], severity: float, rng: Generator) -> Floats:
    """``hr`` damaged once or twice on the way to ``size`` (width, height)."""
    at_hr = hr.shape[0] / size[1] / 4  # the amounts are those of a reduction to a quarter
    first = _log_uniform(rng, *FIRST_FACTOR)
    x = _resize(_blur(hr, severity * at_hr, rng), _scaled(hr.shape, first), rng)
    x = _compress(_noise(x, severity, rng), severity, 0.7, rng)
    if rng.random() < 0.7:
        second = _log_uniform(rng, *SECOND_FACTOR)
        x = _blur(x, 0.6 * severity * first * at_hr, rng)
        x = _noise(_resize(x, _scaled(x.shape, second), rng), 0.7 * severity, rng)
    x = _resize(x, size, rng)
    if rng.random() < 0.25:
        x = _sharpen(x, severity, rng)
    return _noise(x, 0.7 * severity, rng) if rng.random() < 0.4 else x


def clean_lr(hr: Bytes, scale: int) -> Bytes:
    """The benchmark's bicubic reduction of ``hr``."""
    chw = torch.from_numpy(hr.copy()).permute(2, 0, 1)[None]
    return imresize(chw, scale=1 / scale)[0].permute(1, 2, 0).numpy()


def strength_of(lr: Bytes, clean: Bytes) -> float:
    """How damaged ``lr`` is, 0 … 1: the root of its structural loss against the clean LR picture.

    The root spreads light damage, which is common and of which the eye sees much.
    """
    loss = max(0.0, 1 - _ssim(_luma(lr), _luma(clean)))
    return min(1.0, math.sqrt(loss / WORST_LOSS))


def _luma(picture: Bytes) -> Floats:
    y: Floats = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return y


def _ssim(x: Floats, y: Floats) -> float:
    """Mean structural similarity: Gaussian window, σ 1.5, K = (0.01, 0.03)."""

    def mean(a: Floats) -> Floats:
        out: Floats = cv2.GaussianBlur(a, (11, 11), 1.5)
        return out

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    cov = mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return float((top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


# --- one step each; ``amount`` in [0, 1] bounds what is drawn


def _blur(x: Floats, amount: float, rng: Generator) -> Floats:
    kinds: tuple[Callable[[float, Generator], Floats], ...] = (_gaussian, _disc, _motion, _sinc)
    which = int(rng.choice(4, p=(0.6, 0.14, 0.12, 0.14)))
    kernel = kinds[which](amount, rng)
    out: Floats = cv2.filter2D(x, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return out


def _gaussian(amount: float, rng: Generator) -> Floats:
    """A turned Gaussian; axes equal in 4 of 10."""
    long = 0.2 + 3.2 * amount * rng.random()
    short = long if rng.random() < 0.4 else 0.2 + (long - 0.2) * rng.random()
    angle = math.pi * rng.random()
    x, y = _turned(math.ceil(3 * long), angle)
    return _normalised(np.exp(-((x / long) ** 2 + (y / short) ** 2) / 2))


def _disc(amount: float, rng: Generator) -> Floats:
    """Defocus: a disc with a soft edge."""
    radius = 0.6 + 4.0 * amount * rng.random()
    x, y = _turned(math.ceil(radius) + 1, 0.0)
    return _normalised(np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


def _motion(amount: float, rng: Generator) -> Floats:
    """A line of soft ends in a random direction."""
    half = 0.5 + 5.0 * amount * rng.random()
    x, y = _turned(math.ceil(half) + 1, math.pi * rng.random())
    line = np.clip(half + 0.5 - np.abs(x), 0, 1) * np.clip(1 - np.abs(y), 0, 1)
    return _normalised(line)


def _sinc(amount: float, rng: Generator) -> Floats:
    """Ringing: a low pass with a sharp edge, as of resizers and codecs."""
    cutoff = 1 - 0.75 * amount * rng.random()  # of half the sampling rate
    reach = np.arange(-10, 11)
    line = np.sinc(cutoff * reach) * np.hamming(21)
    return _normalised(np.outer(line, line))


def _turned(radius: int, angle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of a square kernel, turned by ``angle``."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, c * y - s * x


def _normalised(kernel: NDArray[np.float64]) -> Floats:
    out: Floats = (kernel / kernel.sum()).astype(np.float32)
    return out


def _noise(x: Floats, amount: float, rng: Generator) -> Floats:
    """Gaussian or Poisson, grey in 4 of 10; none in 3 of 10."""
    kind = rng.random()
    if kind < 0.3:
        return x
    grey = rng.random() < 0.4
    shape = (*x.shape[:2], 1) if grey else x.shape
    own = np.random.default_rng(int(rng.integers(2**62)))  # for what is drawn next
    drawn = own.standard_normal(shape, dtype=np.float32)
    if kind < 0.7:
        deviation: Floats = np.full((1, 1, 1), WORST_SIGMA * amount * rng.random(), np.float32)
    else:
        level = x.mean(2, keepdims=True) if grey else x
        deviation = np.sqrt(np.float32(WORST_SHOT * amount * rng.random()) * level)
    out: Floats = np.clip(x + drawn * deviation, 0, 1)
    return out


def _sharpen(x: Floats, amount: float, rng: Generator) -> Floats:
    """An unsharp mask, with its halos."""
    soft = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.6, 1.6)))
    out: Floats = np.clip(x + np.float32(1.5 * amount * rng.random()) * (x - soft), 0, 1)
    return out


def _compress(x: Floats, amount: float, share: float, rng: Generator) -> Floats:
    """JPEG (with and without colour subsampling) or, in 1 of 7, WebP; a ``share`` of pictures."""
    if rng.random() > share:
        return x
    quality = round(BEST_QUALITY - (BEST_QUALITY - WORST_QUALITY) * amount * rng.random() ** 0.7)
    bgr = np.ascontiguousarray(_bytes(x)[..., ::-1])
    if rng.random() < 1 / 7:
        _, packed = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
    else:
        full = rng.random() < 0.25
        sampling = (
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if full else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        )
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        _, packed = cv2.imencode(".jpg", bgr, settings)
    unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    assert unpacked is not None
    return unpacked[..., ::-1].astype(np.float32) / 255


def _resize(x: Floats, size: tuple[int, int], rng: Generator) -> Floats:
    """To (width, height) by a random kernel; area four times of ten where it gets smaller."""
    kernel = KERNELS[int(rng.choice(4, p=(0.4, 0.2, 0.25, 0.15)))]
    if size[0] * size[1] > x.shape[0] * x.shape[1] and kernel == cv2.INTER_AREA:
        kernel = cv2.INTER_LINEAR
    out: Floats = np.clip(cv2.resize(x, size, interpolation=kernel), 0, 1)
    return out


def _scaled(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    return max(8, round(shape[1] * factor)), max(8, round(shape[0] * factor))


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _bytes(x: Floats) -> Bytes:
    out: Bytes = np.clip(np.rint(x * 255), 0, 255).astype(np.uint8)
    return out
