"""Degradations that training puts on a low-resolution crop."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from yoda_cli.images.resize import imresize


def degrade_pair(hr: Tensor, strength: float, scale: int, generator: torch.Generator) -> Tensor:
    """A degraded LR (3, h, w) of ``hr`` (3, H, W), both in [0, 1]; ``strength`` in (0, 1].

    Blur, a random reduction kernel, Gaussian and Poisson noise, JPEG: each up to a bound that
    grows with the strength (σ 1.6 LR pixels; σ 20/255; quality 95 … 30).
    """
    rnd = torch.rand(6, generator=generator).tolist()
    pixels = hr.permute(1, 2, 0).cpu().numpy()
    blur = rnd[0] * strength * 1.6 * scale
    if blur > 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
    height, width = pixels.shape[0] // scale, pixels.shape[1] // scale
    if rnd[1] < 0.6:
        chw = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        lr = imresize(chw, (height, width))[0].permute(1, 2, 0).numpy()
    else:
        kernel = cv2.INTER_AREA if rnd[1] < 0.8 else cv2.INTER_LINEAR
        lr = cv2.resize(pixels, (width, height), interpolation=kernel)
    noise = torch.randn(lr.shape, generator=generator).numpy()
    sigma = rnd[2] * strength * 20 / 255
    shot = rnd[3] * strength * 0.01
    lr = np.clip(lr + noise * np.sqrt(sigma**2 + shot * np.clip(lr, 0, 1)), 0, 1)
    bgr = np.ascontiguousarray((lr[..., ::-1] * 255).round().astype(np.uint8))
    if rnd[4] < 0.75:
        quality = int(95 - 65 * strength * rnd[5])
        _, packed = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)
        assert unpacked is not None
        bgr = np.ascontiguousarray(unpacked, dtype=np.uint8)
    return torch.from_numpy(bgr[..., ::-1].astype(np.float32) / 255).permute(2, 0, 1)
