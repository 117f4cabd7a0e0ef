"""Attention without weights: uniform, a centred Gaussian, Canny edges, SIFT key points.

All take (1, 3, h, w) in [0, 1] and give (1, 1, h, w) in [0, 1]. Maps that measure something are
min-max normalised; an image without contrast gives a constant map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from yoda_cli.arrays import as_array, like, zeros

if TYPE_CHECKING:
    from torch import Tensor

Map = npt.NDArray[np.float32]

CONSTANT = 0.5  # the value of a map that has nothing to say
STRONG_EDGES = 99  # percentile of the gradients above which an edge begins
EDGE_BLUR = (2.0, 8.0)  # least and largest σ, LR pixels; between them a 64th of the long side
MAX_KEYPOINTS = 2000  # of SIFT, the strongest; chosen to bound the time that busy pictures take


def uniform(lr: Tensor) -> Tensor:
    """A ≡ 1: plain diffusion."""
    return zeros(lr, lr.shape[0], 1, *lr.shape[-2:]) + 1


def gaussian(lr: Tensor) -> Tensor:
    """A fixed Gaussian at the centre, σ a quarter of each side; 1 in the middle."""
    height, width = lr.shape[-2:]
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / height - np.float32(0.5)
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / width - np.float32(0.5)
    bell = np.exp(-8 * (y[:, None] ** 2 + x[None, :] ** 2))
    return like(lr, np.broadcast_to(bell / bell.max(), (lr.shape[0], 1, height, width)).copy())


def min_max_map(values: Map) -> Map:
    """Min-max to [0, 1]; a constant map becomes ``CONSTANT``."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return np.full_like(values, CONSTANT)
    return (values - low) / (high - low)


def _grey(lr: Tensor) -> npt.NDArray[np.uint8]:
    """(1, 3, h, w) in [0, 1] → (h, w) 8-bit luma."""
    import cv2

    pixels = (as_array(lr[0]).clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return grey.astype(np.uint8)


def _as_map(values: Map, lr: Tensor) -> Tensor:
    return like(lr, min_max_map(values)[None, None])


def edge(lr: Tensor) -> Tensor:
    """How dense the strong edges are here: Canny's, by the picture's own gradients, blurred.

    The blur is wide because a tile works as long as its brightest pixel: with every single edge
    bright, nearly all tiles of a photograph would.
    """
    import cv2  # here: a fifth of a second, and most runs take the learned map

    grey = _grey(lr)
    gradient = np.hypot(
        cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3)
    )
    # Below the percentile itself: where all edges are alike it is their strength.
    high = max(0.9 * float(np.percentile(gradient, STRONG_EDGES)), 40.0)
    edges = cv2.Canny(grey, high / 2, high, L2gradient=True)
    sigma = float(np.clip(max(grey.shape) / 64, *EDGE_BLUR))
    blurred = cv2.GaussianBlur(edges.astype(np.float32), (0, 0), sigma)
    return _as_map(blurred.astype(np.float32), lr)


def sift(lr: Tensor) -> Tensor:
    """A Gaussian on every SIFT key point, as wide as the key point's scale."""
    import cv2

    grey = _grey(lr)
    total: Map = np.zeros(grey.shape, np.float32)
    if min(grey.shape) < 2:
        return _as_map(total, lr)
    for point in cv2.SIFT.create(nfeatures=MAX_KEYPOINTS).detect(grey, None):
        _add_bell(total, point.pt[0], point.pt[1], max(point.size / 2, 1.0))
    return _as_map(np.minimum(total, 1), lr)


def _add_bell(total: Map, x: float, y: float, sigma: float) -> None:
    reach = int(3 * sigma) + 1
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    part = total[top : int(y) + reach + 1, left : int(x) + reach + 1]
    rows = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None] - y
    cols = np.arange(left, left + part.shape[1], dtype=np.float32)[None, :] - x
    part += np.exp(-(rows**2 + cols**2) / (2 * sigma**2)).astype(np.float32)
