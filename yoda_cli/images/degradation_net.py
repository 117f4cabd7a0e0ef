"""The network that sees how damaged a window of a picture is, and the statistics that it reads.

NumPy alone: a run without torch judges alike. ``scripts/damage_net.py`` trains it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from yoda_cli.arrays import Array

STATISTICS = 146
WIDTHS = (192, 48, 1)  # of the layers
LAYERS = tuple(f"layers.{2 * i}" for i in range(len(WIDTHS)))  # their names; SiLU between them
MOST = 4.0  # deviations from the mean, above which a statistic says no more
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LUMA_BANDS = tuple((band, band + 1) for band in range(1, 15))  # diagonals of the transform
COLOUR_BANDS = ((1, 3), (3, 5), (5, 8), (8, 15))


@cache
def weights_of(path: Path) -> Mapping[str, Array]:
    """The tensors of a file: ``mean``, ``deviation`` and those of ``LAYERS``."""
    from safetensors.numpy import load

    return load(path.read_bytes())


def strengths(windows: Array, weights: Mapping[str, Array]) -> Array:
    """(B,) strengths ≥ 0 of (B, 3, h, w) in [0, 1], sides ≥ ``degradation.LEAST_SIDE``."""
    x = (statistics(windows) - weights["mean"]) / weights["deviation"]
    x = x.clip(-MOST, MOST)
    for index, layer in enumerate(LAYERS):
        if index > 0:
            x = x / (1 + np.exp(-x))
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
    return np.logaddexp(x[:, 0], np.float32(0))


def statistics(x: Array) -> Array:
    """(B, ``STATISTICS``) of pictures (B, 3, h, w), float32 in [0, 1]."""
    red, green, blue = np.moveaxis(np.float32(255) * x, 1, 0)
    y = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    cb, cr = (blue - y) * np.float32(0.564), (red - y) * np.float32(0.713)
    parts = (
        _bands(y, LUMA_BANDS),
        _bands(cb, COLOUR_BANDS),
        _bands(cr, COLOUR_BANDS),
        _block_steps(y),
        _block_steps(cb + cr),
        _edges(y),
        _correlations(y),
    )
    return np.concatenate(parts, 1).astype(np.float32)


def _quantiles(x: Array, wanted: Sequence[float], axis: int) -> Array:
    """As ``np.quantile``, which takes 30 ms to load masked arrays."""
    x = np.sort(x, axis)
    last = x.shape[axis] - 1
    found = []
    for quantile in wanted:
        below = math.floor(quantile * last)
        share = np.float32(quantile * last - below)
        low, high = (x.take(min(i, last), axis) for i in (below, below + 1))
        found.append(low + share * (high - low))
    return np.stack(found)


@cache
def _cosines() -> Array:
    """(8, 8): the orthonormal DCT-II, a frequency a row."""
    k = np.arange(8.0)
    line = np.cos(math.pi * (2 * k + 1) * k[:, None] / 16) / 2
    line[0] /= math.sqrt(2)
    cosines: Array = line.astype(np.float32)
    return cosines


def _bands(plane: Array, bands: tuple[tuple[int, int], ...]) -> Array:
    """Quantiles over the blocks, every other pixel one, of the log energy in bands of diagonals."""
    line = _cosines()
    blocks = sliding_window_view(plane, (8, 8), (1, 2))[:, ::2, ::2]
    energy = np.square(line @ blocks @ line.T).reshape(len(plane), -1, 64)
    diagonal = np.add.outer(np.arange(8), np.arange(8)).ravel()
    kept = np.stack([(diagonal >= low) & (diagonal < high) for low, high in bands], 1)
    levels = energy @ (kept / kept.sum(0)).astype(np.float32)  # (B, n, bands)
    levels = np.log(levels + np.float32(0.25)) / 2  # of an energy of rounding
    return _rows(np.moveaxis(_quantiles(levels, QUANTILES, 1), 0, -1))


def _block_steps(plane: Array) -> Array:
    """How far steps at one phase of a period exceed the others: 12 numbers."""
    found = []
    for turned in (plane, plane.swapaxes(1, 2)):
        step = np.abs(np.diff(turned, axis=-1))
        excess = step[..., 1:-1] - (step[..., :-2] + step[..., 2:]) / 2
        usual = step.mean((1, 2)) + 0.5
        for period in (8, 4, 16):
            whole = excess.shape[-1] // period * period
            phases = excess[..., :whole].reshape(*excess.shape[:-1], -1, period).mean((1, 2))
            second, first = np.sort(phases, -1)[:, -2:].T
            found += [first / usual, (first - second) / usual]
    return np.stack(found, 1)


def _edges(plane: Array) -> Array:
    """Quantiles of the gradient, and how sharp the strongest edges are, by two measures."""
    across = plane[..., 1:-1, 2:] - plane[..., 1:-1, :-2]
    down = plane[..., 2:, 1:-1] - plane[..., :-2, 1:-1]
    gradient = _rows(np.sqrt(np.square(across) + np.square(down)) / 2)
    sides = plane[:, :-2, 1:-1] + plane[:, 2:, 1:-1] + plane[:, 1:-1, :-2] + plane[:, 1:-1, 2:]
    bend = _rows(np.abs(sides - 4 * plane[:, 1:-1, 1:-1]))
    top = _quantiles(gradient, (0.5, 0.9, 0.97), 1).T
    sharpness = _share(bend, gradient, gradient >= top[:, 1:2])
    wide = _range(plane, 5)
    near = _rows(_range(plane, 2)[:, : wide.shape[1], : wide.shape[2]])
    wide = _rows(wide)
    steepness = _share(near, wide, wide >= _quantiles(wide, (0.9,), 1).T)
    return np.concatenate([np.log(top + 1), sharpness, steepness], 1)


def _rows(planes: Array) -> Array:
    return planes.reshape(len(planes), -1)


def _range(plane: Array, side: int) -> Array:
    """Largest minus least value in every square."""
    most = least = plane
    for axis in (1, 2):
        most = sliding_window_view(most, side, axis).max(-1)
        least = sliding_window_view(least, side, axis).min(-1)
    ranges: Array = most - least
    return ranges


def _share(part: Array, whole: Array, where: Array) -> Array:
    parts, wholes = (x.sum(1, keepdims=True) for x in (part * where, whole * where))
    share: Array = parts / (wholes + 1)
    return share


def _means(plane: Array, side: int) -> Array:
    """Of every square."""
    for axis in (1, 2):
        plane = sliding_window_view(plane, side, axis).mean(-1)
    return plane


def _correlations(plane: Array) -> Array:
    """Moments of locally normalised luma, and its products with five neighbours."""
    mean = _means(plane, 7)
    deviation = np.sqrt((_means(np.square(plane), 7) - np.square(mean)).clip(min=0))
    m = (plane[..., 3:-3, 3:-3] - mean) / (deviation + 1.5)
    power = np.square(m).mean((1, 2))
    found = [power, (m**4).mean((1, 2)) / (power**2 + 1e-3)]
    for rows, columns in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
        first = m[..., rows:, columns:]
        second = m[..., : m.shape[-2] - rows, : m.shape[-1] - columns]
        found.append((first * second).mean((1, 2)))
    return np.stack(found, 1)
